"""sentence-transformers uses an export without changes: with its collator, its loss, and its multimodal inputs."""

import math
from dataclasses import replace
from functools import partial

import pyarrow.parquet as pq
import pytest

from miner.exporters.sentence_transformers import export_sentence_transformers
from miner.exporters.tevatron import export_tevatron
from tests.miner.selections import ITEMS, TEXT_ITEMS, TEXT_QUERIES, opened


@pytest.fixture
def make(tmp_path):
    return partial(opened, tmp_path)


def bert(folder):
    """A tiny BERT with random weights, in a folder that sentence-transformers can load."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    words = sorted(
        {word for entry in (*TEXT_ITEMS, *TEXT_QUERIES) for word in entry.text.strip("?").split()}
    )
    vocabulary = {
        word: number
        for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", *words])
    }
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    BertModel(BertConfig(vocab_size=len(vocabulary), **shape)).save_pretrained(folder)
    return SentenceTransformer(modules=[Transformer(str(folder)), Pooling(32)], device="cpu")


def test_sentence_transformers_computes_its_loss_on_the_columns(make, tmp_path):
    """The library's collator and DistillKLDivLoss accept the rows unchanged.

    The loss equals Σ Q ln (Q/P), computed by hand.
    """
    import torch
    from sentence_transformers.sentence_transformer.data_collator import (
        SentenceTransformerDataCollator,
    )
    from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss

    export_sentence_transformers(
        make(TEXT_ITEMS, TEXT_QUERIES), tmp_path / "st.parquet", negatives=2
    )
    rows = pq.read_table(tmp_path / "st.parquet").to_pylist()
    torch.manual_seed(0)
    model = bert(tmp_path / "bert").eval()
    batch = SentenceTransformerDataCollator(preprocess_fn=model.preprocess)(rows)
    names = [name for name in rows[0] if name != "label"]
    features = [
        {key: batch[f"{name}_{key}"] for key in ("input_ids", "attention_mask")} for name in names
    ]
    loss = DistillKLDivLoss(model, student_temperature=1.0, teacher_temperature=0.5)(
        features, batch["label"]
    )
    loss.backward()
    expected = 0.0
    for row in rows:
        query, *candidates = (
            torch.tensor(model.encode(row[name]), dtype=torch.float64) for name in names
        )
        student = [math.exp(float(query @ candidate)) for candidate in candidates]
        teacher = [math.exp(score / 0.5) for score in row["label"]]
        for p, q in zip(student, teacher, strict=True):
            expected += q / sum(teacher) * math.log(q / sum(teacher) / p * sum(student)) / len(rows)
    assert loss.item() == pytest.approx(expected, rel=1e-3)
    assert any(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in model.parameters()
    )


def test_sentence_transformers_sees_pictures_and_texts_in_one_column(make, tmp_path, tiny_model):
    """The embedding of a cell equals the embedding of the same picture or text given directly."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoImageProcessor

    export_sentence_transformers(make(), tmp_path / "st.parquet", negatives=3)
    (row,) = pq.read_table(tmp_path / "st.parquet").to_pylist()
    transformer = Transformer(str(tiny_model))
    transformer.processor.image_processor = AutoImageProcessor.from_pretrained(
        tiny_model, backend="pil"
    )
    model = SentenceTransformer(modules=[transformer, Pooling(128)], device="cpu")
    made = model.encode([row[name] for name in ("positive", "negative_2", "negative_3")])
    a, b = str(tmp_path / "images/a.png"), str(tmp_path / "images/sub/b.png")
    plain = [
        *model.encode(["a cat"]),
        *model.encode([{"image": b, "text": "the cat of the picture"}]),
        *model.encode([a]),
    ]
    for mine, other in zip(made, plain, strict=True):
        assert mine == pytest.approx(other, abs=1e-4)
    assert abs(made[1] - made[2]).max() > 0.01


@pytest.mark.parametrize(
    "name", ["a b.png", "c#1.png", "d%20e.png", "x::y.png", "q?.png", "[1].png"]
)
def test_the_hubs_library_opens_pictures_of_any_name(make, tmp_path, name):
    """In tevatron's folder, pictures are paths. The library might take such a path for a URL or a pattern."""
    datasets = pytest.importorskip("datasets")
    rows = make(
        [replace(item, image=name if item.image == "a.png" else item.image) for item in ITEMS]
    )
    (tmp_path / "images" / "a.png").rename(tmp_path / "images" / name)
    export_tevatron(rows, tmp_path / "out")
    read = datasets.load_dataset(
        str(tmp_path / "out" / "corpus"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert [row["image"].size if row["image"] else None for row in read].count((60, 60)) == 2
