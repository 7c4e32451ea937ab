"""Exported models give the numbers of unijudge in mteb, loaded with the code of their cards."""

import io

import mteb
import numpy as np
import pytest
from datasets import Dataset
from PIL import Image
from torch.utils.data import DataLoader

from tests.trainer.exported import (
    CONTENTS,
    PAIRS,
    log_odds,
    run_card,
    trained_embedder,
    trained_reranker,
    vectors,
)
from trainer.export.export import export
from unijudge.judging.prompt import Prompt

TOLERANCE = 1e-4
TASK = {
    "task_metadata": mteb.get_task("STS12").metadata,
    "hf_split": "test",
    "hf_subset": "default",
}
"""No prompt depends on it."""


@pytest.fixture(scope="module")
def wide(model):
    """The limits allow pictures of several sizes."""
    return model.model_copy(update={"max_pixels": 112 * 112})


def loader(contents):
    """The data that a task gives to a model, for contents with the same parts."""
    columns = {
        "text": [content.text for content in contents],
        "image": [content.image and Image.open(io.BytesIO(content.image)) for content in contents],
    }
    data = Dataset.from_dict(
        {name: values for name, values in columns.items() if values[0] is not None}
    )
    return DataLoader(
        data,
        batch_size=2,
        collate_fn=lambda rows: {name: [row[name] for row in rows] for name in rows[0]},
    )


def test_an_embedder_gives_our_vectors(corpus, triples, wide, folder, monkeypatch):
    run = trained_embedder(corpus, triples, wide, folder / "mteb-embedder-run")
    export(run, folder / "mteb-embedder")
    model = run_card(folder / "mteb-embedder", "mteb", monkeypatch)["model"]
    assert isinstance(model, mteb.EncoderProtocol)
    assert (model.mteb_model_meta.name, model.mteb_model_meta.modalities) == (
        "me/mteb-embedder",
        ["image", "text"],
    )
    ours = vectors(wide, run / "adapter")
    for kind in ([0, 1], [2, 3, 4], [5, 6]):
        found = model.encode(loader([CONTENTS[place] for place in kind]), **TASK)
        assert np.abs(np.asarray(found) - ours[kind]).max() < TOLERANCE


def test_a_reranker_gives_our_log_odds(corpus, triples, wide, folder, monkeypatch):
    run = trained_reranker(corpus, triples, wide, folder / "mteb-reranker-run")
    export(run, folder / "mteb-reranker")
    model = run_card(folder / "mteb-reranker", "mteb", monkeypatch)["model"]
    assert isinstance(model, mteb.CrossEncoderProtocol)
    for query, candidate in PAIRS:
        found = model.predict(loader([query]), loader([candidate]), **TASK)
        ours = log_odds(wide, run / "adapter", Prompt(), [(query, candidate)])
        assert np.abs(np.asarray(found) - ours).max() < TOLERANCE
