"""A check continues after a fault. Planned scores and models are folders too. Rows need their corpus."""

import json
import shutil

import pytest

from demo.tiny_model import make_model
from tests.folders import make_corpus, make_scores, make_triples, make_vectors
from tests.pictures import png
from unijudge.errors import DataError
from unijudge.formats.candidates import (
    CandidateManifest,
    NearestItems,
    start_candidates,
    write_candidates_part,
)
from unijudge.formats.corpus import Item
from unijudge.formats.inventory import check, describe
from unijudge.formats.triples import TripleManifest
from unijudge.storage.files import publish_json, read_json


def test_all_faults_are_counted_and_the_first_few_named(tmp_path, identity, monkeypatch):
    monkeypatch.setattr("unijudge.formats.datasets.FAULTS_NAMED", 2)
    corpus = make_corpus(tmp_path / "corpus", tmp_path / "images")
    for color in ("red", "green", "blue"):
        (tmp_path / "images" / "a b" / f"{color}#1.png").write_bytes(png("white"))
    with pytest.raises(DataError) as caught:
        check(corpus.folder)
    first, *named, more = str(caught.value).splitlines()
    assert (first, more) == ("3 faults:", "  … and 1 more")
    assert len(named) == 2
    assert all("#1.png: changed since it was imported" in one for one in named)

    scores = make_scores(tmp_path / "scores", corpus, identity)
    for part in scores.glob("part-*"):
        part.write_bytes(b"torn")
    with pytest.raises(
        DataError,
        match=r"2 faults:(.|\n)*part-00000\.parquet: not a whole(.|\n)*part-00001\.parquet",
    ):
        check(scores)
    vectors = make_vectors(tmp_path / "vectors", corpus)
    for part in vectors.glob("*.parquet"):
        part.write_bytes(b"torn")
    with pytest.raises(DataError, match="2 faults:"):
        check(vectors)


def test_rows_without_their_corpus_are_incomplete(tmp_path, identity):
    corpus = make_corpus(tmp_path / "work" / "corpus", tmp_path / "work" / "images")
    scores = make_scores(tmp_path / "scores", corpus, identity)
    rows = make_triples(tmp_path / "work" / "triples", corpus, scores)
    manifest = read_json(rows / "triples.json", TripleManifest)
    publish_json(
        rows / "triples.json",
        manifest.model_copy(update={"selection": {"corpus": str(tmp_path / "work" / "corpus")}}),
    )
    assert check(rows).endswith("triples, whole: 3 rows read")
    shutil.move(tmp_path / "work", tmp_path / "moved")
    rows = tmp_path / "moved" / "triples"
    assert check(rows).endswith("triples, whole: 3 rows read"), "moved together"
    gone = r"triples: 3 rows are valid, but they were selected from the corpus .*/corpus with the fingerprint"
    shutil.move(tmp_path / "moved" / "corpus", tmp_path / "away")
    with pytest.raises(
        DataError,
        match=rf"{gone} .*, and no corpus is there. Put the corpus back there or beside this folder",
    ):
        check(rows)
    make_corpus(tmp_path / "moved" / "corpus", tmp_path / "moved" / "images", extra=[Item("x", ())])
    with pytest.raises(DataError, match=rf"{gone} .*, and .*moved/corpus holds another"):
        check(rows)


@pytest.mark.parametrize(
    "place",
    [
        "http://127.0.0.1:9/x/corpus",
        "s3://strangers-bucket/corpus",
        "hdfs://host:1/corpus",
        "nothing://corpus",
    ],
)
def test_a_manifest_cannot_redirect_to_another_location(tmp_path, identity, monkeypatch, place):
    """A foreign manifest names the old path of its corpus.

    The corpus is searched beside the rows, but never at a URL.
    """
    corpus = make_corpus(tmp_path / "corpus", tmp_path / "images")
    rows = make_triples(
        tmp_path / "triples", corpus, make_scores(tmp_path / "scores", corpus, identity)
    )
    manifest = read_json(rows / "triples.json", TripleManifest)
    publish_json(
        rows / "triples.json", manifest.model_copy(update={"selection": {"corpus": place}})
    )

    def contacted(*_, **__):
        raise AssertionError("a place was opened that a manifest names")

    monkeypatch.setattr("fsspec.core.filesystem", contacted)
    monkeypatch.setattr("fsspec.spec.AbstractFileSystem.__init__", contacted)
    assert check(rows).endswith("triples, whole: 3 rows read")
    shutil.move(tmp_path / "corpus", tmp_path / "away")
    with pytest.raises(
        DataError,
        match=rf"selected from the corpus {place} with .*, and no corpus is there. Put the corpus",
    ):
        check(rows)


def test_a_folder_of_scores_that_is_only_planned(tmp_path):
    manifest = CandidateManifest(
        corpus="c", vectors="v", queries=2, k=1, pool="global", retrieval={}
    )
    folder = tmp_path / "scores" / "candidates"
    start_candidates(folder, manifest)
    assert (
        describe(folder.parent)
        .splitlines()[0]
        .endswith("scores, planned; 1 files missing, first candidates/part-00000.parquet")
    )
    write_candidates_part(folder, manifest, 0, iter([NearestItems([0], [0.5], [0.6])] * 2))
    assert describe(folder.parent).splitlines()[0].endswith("scores, planned; every file is there")
    assert check(folder.parent).endswith("scores, planned, whole: 2 rows read")
    (folder / "part-00000.parquet").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"part-00000\.parquet: not a whole Parquet file"):
        check(folder.parent)


def test_a_model_is_a_folder_like_any_other(tmp_path):
    """The folder that `train export` writes, and the folder merged/ of a run."""
    model = tmp_path / "merged"
    make_model(model)
    first, *lines = describe(model).splitlines()
    assert first == f"{model}: model; every file is there"
    assert ["model_type", "qwen2_5_vl"] in [line.split(maxsplit=1) for line in lines]
    assert check(model).endswith("JSON files and 1 files of weights read")
    (model / "notes.json").write_text("{")
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"notes\.json: not JSON"):
        check(model)
    (model / "notes.json").write_text("[" * 99_999)
    with pytest.raises(DataError, match=r"notes\.json: not JSON \(maximum recursion depth"):
        check(model)
    (model / "notes.json").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors: .* but its header says"):
        check(model)
    (model / "model.safetensors").write_bytes(b"\xff" * 7 + b"\x7f" + b"{")
    with pytest.raises(DataError, match=r"model\.safetensors: damaged or foreign"):
        check(model)
    for header in (
        b"[]",
        b"null",
        b'{"a":1}',
        b'{"a":{"dtype":"F32"}}',
        b"{",
        b"\xff",
        b"[" * 99_999,
    ):
        (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(
            DataError,
            match=r"model\.safetensors: damaged or foreign \(.{,120}\). Train or download it again$",
        ):
            check(model)
    (model / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"1 files are missing, first model\.safetensors"):
        check(model)
    index = {
        "weight_map": {
            "a": "model-00001-of-00002.safetensors",
            "b": "model-00002-of-00002.safetensors",
        }
    }
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "2 files missing, first model-00001-of-00002.safetensors" in describe(model)


def test_an_adapter_is_a_model_folder(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8}))
    assert "adapter; 1 files missing, first adapter_model.safetensors" in describe(tmp_path)
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "adapter_model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(4)
    )
    assert check(tmp_path).endswith("adapter, whole: 1 JSON files and 1 files of weights read")
