"""Data of the benchmarks, and a system that knows colours."""

import pytest

from tests.trainer.colors import Colors
from tests.trainer.published_data import write_all
from trainer.benchmarks import run as running


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("data"))


@pytest.fixture
def colors(monkeypatch):
    system = Colors()
    monkeypatch.setattr(running, "open_system", lambda settings: system)
    return system
