"""A finished run of each kind, to export."""

from pathlib import Path

import pytest

from tests.trainer.exported import trained_embedder, trained_reranker


@pytest.fixture(scope="module")
def wide(model):
    """The limits allow pictures of several sizes."""
    return model.model_copy(update={"max_pixels": 112 * 112})


@pytest.fixture(scope="module")
def embedder(corpus, triples, wide, folder):
    # A reader of the card puts the base beside the adapter in the same way.
    (folder / Path(wide.name).name).symlink_to(wide.name)
    return trained_embedder(corpus, triples, wide, folder / "embedder-run")


@pytest.fixture(scope="module")
def reranker(corpus, triples, wide, folder):
    return trained_reranker(corpus, triples, wide, folder / "reranker-run")
