"""Items without a query, which make the pool larger."""

import json

import pytest
from typer.testing import CliRunner

from miner.importers.cli import imports
from tests.miner.layouts import images_under
from unijudge.errors import DataError
from unijudge.formats.corpus import Corpus

PAIRS = [{"subset": "s", "query_text": "find the first", "positive_image": "a.png"}]
ITEMS = [
    {"subset": "s", "image": "b.png"},
    {"subset": "s", "image": "a.png"},
    {"subset": "s", "text": "a caption"},
    {"subset": "other", "text": "a caption"},
]


@pytest.fixture
def images(tmp_path):
    return images_under(tmp_path)


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_import(tmp_path, images, items, *more):
    pairs, extra = lines(tmp_path / "pairs.jsonl", PAIRS), lines(tmp_path / "items.jsonl", items)
    words = [
        "pairs",
        str(pairs),
        str(tmp_path / "corpus"),
        "--images",
        str(images),
        "--items",
        str(extra),
        *more,
    ]
    result = CliRunner().invoke(imports, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_items_enlarge_the_pool_without_queries(tmp_path, images):
    run_import(tmp_path, images, ITEMS)
    corpus = Corpus(tmp_path / "corpus")
    assert [(query.text, query.subset) for query in corpus.queries] == [("find the first", "s")]
    found = {(item.text, item.image): set(item.pools) for item in corpus.items}
    assert found == {
        (None, "a.png"): {"s"},
        (None, "b.png"): {"s"},
        ("a caption", None): {"s", "other"},
    }


def test_an_item_without_content_or_picture_is_rejected_with_its_place(tmp_path, images):
    run_import(
        tmp_path, images, [*ITEMS, {"subset": "s"}, {"image": "gone.png"}], "--max-rejects", "0.5"
    )
    rejects = [
        json.loads(line) for line in (tmp_path / "corpus/rejects.jsonl").read_text().splitlines()
    ]
    assert [(reject["row"], reject["reason"]) for reject in rejects] == [
        ("items.jsonl:5", "item: has neither a text nor an image"),
        ("items.jsonl:6", "item: image gone.png: no such file"),
    ]


def test_a_file_of_items_without_a_known_column_is_refused(tmp_path, images):
    with pytest.raises(
        DataError,
        match=r"none of its columns is known: caption. Known columns: text, image, subset",
    ):
        run_import(tmp_path, images, [{"caption": "a"}])


def test_a_dry_run_counts_items(tmp_path, images):
    printed = run_import(tmp_path, images, ITEMS, "--dry-run")
    assert not (tmp_path / "corpus").exists()
    assert "read      5 rows: queries 1, items 3, pictures 2" in printed
