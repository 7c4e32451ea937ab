"""The file of the page: its content, its sample and its size. The page needs no other file."""

import json
import re
from dataclasses import replace

import pytest

from miner.inspection.page import inspect
from tests.miner.mined import HOSTILE, make, make_odd, plausible, settings, write_scores
from unijudge.errors import DataError, SettingsError
from unijudge.formats.corpus import Corpus
from unijudge.formats.scores import read_scores


@pytest.fixture
def folder(tmp_path, identity):
    return make_odd(tmp_path, identity)


def test_the_page_fetches_nothing_and_escapes_everything(folder):
    said = inspect(settings(folder))
    html = (folder / "page.html").read_text()
    assert re.fullmatch(
        r".*page\.html: 35 of 35 rows, 8 images \(0 left out, 0 unreadable\), \d\.\d MB", said
    )
    assert html.count("</script>") == html.count("<script") == 2
    assert "<img" not in html.replace("\\u003cimg", "")
    assert not re.search(r'(?:src|href)="(?!data:)', html)
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "<noscript>" in html
    shown = json.loads(re.search(r'id="rows">(.+?)</script>', html).group(1))
    assert sum(HOSTILE in text for text in shown["texts"]) == len(shown["texts"]) > 30
    assert "texts are cut after 400 characters" in html


def test_a_browser_stores_labels_for_one_sample_of_pairs(folder, identity):
    """Another sample with the same size, judge and seed gets no stored labels.

    Otherwise the labels of both samples would be exported together.
    """

    def sampled():
        inspect(settings(folder, label=3))
        return json.loads(
            re.search(r'id="rows">(.+?)</script>', (folder / "page.html").read_text()).group(1)
        )["sample"]

    first, again = sampled(), sampled()
    assert first == again
    rows = list(read_scores(folder / "scores"))
    write_scores(folder / "scores", Corpus(folder / "corpus").fingerprint, identity, rows[:20])
    other = sampled()
    assert [other[name] for name in ("judge", "seed")] == [
        first[name] for name in ("judge", "seed")
    ]
    assert len(other["pairs"]) == len(first["pairs"]) == 3
    assert other["digest"] != first["digest"]
    assert "${sample.digest}" in (folder / "page.html").read_text()


def test_an_unknown_similarity_is_shown_as_a_dash(folder, identity):
    rows = [
        replace(row, candidates=[replace(judged, similarity=None) for judged in row.candidates])
        for row in read_scores(folder / "scores")
    ]
    write_scores(folder / "scores", Corpus(folder / "corpus").fingerprint, identity, rows)
    inspect(settings(folder))
    shown = json.loads(
        re.search(r'id="rows">(.+?)</script>', (folder / "page.html").read_text()).group(1)
    )
    assert {cell[2] for row in shown["rows"] for cell in row["candidates"]} == {None}
    assert {cell[2] for row in shown["rows"] for cell in row["positives"]} == {0.5}


def test_a_sampled_page_says_so_and_counts_all_rows(folder):
    assert ": 12 of 35 rows" in inspect(settings(folder, rows=12))
    html = (folder / "page.html").read_text()
    assert "35 rows were read" in html
    for file in (
        "errors",
        "left out",
        "suspect positives",
        "under-filled",
        "suspected false negatives",
    ):
        assert f"{file} 1 of 1; " in html
    assert "nothing to remark 7 of 30." in html
    assert html == (inspect(settings(folder, rows=12)), (folder / "page.html").read_text())[1]


def test_margins_belong_to_the_candidates_of_the_selection(folder, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "miner.inspection.page.bars", lambda series, **_: drawn.append(series["candidates"])
    )
    inspect(settings(folder))
    inspect(settings(folder, k=2))
    _, every, _, near = map(sum, drawn)  # a page has the scores first, then the margins
    assert (every, near) == (35 * 4 - 1, 35 * 2 - 1), "one candidate has no verdict"


def test_only_an_older_page_is_replaced(folder):
    inspect(settings(folder))
    first = (folder / "page.html").read_text()
    inspect(settings(folder, num_negatives=1))
    assert (folder / "page.html").read_text() != first
    (folder / "page.html").write_text("<!doctype html><title>mine</title>")
    with pytest.raises(
        DataError,
        match=r"page\.html: exists already, but is not this command's output .page of `mine inspect`.",
    ):
        inspect(settings(folder))
    assert "mine" in (folder / "page.html").read_text()


def test_scores_of_another_corpus_are_refused(folder):
    manifest = folder / "scores" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(Corpus(folder / "corpus").fingerprint, "0"))
    with pytest.raises(DataError, match="was scored from another corpus"):
        inspect(settings(folder))
    assert not (folder / "page.html").exists()


@pytest.fixture
def thousand(tmp_path, identity):
    make(tmp_path, identity, plausible(1000, 50), pictures=1500, items=6000)
    return tmp_path


def test_a_thousand_rows_with_pictures_stay_under_twenty_megabytes(thousand):
    assert "1,000 of 1,000 rows, 1,375 images (0 left out" in inspect(
        settings(thousand, num_negatives=10, stride=5)
    )
    assert 1e6 < (thousand / "page.html").stat().st_size < 20e6
    with pytest.raises(
        SettingsError, match=r"max_mb: 400 rows take 1\.\d MB without images\. Give fewer rows"
    ):
        inspect(settings(thousand, rows=400, max_mb=1))


def test_pictures_beyond_the_limit_are_left_out_unchosen_candidates_first(tmp_path, identity):
    make(tmp_path, identity, plausible(200, 50), pictures=1000, items=2000)
    said = inspect(settings(tmp_path, num_negatives=10, stride=5, max_mb=1))
    assert (tmp_path / "page.html").stat().st_size < 1e6
    html = (tmp_path / "page.html").read_text()
    shown = json.loads(re.search(r'id="rows">(.+?)</script>', html).group(1))
    left_out = shown["pictures"].count(None)
    assert 0 < left_out < len(shown["pictures"])
    assert f"({left_out:,} left out" in said
    assert f"{left_out:,} of {len(shown['pictures']):,} images are left out" in html
    uses = {}
    for row in shown["rows"]:
        uses.setdefault(row["asks"][1], set()).add(0)
        for item, *_, fate, _ in row["positives"] + row["candidates"]:
            order = ("positive", "dropped", "chosen", "error", "kept")
            uses.setdefault(shown["items"][item][2], set()).add(order.index(shown["fates"][fate]))
    first = {picture: min(fates) for picture, fates in uses.items() if picture is not None}
    there = [first[at] for at, picture in enumerate(shown["pictures"]) if picture is not None]
    gone = [first[at] for at, picture in enumerate(shown["pictures"]) if picture is None]
    assert max(there) <= min(gone)
