"""From published data on a disk to the table: found sets, refused sets and measured sets.

A missing number is never shown as 0.
"""

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from tests.trainer.colors import Colors, quiet, settings
from tests.trainer.launched import launched
from tests.trainer.published_data import SUGARCREPE, write_mmeb
from trainer.benchmarks import run as running
from trainer.benchmarks.run import benchmark
from unijudge import cli
from unijudge.errors import DataError, SettingsError
from unijudge.formats.rankings import read_rankings


def test_wrong_counts_are_named_before_anything_is_embedded(root, tmp_path, colors):
    with pytest.raises(DataError) as refusal:
        benchmark(settings(root, tmp_path / "out", benchmarks=("mmeb", "flickr30k")), quiet)
    assert "the data of 34 of 37 sets is missing, first mmeb/ImageNet-1K" in str(refusal.value)
    only = ("mmeb/VOC2007", "mmeb/HatefulMemes", "sugarcrepe")
    with pytest.raises(DataError) as refusal:
        benchmark(settings(root, tmp_path / "out", benchmarks=only), quiet)
    assert "8 faults" in str(refusal.value)
    counted = (
        "mmeb/VOC2007: VOC2007 has 3 queries, but 1000 were published; "
        "no row was rejected, so the source holds only 3"
    )
    assert counted in str(refusal.value)
    assert not colors.embedded
    assert not (tmp_path / "out" / "table.md").exists()
    with pytest.raises(
        SettingsError, match=r"benchmarks: mmmeb: no such benchmark or set\. Did you mean mmeb\?"
    ):
        benchmark(settings(root, tmp_path / "out", benchmarks=("mmmeb",)), quiet)
    with pytest.raises(DataError, match="the data of 41 of 41 sets is missing"):
        benchmark(settings(tmp_path, tmp_path / "out"), quiet)
    with pytest.raises(SettingsError, match="name: 'corpora' cannot be the name of a system"):
        benchmark(settings(root, tmp_path / "out").model_copy(update={"name": "corpora"}), quiet)


def test_missing_images_are_named_and_partial_sets_are_marked(tmp_path, colors):
    write_mmeb(tmp_path, "HatefulMemes", 1000)
    (tmp_path / "MMEB-eval" / "images" / "blue.png").unlink()
    only = {"benchmarks": ("mmeb/HatefulMemes",)}
    with pytest.raises(
        DataError,
        match=r"mmeb/HatefulMemes: 250 of 1000 rows rejected.*images/blue\.png: no such file",
    ):
        benchmark(settings(tmp_path, tmp_path / "out", **only), quiet)
    table = benchmark(settings(tmp_path, tmp_path / "out", allow_partial=True, **only), quiet)
    assert table.systems["colors"].cells["HatefulMemes"].partial
    assert "colors: partial sets are HatefulMemes (750 of 1,000 queries)." in table.text()
    # The set is repaired and imported again. The old measurement is not used for it.
    write_mmeb(tmp_path, "HatefulMemes", 1000)
    with pytest.raises(DataError, match="HatefulMemes: was measured with another corpus"):
        benchmark(settings(tmp_path, tmp_path / "out", **only), quiet)
    (tmp_path / "MMEB-eval" / "images" / "red.png").write_bytes(b"changed since it was imported")
    with pytest.raises(
        DataError, match=r"HatefulMemes: HatefulMemes/.+: changed since it was imported"
    ):
        benchmark(
            settings(tmp_path, tmp_path / "out", **only).model_copy(update={"name": "other"}), quiet
        )


def test_only_a_replaced_source_is_imported_again(root, tmp_path, colors, monkeypatch):
    """The new file has the same name and the same number of rows. A partial set stays as it was imported."""
    imported, real = [], running.run
    monkeypatch.setattr(running, "run", lambda words: imported.append(words[2]) or real(words))
    shutil.copytree(root, tmp_path / "root")
    job = settings(
        tmp_path / "root",
        tmp_path / "out",
        allow_partial=True,
        benchmarks=("mmeb/VOC2007", "flickr30k"),
    )
    for _ in range(2):
        benchmark(job, quiet)
    assert imported == ["mmeb-eval", "karpathy"]
    path = tmp_path / "root" / "flickr30k" / "dataset_flickr30k.json"
    path.write_text(path.read_text().replace("square number", "square_number"))
    with pytest.raises(DataError, match="flickr30k: was measured with another corpus"):
        benchmark(job, quiet)
    assert imported == ["mmeb-eval", "karpathy", "karpathy"]


