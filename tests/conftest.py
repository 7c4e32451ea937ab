"""What several tests stand on."""

import pytest

from unijudge.verdicts import JudgeIdentity


@pytest.fixture
def identity():
    return JudgeIdentity(
        model="test", weights="0", prompt_fingerprint="p", yes="Yes", no="No", yes_id=1, no_id=2, order="query_first",
        min_pixels=1, max_pixels=2, dtype="float32", backend="scripted", backend_version="1",
    )  # fmt: skip
