"""What several tests stand on."""

import pytest

from unijudge.verdicts import JudgeIdentity


@pytest.fixture
def identity():
    return JudgeIdentity(
        model="test", weights="0", prompt_fingerprint="p", yes="Yes", no="No", yes_id=1, no_id=2, order="query_first",
        min_pixels=1, max_pixels=2, dtype="float32", backend="scripted", backend_version="1",
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """The folder of a tiny, untrained Qwen2.5-VL."""
    from demo.tiny_model import make_model

    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_model(folder)
    return folder
