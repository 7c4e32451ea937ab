"""A stored or published error contains no path of a machine and no address of a service."""

import re

import pytest

from miner.publishing.publish import publish
from miner.publishing.redaction import LEFT_OUT, PLACE
from miner.scoring.score_cache import ScoreCache
from tests.miner.counting import Counting
from tests.miner.estimate.scored import scored
from unijudge.errors import JudgeRefused
from unijudge.formats.corpus import Corpus
from unijudge.formats.inventory import check
from unijudge.formats.scores import JudgedQuery, ScoreManifest, read_scores, write_shard
from unijudge.formats.triples import read_triples, write_triples
from unijudge.storage.files import file_sha256, read_json

PLACED = [
    "unreadable: /home/alice secret/a.png: cannot be read", "refused: http://10.0.0.7:8000: no", "unreadable: ~/x: y",
    r"unreadable: C:\Users\alice\a.png: z", "bad_image: it lies in (/data/x)", "x: file:///srv/a",
]  # fmt: skip
PLAIN = [
    "unreadable: sub/a.png: cannot be read (no such file)",
    "too_long: 5/4 tokens",
    "refused: the service: no",
    "a",
]


@pytest.mark.parametrize("error", PLACED + PLAIN)
def test_absolute_paths_are_distinguished_from_relative_names(error):
    assert bool(re.search(PLACE, error)) == (error in PLACED)


def with_error(judged, error):
    return type(judged)(**vars(judged) | {"yes_logprob": None, "no_logprob": None, "error": error})


def test_a_dataset_contains_no_path_of_the_scoring_machine(parts, tmp_path):
    """The shards and training rows are from an older version or from another program.

    The code of such an error stays.
    """
    corpus = Corpus(parts[0])
    plan = read_json(parts[1] / "manifest.json", ScoreManifest)
    first, second, third = read_scores(parts[1])
    bad = [
        with_error(one, error)
        for one, error in zip(first.candidates, (PLACED[0], PLAIN[0]), strict=True)
    ]
    write_shard(parts[1], plan, 0, [JudgedQuery(**vars(first) | {"candidates": bad}), second])
    rows = list(read_triples(parts[2], corpus.fingerprint))
    rows[0].negatives[0] = with_error(rows[0].negatives[0], PLACED[1])
    write_triples(parts[2], rows)
    publish(tmp_path / "published", *parts)
    found = list(read_scores(tmp_path / "published" / "scores"))
    assert [one.error for one in found[0].candidates] == [f"unreadable: {LEFT_OUT}", PLAIN[0]]
    assert found[1:] == [second, third]
    row, *others = read_triples(tmp_path / "published" / "triples", corpus.fingerprint)
    assert row.negatives[0].error == f"refused: {LEFT_OUT}"
    assert others == rows[1:]
    same = "scores/part-00001.parquet"
    assert file_sha256(tmp_path / "published" / same) == file_sha256(parts[1].parent / same), (
        "copied as it is"
    )
    told = [
        path
        for path in (tmp_path / "published").rglob("*")
        if path.is_file() and b"alice" in path.read_bytes()
    ]
    assert not told
    assert check(tmp_path / "published").endswith("files read")


class Refusing(Counting):
    """A judge that refuses some queries with its own address in the error, as the client does."""

    async def judge(self, query, candidates):
        if query.text == "find 6":
            raise JudgeRefused("http://judge.intern:8000: 413 (the request is too large)")
        return await super().judge(query, candidates)


def test_the_miner_stores_relative_names_of_pictures(job, corpus):
    """The errors are about missing, changed and refused pictures, and about a missing image root."""
    (corpus.images / "10.png").unlink()
    (corpus.images / "11.png").write_bytes(b"changed")
    settings = job(
        "http://me:secret@judge.intern:8000/", shard_size=len(corpus.queries), max_error_share=1.0
    )
    scored(settings, corpus, Refusing(), ScoreCache([], None), apart=False)
    errors = {
        pair.error
        for row in read_scores(settings.out)
        for pair in [*row.positives, *row.candidates]
    } - {None}
    assert errors == {
        "unreadable: 10.png: cannot be read (no such file). Restore it or import again",
        "unreadable: 11.png: changed since it was imported. Restore it or import again",
        "refused: the service: 413 (the request is too large)",
    }
    corpus.images.rename(corpus.images.with_name("elsewhere"))
    again = job(
        "x",
        out=settings.out.with_name("again"),
        shard_size=len(corpus.queries),
        max_error_share=1.0,
    )
    scored(again, corpus, Counting(), ScoreCache([], None), apart=False)
    errors = {
        pair.error for row in read_scores(again.out) for pair in [*row.positives, *row.candidates]
    } - {None}
    assert not any(re.search(PLACE, error) for error in errors)
    assert any("cannot be read, because the image root does not exist" in error for error in errors)
