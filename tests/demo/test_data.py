"""The demo's data: labelled positives are true, false negatives are there, worlds and halves do not mix."""

import hashlib
import json
from collections import defaultdict

import pyarrow.parquet as pq
import pytest

from demo.data import make_data

SCENES = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_data(folder / "train", "train", SCENES, 0)
    make_data(folder / "eval", "eval", SCENES, 0)
    return folder


def truth(folder):
    right = defaultdict(set)
    for line in (folder / "truth.jsonl").read_text().splitlines():
        row = json.loads(line)
        right[row["subset"], row["query_text"], row["query_image"]].add((row["positive_text"], row["positive_image"]))
    return right


def rows(folder):
    for path in sorted(folder.glob("mmeb/*/original-*.parquet")):
        for row in pq.read_table(path).to_pylist():
            text = {name: row[name].replace("<|image_1|>\n", "") for name in ("qry", "pos_text")}
            key = (path.parent.name, text["qry"], row["qry_image_path"] or None)
            yield key, (text["pos_text"], row["pos_image_path"] or None)


@pytest.mark.parametrize("part", ["train", "eval"])
def test_each_query_has_its_label_among_what_is_true_and_some_have_more(folder, part):
    right, found = truth(folder / part), list(rows(folder / part))
    assert all(positive in right[key] for key, positive in found)
    counts = {
        subset: [len(right[key]) for key, _ in found if key[0] == subset] for subset in {key[0] for key, _ in found}
    }
    assert set(counts) == {"Scenes_t2i", "Scenes_i2t", "Digits_cls", "Digits_i2i"}
    assert len(counts["Scenes_t2i"]) == SCENES
    assert set(counts["Digits_cls"]) == {1}
    for subset in ("Scenes_t2i", "Scenes_i2t", "Digits_i2i"):
        assert max(counts[subset]) > 1, f"{subset}: no false negative to be found"


def test_training_and_evaluation_share_no_picture(folder):
    digests = [
        {hashlib.sha256(path.read_bytes()).digest() for path in (folder / part / "images").iterdir()}
        for part in ("train", "eval")
    ]
    assert not digests[0] & digests[1]


def test_a_seed_makes_the_same_data_and_another_seed_other_data(folder, tmp_path):
    for name, seed in {"again": 0, "other": 1}.items():
        make_data(tmp_path / name, "train", SCENES, seed)
    texts = [(path / "truth.jsonl").read_text() for path in (folder / "train", tmp_path / "again", tmp_path / "other")]
    assert texts[0] == texts[1] != texts[2]
