"""The whole `make quickstart`: the commands of docs/quickstart.md on the checked-in images and models."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unijudge.formats.corpus import Corpus
from unijudge.formats.inventory import check
from unijudge.formats.triples import read_triples

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parents[2]


def test_the_quickstart_ends_with_a_page_of_mined_rows(tmp_path):
    """The commands run in a folder with the files that they name, so that no other run interferes."""
    for name in ("demo", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "demo.quickstart.run"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "build/quickstart"
    for name in ("corpus", "vectors", "scores", "triples"):
        assert "whole" in check(out / name)
    corpus = Corpus(out / "corpus")
    rows = list(read_triples(out / "triples", corpus.fingerprint))
    assert len(corpus.queries) == 60
    assert len(rows) > 50, "the judge believes in nearly all positives"
    assert b"unijudge mine inspect" in (out / "mined.html").read_bytes()
