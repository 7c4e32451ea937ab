"""Faults that would stop a judge on a GPU are found before Ray starts, each with its reason and its cure."""

from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from judge_service import cluster, gpus, service
from judge_service.backends import preflight
from judge_service.backends.preflight import gpu_faults
from judge_service.checks import doctor
from judge_service.cli import app
from judge_service.gpus import Gpus, current_gpu, driver_version, visible_gpus
from tests.judge_service.gpus import gpu, machine, settings, sizes
from unijudge.errors import ModelError, SettingsError

NO_DRIVER = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver"
OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver"
HIDDEN = "No CUDA GPUs are available"


@pytest.fixture(autouse=True)
def _tools(monkeypatch, tmp_path):
    """A machine that has a compiler, and a model that has a known configuration."""
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(
        preflight.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "gcc" else None
    )
    monkeypatch.setattr(preflight.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(preflight, "load_sizes", lambda *_: sizes("7B"))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setattr(preflight, "CUDA_FOLDER", tmp_path)


def faults_of(chosen, gpus):
    return list(gpu_faults(chosen, gpus))


@pytest.mark.parametrize("chip", ["A100 80", "H100 80", "H200", "L4", "A10G", "RTX 4090", "B200"])
def test_the_shipped_judge_starts_on_every_new_gpu(chip):
    assert faults_of(settings(), machine(chip)) == []
    assert faults_of(settings(replicas=8), machine(chip, count=8)) == []
    assert (
        faults_of(
            settings(replicas=2, tensor_parallel_size=4, gpus_per_replica=4), machine(chip, count=8)
        )
        == []
    )


@pytest.mark.parametrize(
    ("driver", "problem", "reason", "cure"),
    [
        (
            "550.90.07",
            OLD_DRIVER,
            "is too old (found version 12040)",
            "driver 580 or newer (this machine has 550.90.07)",
        ),
        (
            None,
            NO_DRIVER,
            "sees no GPU (Found no NVIDIA driver on your system",
            "docker run --gpus all",
        ),
        (
            "580.65.06",
            HIDDEN,
            "sees no GPU (No CUDA GPUs are available)",
            "Check CUDA_VISIBLE_DEVICES",
        ),
    ],
)
def test_no_gpu_is_visible(driver, problem, reason, cure):
    (fault,) = faults_of(settings(), Gpus("13.0", driver, (), problem))
    assert reason in fault
    assert cure in fault
    assert "To use the CPU, set gpus_per_replica = 0" in fault


def test_a_cuda_build_without_a_gpu(monkeypatch):
    monkeypatch.setattr(preflight, "has_cuda_vllm", lambda: True)
    for chosen in (settings(), settings(gpus_per_replica=0)):
        (fault,) = faults_of(chosen, Gpus("13.0", None, (), NO_DRIVER))
        assert fault.startswith(
            "vLLM is a CUDA build, and no GPU is visible: torch is built for CUDA 13.0, and sees no GPU"
        )
        assert "install the extra judge-cpu or set model.backend = 'transformers'" in fault
    (fault,) = faults_of(settings(gpus_per_replica=0), machine("L4"))
    assert "no replica requests a GPU. Set gpus_per_replica = 1" in fault
    (fault,) = faults_of(settings(model={"device": "cpu"}), machine("L4"))
    assert fault.startswith("model.device = 'cpu': vLLM is a CUDA build and needs a GPU")
    assert preflight.needs_gpu(settings(gpus_per_replica=0))
    assert not preflight.needs_gpu(settings(gpus_per_replica=0, model={"backend": "transformers"}))
    assert not preflight.needs_gpu(settings(gpus_per_replica=0, model={"backend": "scripted"}))


@pytest.mark.parametrize(
    ("service", "gpus_here", "room"),
    [
        ({"replicas": 3}, 2, 2),
        ({"replicas": 5, "gpus_per_replica": 0.5}, 2, 4),
        ({"replicas": 3, "gpus_per_replica": 4, "tensor_parallel_size": 4}, 8, 2),
    ],
)
def test_more_replicas_than_gpus(service, gpus_here, room):
    (fault,) = faults_of(settings(**service), machine("H100 80", gpus_here))
    assert (
        f"this machine has {gpus_here} GPUs (NVIDIA H100 80GB HBM3), enough for {room} replicas"
        in fault
    )
    assert "Lower replicas, or join a cluster with address" in fault
    assert faults_of(settings(**service | {"replicas": room}), machine("H100 80", gpus_here)) == []


def test_half_a_gpu_with_nearly_all_of_its_memory():
    half = {"gpus_per_replica": 0.5, "replicas": 2}
    (fault,) = faults_of(
        settings(**half, engine={"gpu_memory_utilization": 0.92}), machine("H100 80")
    )
    assert "puts 2 replicas on one GPU" in fault
    assert "Set at most 0.5, or remove the setting" in fault
    assert faults_of(settings(**half), machine("H100 80")) == []
    alone = {"gpus_per_replica": 0.5, "replicas": 1}
    assert (
        faults_of(settings(**alone, engine={"gpu_memory_utilization": 0.9}), machine("H100 80"))
        == []
    )


def test_another_program_uses_memory_of_the_gpu():
    (fault,) = faults_of(settings(), machine("H100 80", free=0.6))
    assert fault.startswith(
        "engine.gpu_memory_utilization = 0.92: the engine would use 72.8 GiB of NVIDIA H100 80GB HBM3 (79"
    )
    assert "(79 GiB, 47 GiB free). Set at most 0.6, or stop the other programs on the GPU" in fault
    assert (
        faults_of(settings(engine={"gpu_memory_utilization": 0.6}), machine("H100 80", free=0.6))
        == []
    )


def test_every_gpu_to_be_used_is_checked():
    busy, old = gpu("H100 80", free=0.1), gpu("V100")
    mixed = Gpus("13.0", "580.65.06", (gpu("H100 80"), busy, old), "")
    assert faults_of(settings(), mixed) == []
    (fault,) = faults_of(settings(replicas=2), mixed)
    assert "NVIDIA H100 80GB HBM3 (79 GiB, 8 GiB free). Set at most 0.09" in fault
    assert [
        text
        for text in faults_of(settings(replicas=3), mixed)
        if "V100-SXM2-16GB has compute capability 7.0" in text
    ]


@pytest.mark.parametrize(
    ("chip", "dtype", "reason"),
    [
        ("T4", "float16", "Tesla T4 has compute capability 7.5, and these kernels need 8.0"),
        ("L4", "float32", "these kernels compute in 16 bits. Set model.dtype = 'bfloat16'"),
    ],
)
def test_attention_kernels_that_the_gpu_cannot_run(monkeypatch, chip, dtype, reason):
    monkeypatch.setattr(preflight, "load_sizes", lambda *_: sizes("3B"))
    chosen = settings(model={"dtype": dtype}, engine={"attention": "FLASH_ATTN"})
    assert reason in faults_of(chosen, machine(chip))[0]


def test_chips_that_are_too_old(monkeypatch):
    monkeypatch.setattr(preflight, "load_sizes", lambda *_: sizes("3B"))
    (fault,) = faults_of(settings(), machine("T4"))
    assert (
        "Tesla T4 has compute capability 7.5, and bfloat16 needs 8.0. Set model.dtype = 'float16'"
        in fault
    )
    faults = faults_of(settings(model={"dtype": "float16"}), machine("V100"))
    assert "Tesla V100-SXM2-16GB has compute capability 7.0" in faults[0]


def test_packed_weights_in_another_dtype(monkeypatch):
    monkeypatch.setattr(preflight, "load_sizes", lambda *_: sizes("7B AWQ"))
    (fault,) = faults_of(settings(model={"dtype": "float32"}), machine("H100 80"))
    assert (
        "the weights are quantised with awq, whose kernels compute in 16 bits. Set model.dtype = 'bfloat16'"
        in fault
    )
    assert faults_of(settings(model={"dtype": "bfloat16"}), machine("H100 80")) == []


def test_a_model_that_does_not_fit(monkeypatch):
    monkeypatch.setattr(preflight, "load_sizes", lambda *_: sizes("72B"))
    (fault,) = faults_of(settings(), machine("H100 80", count=8))
    assert fault.startswith("the-model does not fit a NVIDIA H100 80GB HBM3: weights 136.7 GiB")
    assert fault.endswith(
        "Set tensor_parallel_size = 2 and gpus_per_replica = 2, or choose a smaller model"
    )
    monkeypatch.setattr(preflight, "load_sizes", lambda *_: sizes("7B"))
    (fault,) = faults_of(
        settings(gpus_per_replica=8, tensor_parallel_size=8), machine("H100 80", count=8)
    )
    assert (
        "the model's 28 attention heads cannot be split into this number of equal parts. Set a divisor of 28"
        in fault
    )


def test_compilers_that_the_engine_calls(monkeypatch, tmp_path):
    (tmp_path / "Python.h").unlink()
    monkeypatch.setattr(preflight.shutil, "which", lambda _: None)
    chosen = settings(engine={"sampler": "flashinfer", "attention": "FLASHINFER"})
    compiler, headers, nvcc = faults_of(chosen, machine("H200"))
    assert "apt install gcc libc6-dev" in compiler
    assert "Install python3-dev" in headers
    assert nvcc.startswith(
        "engine.sampler = 'flashinfer' and engine.attention = 'FLASHINFER': FlashInfer compiles"
    )
    assert faults_of(settings(model={"backend": "transformers"}), machine("H200")) == []
    monkeypatch.setenv("CC", "/usr/bin/clang")
    monkeypatch.setenv("CUDA_HOME", "/usr/local/cuda")
    assert faults_of(chosen, machine("H200")) == [headers]


def test_serve_and_doctor_say_the_same_before_ray_starts(monkeypatch, tmp_path):
    """A service that cannot start does not start Ray."""
    seen = machine("L4", free=0.5)
    for module in (preflight, doctor):
        monkeypatch.setattr(module, "visible_gpus", lambda: seen)
    file = tmp_path / "judge.toml"
    file.write_text(
        'gpus_per_replica = 1\nport = 0\n[model]\nbackend = "vllm"\nname = "m"\ndtype = "bfloat16"\n'
    )
    monkeypatch.setattr(cluster.ray, "init", lambda **_: pytest.fail("Ray was started"))
    with pytest.raises(
        SettingsError, match=r"engine\.gpu_memory_utilization = 0\.92: .*Set at most 0\.5"
    ):
        service.run(settings(port=0))
    done = CliRunner().invoke(app, ["doctor", str(file)])
    assert done.exit_code == 1
    assert "LACKS  gpus           engine.gpu_memory_utilization = 0.92" in done.stdout
    assert "note   a pair         not scored: the engine cannot start" in done.stdout


def test_the_doctor_reports_what_the_gpu_memory_will_hold(monkeypatch):
    monkeypatch.setattr(doctor, "visible_gpus", lambda: machine("L4"))
    monkeypatch.setattr(doctor, "load_sizes", lambda *_: sizes("7B"))
    lines = [finding.line() for finding in doctor._gpus(settings())]
    assert (
        lines[0]
        == "ok     gpus           NVIDIA L4 (22 GiB, 22 GiB free); driver 580.65.06, CUDA 13.0"
    )
    assert lines[1].startswith(
        "ok     gpu memory     weights 15.4 GiB, work space 1.9 GiB, cache 2.9 GiB of 20.3 GiB"
    )
    assert lines[1].endswith("8192 tokens a step")


def test_the_gpus_of_a_cluster_are_not_checked_on_this_machine(monkeypatch):
    monkeypatch.setattr(preflight, "visible_gpus", lambda: pytest.fail("looked"))
    monkeypatch.setenv("HF_HOME", "/models")
    monkeypatch.setenv("HF_TOKEN", "secret")
    on_cluster = settings(address="auto", replicas=64)
    preflight.check_machine(on_cluster)
    cluster, environment = (finding.line() for finding in doctor._gpus(on_cluster))
    assert "the cluster at auto has the GPUs" in cluster
    assert "HF_HOME" in environment
    assert "HF_TOKEN" not in environment


def test_the_properties_of_this_machine():
    here = visible_gpus()
    if here.cuda is None:
        assert here.found == ()
        assert here.why_none() == "torch is a CPU build. To use a GPU, install the extra judge"
        assert current_gpu(required=False) is None
        with pytest.raises(
            ModelError,
            match="the settings request a GPU, and this process sees none: torch is a CPU build",
        ):
            current_gpu(required=True)


def test_a_probe_that_dies_is_reported(monkeypatch):
    monkeypatch.setattr(gpus.sys, "executable", "/bin/false")
    with pytest.raises(
        ModelError, match=r"GPUs: torch cannot list them \(no message\)\. Check `nvidia-smi`"
    ):
        visible_gpus()


@pytest.mark.parametrize(
    "text",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.90.07  Fri May 31 09:35:42 UTC 2024\n",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.90.07  Release Build  (root@x)\n",
    ],
)
def test_the_version_of_the_driver_is_read(tmp_path, text):
    (tmp_path / "version").write_text(text)
    assert driver_version(tmp_path / "version") == "550.90.07"
    assert str(gpu("L4")) == "NVIDIA L4 (22 GiB, 22 GiB free)"


