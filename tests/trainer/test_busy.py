"""A command whose output another process writes stops before it loads a large library or starts Ray."""

import os
import subprocess
import sys

import pytest

from unijudge.storage.leases import lease

STUDY = """
question = "Is the folder free?"
seeds = [0]
axes = {}
measures = {}
[steps.one]
command = "true {out}"
"""
PROGRAM = """
import sys

sys.modules |= {"torch": None, "ray": None}  # an import of these now fails
from unijudge import cli

cli.main()
"""


@pytest.mark.parametrize(
    "words",
    [
        "train embed corpus=c out={out} model.name=m",
        "train embedder corpus=c triples=t out={out} model.name=m",
        "train reranker corpus=c triples=t out={out} model.name=m",
        "train export run {out}",
        "train benchmark root=r out={out} model.name=m",
        "study run {study} {out}",
    ],
)
def test_a_second_command_is_refused_before_a_large_library_is_loaded(words, tmp_path):
    out, study = tmp_path / "out", tmp_path / "study.toml"
    study.write_text(STUDY)
    command = words.format(out=out, study=study).split()
    with lease(out):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *command], capture_output=True, text=True, check=False
        )
    assert done.stderr == (
        f"error: {out}: process {os.getpid()} is writing there. Wait for it, or give another output\n"
    )
    assert done.returncode == 1
