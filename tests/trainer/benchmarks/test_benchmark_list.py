"""`train benchmark --list`: the found data, and the searched folders for missing data."""

import shutil

import pytest

from tests.trainer.published_data import write_all
from unijudge import cli

IMAGES = {
    "mmeb/VOC2007": ["*.zip", "*/*.zip", "*/**/*[gG]"],
    "flickr30k": ["flickr30k-images", "flickr30k-images.zip"],
    "coco": ["val2014", "val2014.zip"],
    "sharegpt4v": ["sam", "coco", "llava", "*.zip"],
    "urban1k": ["image"],
    "sugarcrepe": ["val2017", "val2017.zip"],
}
"""Set → where its images may be."""
FOLDERS = {"mmeb/VOC2007": "MMEB-eval", "urban1k": "Urban1k", "sugarcrepe": "coco"}
"""What holds these places, where it is not called like the set."""
FOUND = {"mmeb/HatefulMemes", *IMAGES}


@pytest.fixture
def listed(tmp_path, capsys):
    """Writes the data, and lists the data: set → its state and the text beside it."""
    write_all(tmp_path)

    def read():
        cli.run(["train", "benchmark", "--list", f"root={tmp_path}"])
        return {
            line.split()[0]: line.split(maxsplit=2)[1:]
            for line in capsys.readouterr().out.splitlines()
        }

    return read


def test_the_list_shows_found_data_and_the_searched_paths_of_missing_data(tmp_path, listed):
    shutil.rmtree(tmp_path / "MMEB-eval" / "VOC2007")
    lines = listed()
    assert len(lines) == 36 + 5
    assert lines["mmeb/HatefulMemes"] == ["found", "1,000 queries are expected"]
    assert lines["mmeb/VOC2007"] == ["missing", f"{tmp_path}/MMEB-eval/VOC2007/test-*.parquet"]
    assert lines["sugarcrepe"] == ["found", "7,511 queries are expected"]
    assert lines["coco"] == ["found", "30,000 queries are expected"]
    assert {name for name, (state, _) in lines.items() if state == "found"} == FOUND - {
        "mmeb/VOC2007"
    }


def test_annotations_without_images_are_missing(tmp_path, listed):
    for image in [*tmp_path.rglob("*.png"), *tmp_path.rglob("*.jpg")]:
        shutil.rmtree(image.parent, ignore_errors=True)
    (tmp_path / "sharegpt4v" / "sam").rmdir()
    lines = listed()
    assert {name for name, (state, _) in lines.items() if state == "found"} == set()
    for name, places in IMAGES.items():
        folder = tmp_path / FOLDERS.get(name, name)
        assert lines[name] == ["missing", " or ".join(f"{folder}/{place}" for place in places)]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mmeb/VOC2007", "MMEB-eval/images.zip"),
        ("mmeb/VOC2007", "MMEB-eval/VOC2007/Test/one.JPEG"),
        ("coco", "coco/val2014.zip"),
        ("sharegpt4v", "sharegpt4v/train2017.zip"),
    ],
)
def test_images_are_found_wherever_the_import_looks(tmp_path, listed, name, place):
    for folder in ("MMEB-eval/images", "coco/val2014", "sharegpt4v/sam"):
        shutil.rmtree(tmp_path / folder)
    assert listed()[name][0] == "missing"
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    assert listed()[name][0] == "found"