def test_a_set_that_cannot_be_read_does_not_stop_the_others(root, tmp_path, colors):
    shutil.copytree(root, tmp_path / "root")
    (tmp_path / "root" / "flickr30k" / "dataset_flickr30k.json").write_text('{"images": [')
    job = settings(
        tmp_path / "root", tmp_path / "out", allow_partial=True, benchmarks=("flickr30k", "urban1k")
    )
    with pytest.raises(
        DataError,
        match=r"table\.md: the table lacks 1 sets that failed: flickr30k\. .*: flickr30k: .*json",
    ):
        benchmark(job, quiet)
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert set(table["systems"]["colors"]["subsets"]) == {"urban1k_t2i", "urban1k_i2t"}
    with pytest.raises(DataError, match="1 faults in the data, so no set was measured"):
        benchmark(job.model_copy(update={"benchmarks": ("flickr30k",)}), quiet)


def test_an_invalid_vector_stops_the_benchmark_with_its_id(root, tmp_path, colors):
    colors.broken = "green square number 3"
    with pytest.raises(
        DataError,
        match=r"flickr30k: \w+: colors returned a vector with numbers that are not finite",
    ):
        benchmark(settings(root, tmp_path, benchmarks=("flickr30k",), allow_partial=True), quiet)
    assert not (tmp_path / "colors").exists()
    colors.one = lambda content: [0.0] * 5
    with pytest.raises(DataError, match="colors returned the vector 0"):
        benchmark(settings(root, tmp_path, benchmarks=("flickr30k",), allow_partial=True), quiet)
    assert not (tmp_path / "table.json").exists()


@pytest.fixture(scope="module")
def measured(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("measured")
    system = Colors()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "open_system", lambda settings: system)
        table = benchmark(settings(root, out, allow_partial=True), quiet)
    return out, table, system


def test_every_layout_ends_in_the_table(measured):
    """All answers about green are wrong: its vector equals the vector of white, or is similar to no other vector.

    Ties count against the positive.
    """
    out, table, _ = measured
    cells = table.systems["colors"].cells
    shares = {name: cell.value for name, cell in cells.items()}
    directions = [
        f"{name}_{way}"
        for name in ("flickr30k", "coco", "sharegpt4v", "urban1k")
        for way in ("t2i", "i2t")
    ]
    halves = [*directions, *SUGARCREPE, "Replace", "Swap", "Add", "R_Short", "R_Long", "R_Compos"]
    assert shares == {"HatefulMemes": 0.75, "VOC2007": 2 / 3, **dict.fromkeys(halves, 0.5)}
    assert cells["HatefulMemes"].low == pytest.approx(
        0.75 - 1.96 * np.sqrt(0.75 * 0.25 / 1000), abs=0.003
    )
    assert [name for name, cell in cells.items() if not cell.partial] == ["HatefulMemes"]
    measures = table.systems["colors"].subsets
    assert {name: (one["queries"], one["candidates"]) for name, one in measures.items()} == {
        "HatefulMemes": (1000, 4), "VOC2007": (3, 4), "flickr30k_t2i": (10, 2), "flickr30k_i2t": (2, 10),
        "coco_t2i": (10, 2), "coco_i2t": (2, 10),
        "sharegpt4v_t2i": (2, 2), "sharegpt4v_i2t": (2, 2), "urban1k_t2i": (2, 2), "urban1k_i2t": (2, 2),
        **dict.fromkeys(SUGARCREPE, (2, 2)),
    }  # fmt: skip
    assert (
        json.loads((out / "table.json").read_text())["systems"]["colors"]["cells"]["Swap"]["value"]
        == 0.5
    )
    assert (out / "table.md").read_text() == table.text()


def test_the_modality_gap_is_between_images_and_texts(measured):
    """Unit vectors: an image has (…1…, 0), a text has (…2…, 0.25) / √4.0625.

    Green pictures have the vectors of white pictures.
    """
    _, table, _ = measured
    share, rest = 2 / np.sqrt(4.0625), 0.25 / np.sqrt(4.0625)
    for subset, images, texts in [
        ("urban1k_t2i", [0.5, 0, 0, 0.5, 0], [share / 2, share / 2, 0, 0, rest]),
        ("HatefulMemes", [0.25, 0, 0.25, 0.5, 0], [share / 4] * 4 + [rest]),
    ]:
        expected = np.linalg.norm(np.subtract(images, texts))
        assert table.systems["colors"].subsets[subset]["modality gap"] == pytest.approx(
            expected, rel=1e-5
        )


def test_captions_are_the_first_five_and_images_have_the_instruction(measured):
    _, _, system = measured
    texts = [content.text for content in system.embedded if content.image is None]
    # The content is both a candidate and a query, and is embedded once.
    assert len([text for text in texts if "number" in text]) == 2 * 2 * 5
    assert "red square number 4" in texts
    assert "red square number 5" not in texts
    assert "A square. It is red." in texts
    assert "A red street." in texts
    beside = {content.text for content in system.embedded if content.image is not None}
    assert beside == {"Which colour?\n", "Find an image caption describing the given image."}


