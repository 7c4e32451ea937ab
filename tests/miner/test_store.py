"""A whole job in an object store: the corpus with its pictures, vectors, scores, training rows and the page are all at
URLs.
"""

import pytest

from miner.importers.building.build import build
from miner.importers.pairs import read_pairs
from miner.inspection.page import inspect
from miner.inspection.settings import InspectSettings
from miner.scoring.job import score
from miner.selection.select import select
from miner.selection.settings import SelectSettings
from tests.miner.conftest import embed, quiet, serving
from tests.miner.counting import Counting
from unijudge.errors import DataError, FolderBusy, Unreachable
from unijudge.formats.corpus import Corpus
from unijudge.formats.inventory import check
from unijudge.formats.parts import part_path
from unijudge.formats.scores import read_scores
from unijudge.formats.triples import read_triples
from unijudge.storage.leases import lease
from unijudge.storage.locations import locate


@pytest.fixture
def stored(bucket, corpus, tmp_path):
    """The corpus of the other tests, imported into a bucket with its pictures, and embedded there."""
    place = locate(bucket)
    for picture in corpus.images.iterdir():
        place.fs.put_file(str(picture), (place / "images" / picture.name).path)
    rows = read_pairs(tmp_path / "pairs.jsonl")
    build(rows, images=place / "images", out=place / "corpus", source="t", max_rejects=0)
    opened = Corpus(place / "corpus")
    embed(opened, place / "vectors")
    return opened


def test_a_whole_job_in_a_store(stored, corpus, job, bucket, tmp_path, monkeypatch):
    place, judge = locate(bucket), Counting()
    assert stored.fingerprint == corpus.fingerprint
    assert [stored.content(item) for item in stored.items] == [
        corpus.content(item) for item in corpus.items
    ]
    with serving(judge) as url:
        inside = job(
            url,
            corpus=f"{bucket}/corpus",
            vectors=f"{bucket}/vectors",
            out=f"{bucket}/scores",
            shard_size=24,
        )
        score(inside, quiet)
        lost = part_path(inside.out, 1)
        lost.fs.rm_file(lost.path)
        judge.pairs.clear()
        again = score(inside, quiet)
        assert again.counts.asked == judge.pairs.total() > 0
        assert set(judge.pairs.values()) == {1}
        beside = job(url, shard_size=24, out=tmp_path / "beside", reuse=(f"{bucket}/scores",))
        assert score(beside, quiet).counts.asked == 0
        monkeypatch.setattr("unijudge.storage.leases.RENEW_EVERY_S", 0.5)
        with lease(inside.out), pytest.raises(FolderBusy):
            score(inside, quiet)
    assert list(read_scores(beside.out)) == list(read_scores(inside.out))
    assert "whole: 61 rows read" in check(inside.out)
    assert "whole: 61 rows read" in check(inside.out / "candidates")

    common = {"scores": f"{bucket}/scores", "corpus": f"{bucket}/corpus"}
    counted = select(SelectSettings(**common, vectors=f"{bucket}/vectors", out=f"{bucket}/triples"))
    rows = list(read_triples(place / "triples", stored.fingerprint))
    assert len(rows) == counted["rows kept"] > 30
    assert "whole" in check(place / "triples")
    inspect(InspectSettings(**common, out=f"{bucket}/page.html"))
    assert "</html>" in (place / "page.html").read_text()
    with pytest.raises(DataError, match="exists already"):
        select(SelectSettings(**common, out=f"{bucket}/triples"))


def test_a_picture_that_changed_in_the_store_is_an_error_at_its_position(
    stored, job, bucket, corpus
):
    picture = locate(bucket) / "images" / "10.png"
    picture.fs.put_file(str(corpus.images / "12.png"), picture.path)
    with serving(Counting()) as url:
        done = score(
            job(url, corpus=f"{bucket}/corpus", vectors=f"{bucket}/vectors", max_error_share=0.5),
            quiet,
        )
    assert done.counts.errors > 0
    failed = [
        one
        for row in read_scores(job(url).out)
        for one in [*row.positives, *row.candidates]
        if one.error
    ]
    assert all("10.png: changed since it was imported" in one.error for one in failed)


def test_a_picture_that_cannot_be_read_now_stops_the_job(stored, job, bucket, monkeypatch):
    """The job ends before it writes the shard, and the same command resumes the job."""
    store = locate(bucket).fs
    opened, refused = store.open, []

    def refusing(path, *args, **options):
        if path.endswith("10.png"):
            refused.append(path)
            raise TimeoutError("no answer")
        return opened(path, *args, **options)

    with serving(Counting()) as url:
        settings = job(
            url, corpus=f"{bucket}/corpus", vectors=f"{bucket}/vectors", max_error_share=0.5
        )
        with monkeypatch.context() as patch:
            patch.setattr(store, "open", refusing)
            with pytest.raises(Unreachable, match=r"10\.png: cannot be read \(no answer\)"):
                score(settings, quiet)
        assert refused
        assert score(settings, quiet).counts.errors == 0
    assert not any(
        one.error for row in read_scores(settings.out) for one in [*row.positives, *row.candidates]
    )


def test_released_rows_survive_import_and_export(tmp_path):
    """UniME-V2's file becomes a corpus and scores, then a selection, then UniME-V2's file again, with the same rows,
    scores and negatives.
    """
    import json

    from typer.testing import CliRunner

    from miner.cli import app
    from tests.pictures import png

    (tmp_path / "images" / "CIRR").mkdir(parents=True)
    (tmp_path / "images" / "CIRR" / "a.png").write_bytes(png())
    released = [
        {
            "query_text": "<|image_1|>\nfind this\n", "query_image": "images/CIRR/a.png", "pos_text": f"right {n}",
            "pos_image": "", "query_pos_scores": 0.9, "hard_negatives": [[f"wrong {n} {i}", ""] for i in range(10)],
            "hard_negatives_scores": [round(0.05 * i + 0.01, 4) for i in range(10)],
        }
        for n in range(3)
    ]  # fmt: skip
    (tmp_path / "released.json").write_text(json.dumps(released))
    here = {
        name: str(tmp_path / name)
        for name in ("released.json", "corpus", "scores", "triples", "again.json")
    }

    def run(*words):
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output

    run(
        "import",
        "unime",
        here["released.json"],
        here["corpus"],
        here["scores"],
        "--images",
        str(tmp_path),
    )
    changes = [
        f"scores={here['scores']}",
        f"corpus={here['corpus']}",
        f"out={here['triples']}",
        "stride=1",
    ]
    run("select", *changes)
    run("export", "unime", here["triples"], here["again.json"], "--corpus", here["corpus"])
    again = json.loads((tmp_path / "again.json").read_text())
    for before, after in zip(released, again, strict=True):
        assert after["query_image"].endswith("CIRR/a.png")
        for key in ("query_text", "pos_text", "pos_image", "hard_negatives"):
            assert after[key] == before[key]
        assert after["query_pos_scores"] == pytest.approx(0.9, abs=1e-6)
        assert after["hard_negatives_scores"] == pytest.approx(
            before["hard_negatives_scores"], abs=1e-6
        )