def test_an_unusable_gpu_does_not_hide_other_gpus(monkeypatch):
    """One GPU is in exclusive mode, and another process uses it."""
    torch = pytest.importorskip("torch")

    def properties(index):
        if index == 1:
            raise RuntimeError(
                "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nmore"
            )
        return SimpleNamespace(name=f"GPU {index}", major=9, minor=0, is_integrated=False)

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for name, stand_in in {
        "init": lambda: None,
        "device_count": lambda: 3,
        "get_device_properties": properties,
        "mem_get_info": lambda _: (70 * 2**30, 80 * 2**30),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    seen = gpus._probe()
    assert [one.name for one in seen.found] == ["GPU 0", "GPU 2"]
    assert seen.problem == "GPU 1: CUDA error: CUDA-capable device(s) is/are busy or unavailable"


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_that_ray_cannot_use_is_named_before_it_starts(
    tmp_path, monkeypatch, name
):
    from judge_service.backends.preflight import LONGEST_TEMPORARY, check_machine, temporary_faults
    from judge_service.settings import ServiceSettings

    for one in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(one, raising=False)
    assert not list(temporary_faults())
    (tmp_path / "file").touch()
    long = tmp_path / ("x" * LONGEST_TEMPORARY)
    long.mkdir()
    for folder, reason in [
        (tmp_path / "file", "is not a writable folder"),
        (tmp_path / "gone", "is not a writable folder"),
        (long, "sockets"),
    ]:
        monkeypatch.setenv(name, str(folder))
        (fault,) = temporary_faults()
        assert fault.startswith(f"{name} = ")
        assert reason in fault
        with pytest.raises(SettingsError, match=reason):
            check_machine(ServiceSettings())


def test_sessions_of_ray_that_another_user_made_are_named(tmp_path, monkeypatch):
    from judge_service.backends import preflight

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(preflight, "LONGEST_TEMPORARY", 1000)
    (tmp_path / "ray").mkdir()
    assert not list(preflight.temporary_faults())
    monkeypatch.setattr(preflight.os, "access", lambda path, _: path != tmp_path / "ray")
    (fault,) = preflight.temporary_faults()
    assert ": Ray needs this folder for its sessions, and you may not write to it" in fault
    assert fault.endswith("set RAY_TMPDIR to your own folder")
