"""A set that fails: the other sets are measured, and the table tells what is missing."""

import json
import os
import shutil
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pictures import png
from tests.trainer.colors import Colors, quiet, settings
from tests.trainer.launched import launched
from tests.trainer.published_data import write_mmeb
from trainer.benchmarks import run as running
from trainer.benchmarks.run import benchmark
from unijudge.errors import DataError


def failing(job, *names):
    """Returns the error of the command, and checks that all other sets are in the table."""
    with pytest.raises(
        DataError, match=f"table.md: the table lacks {len(names)} sets that failed: "
    ) as refusal:
        benchmark(job, quiet)
    assert all(name in str(refusal.value) for name in names)
    table = json.loads((job.out / "table.json").read_text())
    assert set(table["systems"]["colors"]["subsets"]) == {"urban1k_t2i", "urban1k_i2t"}
    return str(refusal.value)


def test_a_set_without_its_pictures_does_not_stop_other_sets(root, tmp_path, colors, caplog):
    """The folder of the pictures is missing, and later empty. The set is named in `benchmarks`, or is not named."""
    shutil.copytree(root / "Urban1k", tmp_path / "root" / "Urban1k")
    shutil.copytree(root / "flickr30k", tmp_path / "root" / "flickr30k")
    pictures = next(path for path in (tmp_path / "root" / "flickr30k").iterdir() if path.is_dir())
    shutil.rmtree(pictures)
    for number, only in enumerate([(), ("flickr30k", "urban1k")]):
        job = settings(
            tmp_path / "root", tmp_path / str(number), allow_partial=True, benchmarks=only
        )
        assert "flickr30k: data is missing: no " in failing(job, "flickr30k")
    with pytest.raises(DataError, match="no set was measured"):
        benchmark(settings(tmp_path / "root", tmp_path / "strict"), quiet)
    pictures.mkdir()
    said = failing(settings(tmp_path / "root", tmp_path / "2", allow_partial=True), "flickr30k")
    assert "12 of 12 rows rejected, so no row is left" in said
    assert any("flickr30k: " in line for line in caplog.messages)


@pytest.mark.parametrize("damage", ["torn", "empty", "text", "foreign"])
def test_a_damaged_parquet_file_does_not_stop_other_sets(root, tmp_path, colors, damage):
    write_mmeb(tmp_path / "root", "VOC2007", 3)
    shutil.copytree(root / "Urban1k", tmp_path / "root" / "Urban1k")
    path = next((tmp_path / "root" / "MMEB-eval" / "VOC2007").iterdir())
    whole = path.read_bytes()
    path.write_bytes(
        {
            "torn": whole[: len(whole) // 2],
            "empty": b"",
            "text": b"version https://git-lfs\n",
            "foreign": whole,
        }[damage]
    )
    if damage == "foreign":
        pq.write_table(pa.table({"a": [1]}), path)
    said = failing(
        settings(tmp_path / "root", tmp_path / "out", allow_partial=True), "mmeb/VOC2007"
    )
    assert "VOC2007" in said


def test_a_changed_picture_does_not_stop_other_sets(root, tmp_path, colors):
    """Also, a content without a vector does not stop other sets. Both faults occur while a set is embedded."""
    shutil.copytree(root, tmp_path / "root")
    job = settings(
        tmp_path / "root", tmp_path / "out", allow_partial=True, benchmarks=("flickr30k", "urban1k")
    )
    colors.broken = "square number 3"
    assert "colors returned a vector with numbers that are not finite" in failing(job, "flickr30k")
    colors.broken = None
    picture = next((tmp_path / "root" / "flickr30k").rglob("red.png"))
    picture.write_bytes(png("white", (40, 40)))
    assert "red.png: changed since it was imported" in failing(job, "flickr30k")


def test_a_partial_set_is_imported_again_only_if_its_pictures_change(tmp_path, colors, monkeypatch):
    imported, real = [], running.run
    monkeypatch.setattr(running, "run", lambda words: imported.append(words[2]) or real(words))
    write_mmeb(tmp_path / "root", "HatefulMemes", 1000)
    blue = tmp_path / "root" / "MMEB-eval" / "images" / "blue.png"
    picture = blue.read_bytes()
    blue.unlink()
    job = settings(tmp_path / "root", tmp_path / "out", allow_partial=True)
    for _ in range(3):
        table = benchmark(job, quiet)
    assert imported == ["mmeb-eval"]
    assert table.systems["colors"].subsets["HatefulMemes"]["queries"] == 750
    blue.write_bytes(picture)
    with pytest.raises(DataError, match="was measured with another corpus"):
        benchmark(job, quiet)
    assert imported == ["mmeb-eval"] * 2
    shutil.rmtree(tmp_path / "out" / "colors")
    assert benchmark(job, quiet).systems["colors"].subsets["HatefulMemes"]["queries"] == 1000
    assert imported == ["mmeb-eval"] * 2


def broken_for_two(root, out):
    """A run of two processes. The share of the second process has a content for which the system makes no vector."""
    system = Colors("square number 3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "open_system", lambda settings: system)
        try:
            benchmark(
                settings(
                    root, out, allow_partial=True, benchmarks=("flickr30k", "urban1k"), batch_size=2
                ),
                quiet,
            )
        except DataError as error:
            (out / f"said-{os.environ.get('RANK', '0')}").write_text(str(error))


def test_no_process_waits_for_a_process_whose_set_failed(root, tmp_path):
    launched(partial(broken_for_two, root, tmp_path), 2, tmp_path / "ranks")
    assert "not finite" in (tmp_path / "said-0").read_text()
    assert set(json.loads((tmp_path / "table.json").read_text())["systems"]["colors"]["subsets"]) == {
        "urban1k_t2i", "urban1k_i2t"
    }  # fmt: skip