def test_the_table_keeps_published_rows_apart(measured):
    text = measured[1].text()
    lines = text.splitlines()
    (theirs,) = [
        line
        for line in lines
        if line.startswith("| published: UniME-V2 Qwen2-VL 2B ") and "53.7" in line
    ]
    assert [cell.strip() for cell in theirs.split("|")][2:6] == ["79.8", "89.9", "53.7", "65.1"]
    assert [line for line in lines if line.startswith("## ")] == [
        "## Zero-shot retrieval, recall@1",
        "## Summary",
        "## Sets",
    ]
    zero_shot, summary, *_ = (
        number for number, line in enumerate(lines) if line.startswith("| **colors**")
    )
    for place, head, ours in [
        (zero_shot, ["Flickr30K T→I", "Flickr30K I→T", "COCO T→I", "COCO I→T"], ["50.0 \\*"] * 4),
        (summary, ["MMEB", "R_Short", "R_Long", "R_Compos"], ["–", *["50.0 \\*"] * 3]),
    ]:
        shown = (
            [cell.strip() for cell in lines[number].split("|")][2:6]
            for number in (place - 2, place)
        )
        assert list(shown) == [head, ours]


def test_the_same_command_resumes_set_by_set(root, measured, monkeypatch):
    out, table, _ = measured
    again = Colors()
    monkeypatch.setattr(running, "open_system", lambda settings: again)
    (out / "colors" / "urban1k" / "metrics.json").unlink()
    assert benchmark(settings(root, out, allow_partial=True), quiet) == table
    assert not again.embedded
    (out / "colors" / "urban1k" / "vectors" / "queries-00000.parquet").unlink()
    assert benchmark(settings(root, out, allow_partial=True), quiet) == table
    assert len(again.embedded) == 4
    ranks = [
        one.gold_rank for one in read_rankings(out / "colors" / "urban1k" / "rankings.parquet")
    ]
    assert ranks == [1, 1, 2, 2]


def arguments(root, out, model):
    """The arguments of the command line: a model of unijudge on one set of each kind of layout."""
    given = [
        f"root={root}",
        f"out={out}",
        "name=tiny",
        "allow_partial=true",
        "batch_size=2",
        f"model.name={model.name}",
    ]
    given += ["model.device=cpu", f"model.min_pixels={56 * 56}", f"model.max_pixels={56 * 56}"]
    given += ['benchmarks=["mmeb/VOC2007", "flickr30k", "sugarcrepe"]']
    return ["train", "benchmark", *given]


def test_the_numbers_are_the_same_on_one_two_and_three_processes(root, model, tmp_path, capfd):
    """The real command line runs, with odd numbers of batches, so that the processes have unequal shares."""
    tables = {}
    for number in (1, 2, 3):
        out = tmp_path / str(number)
        launched(
            partial(cli.run, arguments(root, out, model)), number, tmp_path / f"ranks-{number}"
        )
        tables[number] = json.loads((out / "table.json").read_text())["systems"]["tiny"]
    assert set(tables[1]["subsets"]) == {"VOC2007", "flickr30k_t2i", "flickr30k_i2t", *SUGARCREPE}
    assert tables[1] == tables[2] == tables[3]
    assert capfd.readouterr().out.count("tiny: model ") == 3, "the first process alone tells"


def test_a_table_only_compares_measurements_of_the_same_corpus(root, tmp_path, colors):
    """Another instruction makes another corpus. Measurements of an older system on the old corpus are not compared."""
    only = {"benchmarks": ("sharegpt4v", "urban1k"), "allow_partial": True}
    benchmark(settings(root, tmp_path, **only), quiet)
    newer = settings(
        root, tmp_path, benchmarks=("urban1k",), allow_partial=True, instruction="What is this?"
    )
    table = benchmark(newer.model_copy(update={"name": "newer"}), quiet)
    assert set(table.systems["newer"].subsets) == {"urban1k_t2i", "urban1k_i2t"}
    assert set(table.systems["colors"].subsets) == {"sharegpt4v_t2i", "sharegpt4v_i2t"}
    assert (
        "* colors: the table does not show urban1k, measured on another corpus than the current corpus"
        in table.text()
    )
    assert json.loads((tmp_path / "table.json").read_text())["systems"]["colors"]["others"] == [
        "urban1k"
    ]


def test_a_row_of_the_table_is_one_system(root, tmp_path, colors):
    """The second set has another pixel budget. The command refuses it before anything is embedded."""
    benchmark(settings(root, tmp_path, benchmarks=("sharegpt4v",), allow_partial=True), quiet)
    colors.embedded.clear()
    colors.identity = replace(colors.identity, max_pixels=7)
    with pytest.raises(DataError, match="sharegpt4v: was measured with another max_pixels"):
        benchmark(settings(root, tmp_path, benchmarks=("urban1k",), allow_partial=True), quiet)
    assert not colors.embedded
