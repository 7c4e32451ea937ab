"""The demo's data: labelled positives match, false negatives exist, and the parts of a world share no scene."""

import hashlib
import json
from collections import defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest

from demo.data import Recipe, make_data
from demo.teaching.lessons import PARTS, Album, part_of
from demo.world import WORLD

SCENES = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for part in ("train", "eval"):
        make_data(folder / part, Recipe(part, SCENES, queries=SCENES, seed=0))
    return folder


def truth(folder):
    right = defaultdict(set)
    for line in (folder / "truth.jsonl").read_text().splitlines():
        row = json.loads(line)
        right[row["subset"], row["query_text"], row["query_image"]].add(
            (row["positive_text"], row["positive_image"])
        )
    return right


def rows(folder):
    for path in sorted(folder.glob("mmeb/*/original-*.parquet")):
        for row in pq.read_table(path).to_pylist():
            text = {name: row[name].replace("<|image_1|>\n", "") for name in ("qry", "pos_text")}
            key = (path.parent.name, text["qry"], row["qry_image_path"] or None)
            yield key, (text["pos_text"], row["pos_image_path"] or None)


@pytest.mark.parametrize("part", ["train", "eval"])
def test_each_label_is_true_and_some_queries_have_more_right_answers(folder, part):
    right, found = truth(folder / part), list(rows(folder / part))
    assert all(positive in right[key] for key, positive in found)
    counts = {
        subset: [len(right[key]) for key, _ in found if key[0] == subset]
        for subset in {key[0] for key, _ in found}
    }
    assert set(counts) == {"Scenes_t2i", "Scenes_i2t", "Digits_cls", "Digits_i2i"}
    assert len(counts["Scenes_t2i"]) == SCENES
    assert set(counts["Digits_cls"]) == {1}
    for subset in ("Scenes_t2i", "Scenes_i2t", "Digits_i2i"):
        assert max(counts[subset]) > 1, f"{subset}: no false negative to be found"


def test_training_and_evaluation_share_no_picture(folder):
    digests = [
        {
            hashlib.sha256(path.read_bytes()).digest()
            for path in (folder / part / "images").iterdir()
        }
        for part in ("train", "eval")
    ]
    assert not digests[0] & digests[1]


def test_a_seed_makes_the_same_data_and_another_seed_other_data(folder, tmp_path):
    for name, seed in {"again": 0, "other": 1}.items():
        make_data(tmp_path / name, Recipe("train", SCENES, queries=SCENES, seed=seed))
    texts = [
        (path / "truth.jsonl").read_text()
        for path in (folder / "train", tmp_path / "again", tmp_path / "other")
    ]
    assert texts[0] == texts[1] != texts[2]


def test_a_pool_is_larger_than_its_rows(tmp_path):
    make_data(tmp_path / "d", Recipe("train", SCENES, queries=20, seed=3, to_image=0.75))
    subsets = [key[0] for key, _ in rows(tmp_path / "d")]
    assert (subsets.count("Scenes_t2i"), subsets.count("Scenes_i2t")) == (30, 10)
    items = [json.loads(line) for line in (tmp_path / "d/items.jsonl").read_text().splitlines()]
    assert [item["subset"] for item in items] == ["Scenes_t2i"] * SCENES + ["Scenes_i2t"] * SCENES
    asked = {key for key, _ in rows(tmp_path / "d")}
    beyond = {
        image for key, right in truth(tmp_path / "d").items() for _, image in right if image
    } - {row_image for _, (_, row_image) in rows(tmp_path / "d")}
    assert len(asked) >= 40
    assert beyond, "no picture beyond the labelled ones is right"


def test_a_grade_is_one_exactly_if_the_caption_is_true(folder):
    grades = np.load(folder / "eval" / "grades.npz")
    assert grades["percent"].shape == (SCENES, SCENES)
    right = truth(folder / "eval")
    whole = [set(np.flatnonzero(row == 100)) for row in grades["percent"]]
    by_text = dict(zip(map(str, grades["texts"]), whole, strict=True))
    for (subset, query, _), found in right.items():
        if subset == "Scenes_t2i":
            pictures = {int(image.removesuffix(".png")) for _, image in found}
            assert (
                by_text[query.removeprefix("Find an image that matches the given caption: ")]
                == pictures
            )


def test_no_scene_is_in_two_parts():
    drawn = {part: Album.of(WORLD, scenes=300, seed=1, part=part).scenes for part in set(PARTS)}
    assert {part: {part_of(scene) for scene in scenes} for part, scenes in drawn.items()} == {
        part: {part} for part in drawn
    }


def test_more_queries_than_scenes_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="--queries 9: not in 1 … 5, the scenes"):
        make_data(tmp_path / "d", Recipe("train", 5, queries=9, seed=0))
    assert not (tmp_path / "d").exists()
