"""The shipped container files: their paths exist, their commands run, their ports agree, and each program can be
installed alone.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.system.services import service
from unijudge.settings import load_settings

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
COMPOSE = COMPOSE_FILE["services"]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def test_every_path_of_the_dockerfile_exists():
    sources = [
        word
        for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
    for name in COMPOSE:
        assert (ROOT / COMPOSE[name]["build"]["dockerfile"]).is_file()
        assert (
            ROOT / "requirements" / f"{COMPOSE[name]['build']['args']['PROGRAM']}.txt"
        ).is_file()


def test_images_that_use_a_gpu_have_a_compiler():
    """Triton compiles when an engine starts. The miner's image needs no compiler."""
    (line,) = re.findall(r"^RUN case \$\{PROGRAM\} in ((?:.+\\\n)*.+)$", DOCKERFILE, re.MULTILINE)
    assert line.startswith("mine*) exit 0 ;; esac;")
    installed = re.search(r"apt-get install ([^&]+)", line)[1].split()
    assert {"g++", "libc6-dev"} <= set(installed)  # g++ installs gcc too


def test_the_user_owns_the_folders_of_the_named_volumes():
    owned = re.search(
        r"install --directory --owner unijudge --group unijudge (.+)$", DOCKERFILE, re.MULTILINE
    )[1].split()
    mounts = [
        volume.partition(":")
        for service in COMPOSE.values()
        for volume in service.get("volumes", [])
    ]
    named = {name: folder for name, _, folder in mounts if name in COMPOSE_FILE["volumes"]}
    assert set(named) == set(COMPOSE_FILE["volumes"])
    assert set(named.values()) == set(owned)


def test_the_judges_command_serves_on_the_port_of_its_health_check(tmp_path, monkeypatch):
    """Runs the command of the compose file on a scripted judge and a free port, since this machine has no GPU."""
    from judge_service.settings import ServiceSettings

    judge = COMPOSE["judge"]
    program, verb, file, *overrides = judge["command"]
    assert (program, verb, overrides) == ("judge", "serve", ["host=0.0.0.0"])
    shipped = load_settings(ServiceSettings, ROOT / file, overrides)
    assert judge["ports"] == [f"127.0.0.1:{shipped.port}:{shipped.port}"]
    monkeypatch.chdir(ROOT)
    changes = ("gpus_per_replica=0", "model.backend=scripted")
    with service(tmp_path, *changes, file=file) as (_, url, log):
        kind, _, flag, code = judge["healthcheck"]["test"]
        assert kind == "CMD"
        here = code.replace(f"http://127.0.0.1:{shipped.port}", url)
        assert here != code
        assert subprocess.run([sys.executable, flag, here], check=False).returncode == 0, (
            log.read_text()
        )
    assert (
        subprocess.run([sys.executable, flag, here], check=False, capture_output=True).returncode
        != 0
    )


def test_the_miners_command_is_a_job_against_the_judge(tmp_path):
    from miner.settings import ScoreSettings

    miner = COMPOSE["miner"]
    program, verb, file, *overrides = miner["command"]
    assert (program, verb) == ("mine", "score")
    assert miner["volumes"] == [f"./data:{Path(file).parent}"]
    (tmp_path / "score.toml").write_text(
        'corpus = "/data/c"\nvectors = "/data/v"\nout = "/data/o"\n'
    )
    settings = load_settings(ScoreSettings, tmp_path / "score.toml", overrides)
    assert settings.service == f"http://judge:{COMPOSE['judge']['ports'][0].split(':')[-1]}"


def test_the_shipped_job_is_one_for_a_cluster_and_has_time_to_finish_its_shards():
    from miner.scoring.cli import STOP_WAIT_S
    from miner.scoring.local_executor import SHARDS_AT_ONCE
    from miner.settings import ScoreSettings

    settings = load_settings(ScoreSettings, ROOT / "deploy" / "score.toml")
    assert (settings.engine, settings.ray_address) == ("ray", "auto")
    assert settings.ray_concurrency * settings.shard_size * (settings.k + 1) / STOP_WAIT_S < 25, (
        "pairs/s that it takes"
    )
    assert COMPOSE["miner"]["stop_grace_period"] == "10m"
    assert (
        SHARDS_AT_ONCE
        * int(COMPOSE["miner"]["command"][-1].removeprefix("shard_size="))
        * (50 + 1)
        / 600
        < 25
    )


@pytest.mark.timeout(600)
def test_a_data_team_installs_no_engine(tmp_path):
    """Only requirements/mine.txt and the package are installed, in an empty environment, as in the image."""
    uv = Path(sys.executable).parent / "uv"
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", python]
    subprocess.run([*install, "-r", ROOT / "requirements" / "mine.txt"], check=True)
    subprocess.run([*install, "--no-deps", ROOT], check=True)
    (tmp_path / "pairs.csv").write_text("query_text,positive_text\na,b\n")
    run = [python.parent / "unijudge", "mine", "import", "pairs", "pairs.csv", "corpus"]
    assert (
        "1 queries"
        in subprocess.run(run, check=True, cwd=tmp_path, capture_output=True, text=True).stdout
    )
    absent = "import importlib.util as u; print([n for n in ('torch', 'ray', 'transformers') if u.find_spec(n)])"
    assert (
        subprocess.run([python, "-c", absent], check=True, capture_output=True, text=True).stdout
        == "[]\n"
    )
