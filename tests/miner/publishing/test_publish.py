"""A scored dataset: the published files are the judged files, and the pulled files are the published files."""

import pytest

from miner.publishing.publish import publish
from tests.folders import files_of, make_corpus, make_scores
from tests.pictures import png
from unijudge.errors import DataError, SettingsError
from unijudge.formats.corpus import Corpus, Item
from unijudge.formats.datasets import DatasetManifest, Stored, pull
from unijudge.formats.image_roots import MANIFEST, UNFINISHED
from unijudge.formats.inventory import check, describe
from unijudge.formats.scores import read_scores
from unijudge.formats.triples import TripleManifest, read_triples
from unijudge.storage.files import publish_json, read_json
from unijudge.storage.locations import locate

IMAGES = [f"images/a b/{color}#1.png" for color in ("red", "green", "blue")]


@pytest.fixture(params=["disk", "store"])
def place(request, tmp_path):
    """The folder or the bucket for a dataset."""
    if request.param == "disk":
        return tmp_path / "published"
    return locate(request.getfixturevalue("bucket")) / "published"


def test_a_folder_with_more_files_than_the_hub_takes_is_named(parts, tmp_path, monkeypatch, caplog):
    """The hub refuses such a folder only after the whole upload."""
    publish(tmp_path / "small", *parts)
    assert not caplog.messages
    monkeypatch.setattr("miner.publishing.publish.MOST_IN_A_FOLDER", 2)
    publish(tmp_path / "large", *parts)
    (said,) = caplog.messages
    assert said.startswith(
        f"{tmp_path}/large: corpus holds 3 files, but the Hugging Face hub accepts 2 in a folder. Im"
    )


def test_a_published_dataset_is_pulled_completely(parts, place, tmp_path, identity):
    corpus = Corpus(parts[0])
    made = publish(place, *parts, license="cc-by-4.0")
    assert sorted(made.files) == sorted(
        [
            "README.md", "corpus/corpus.json", "corpus/items.parquet", "corpus/queries.parquet", "scores/manifest.json",
            "scores/part-00000.parquet", "scores/part-00001.parquet", "triples/triples.json",
            "triples/part-00000.parquet", *IMAGES,
        ]
    )  # fmt: skip
    assert (made.judge, made.license, made.corpus) == (identity, "cc-by-4.0", corpus.fingerprint)
    assert check(place) == f"{place}: scored dataset, whole: 12 files read"
    assert Corpus(place / "corpus").content(corpus.items[0]).image == png("red")

    assert pull(place, tmp_path / "pulled") == made
    assert (
        check(tmp_path / "pulled") == f"{tmp_path / 'pulled'}: scored dataset, whole: 12 files read"
    )
    assert sorted(files_of(tmp_path / "pulled")) == sorted([*made.files, MANIFEST])
    pulled = Corpus(tmp_path / "pulled" / "corpus")
    assert pulled.fingerprint == corpus.fingerprint
    assert list(pulled.items) == list(corpus.items)
    assert pulled.content(pulled.queries[2]).image == png("blue")
    assert list(read_scores(tmp_path / "pulled" / "scores")) == list(read_scores(parts[1]))
    rows = list(read_triples(tmp_path / "pulled" / "triples", pulled.fingerprint))
    assert rows == list(read_triples(parts[2], corpus.fingerprint))
    assert check(tmp_path / "pulled" / "corpus").endswith("corpus, whole: 6 rows read")


def test_a_dataset_is_published_once(parts, place):
    publish(place, *parts, images=False)
    with pytest.raises(
        DataError,
        match=r"published: exists already .it holds README\.md, corpus, dataset\.json, scores, triples.\. .*overwrite",
    ):
        publish(place, *parts)
    assert "images" not in {
        name.partition("/")[0] for name in read_json(place / MANIFEST, DatasetManifest).files
    }


@pytest.mark.parametrize("damage", ["tampered", "truncated", "gone"])
def test_a_changed_file_is_named_and_the_folder_stays_incomplete(parts, place, tmp_path, damage):
    publish(place, *parts)
    out, spoiled = tmp_path / "pulled", place / "triples" / "part-00000.parquet"
    good = spoiled.read_bytes()
    if damage == "gone":
        spoiled.unlink()
    else:
        spoiled.write_bytes(good[:-1] + b"?" if damage == "tampered" else good[:-1])
    for action in (lambda: pull(place, out), lambda: check(place)):
        with pytest.raises(DataError, match=r"triples/part-00000\.parquet"):
            action()
    assert not (out / MANIFEST).exists()
    assert not (out / "triples" / "part-00000.parquet").exists()
    with pytest.raises(DataError, match="not a folder of unijudge"):
        describe(out)

    spoiled.write_bytes(good)
    assert pull(place, out).files.keys() == files_of(out).keys() - {MANIFEST}


def test_an_interrupted_pull_resumes(parts, tmp_path):
    """Files that are already complete are not fetched again. The source need not have them any more."""
    source, out = tmp_path / "published", tmp_path / "pulled"
    publish(source, *parts)
    last = source / "triples" / "triples.json"
    kept = last.read_bytes()
    last.unlink()
    with pytest.raises(DataError, match=r"triples\.json: cannot be read"):
        pull(source, out)
    (out / "scores" / "part-00000.parquet").write_bytes(b"torn")
    there = {
        name
        for name in read_json(source / MANIFEST, DatasetManifest).files
        if (out / name).exists()
    }
    assert set(IMAGES) <= there
    last.write_bytes(kept)
    for name in there - {"scores/part-00000.parquet"}:
        (source / name).unlink()
    pull(source, out)
    assert check(out).endswith("scored dataset, whole: 12 files read")


def test_a_second_pull_repairs_a_damaged_dataset(parts, tmp_path):
    source, out = tmp_path / "published", tmp_path / "pulled"
    publish(source, *parts)
    pull(source, out)
    (out / IMAGES[0]).write_bytes(png("white"))
    with pytest.raises(
        DataError, match=r"red#1\.png: changed: its sha256 is not that of dataset\.json"
    ):
        check(out)
    (source / IMAGES[0]).rename(tmp_path / "away")
    with pytest.raises(DataError, match=r"red#1\.png"):
        pull(source, out)
    assert not (out / MANIFEST).exists()
    (tmp_path / "away").rename(source / IMAGES[0])
    pull(source, out)
    assert (out / IMAGES[0]).read_bytes() == png("red")
    assert not (out / UNFINISHED).exists()


def test_a_pull_does_not_change_foreign_folders(parts, tmp_path):
    publish(tmp_path / "published", *parts)
    publish(tmp_path / "published2", *parts[:2])
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("mine")
    with pytest.raises(DataError, match=r"mine: holds README\.md already"):
        pull(tmp_path / "published", mine)
    assert files_of(mine) == {"README.md": b"mine"}
    pull(tmp_path / "published", tmp_path / "pulled")
    with pytest.raises(DataError, match="holds another dataset"):
        pull(tmp_path / "published2", tmp_path / "pulled")
    assert check(tmp_path / "pulled").endswith("12 files read")


@pytest.mark.parametrize(
    "name",
    ["../outside", "/outside", "images/../../outside", "", "images\\..\\x", "..", "./dataset.json"],
)
def test_a_dataset_that_names_files_outside_of_itself_is_refused(parts, tmp_path, name):
    made = publish(tmp_path / "published", *parts)
    hostile = made.model_copy(update={"files": {**made.files, name: Stored(7, "0" * 64)}})
    (tmp_path / "published" / MANIFEST).write_text(hostile.model_dump_json())
    (tmp_path / "outside").write_text("outside")
    with pytest.raises(DataError, match=r"is not a path inside the folder|name of the manifest"):
        pull(tmp_path / "published", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_parts_that_do_not_belong_together_are_refused(parts, tmp_path, identity):
    corpus, scores, triples = parts
    other = make_corpus(
        tmp_path / "other", tmp_path / "pictures", extra=[Item("i-more", ("colors",), text="more")]
    )
    with pytest.raises(
        DataError, match=f"scores: belongs to the corpus .* {Corpus(corpus).fingerprint}, but "
    ):
        publish(tmp_path / "out", tmp_path / "other", scores)
    with pytest.raises(
        DataError, match=f"triples: belongs to the corpus .* {other.fingerprint}. Give the corpus"
    ):
        publish(tmp_path / "out", tmp_path / "other", None, triples)
    rejudged = make_scores(
        tmp_path / "rejudged", Corpus(corpus), identity.model_copy(update={"model": "another"})
    )
    with pytest.raises(
        DataError, match=r"triples: was selected from scores whose manifest\.json has the sha256"
    ):
        publish(tmp_path / "out", corpus, rejudged, triples)
    with pytest.raises(SettingsError, match="Give at least one"):
        publish(tmp_path / "out", corpus)
    assert not (tmp_path / "out").exists()


def test_the_rows_of_a_cascade_are_not_published_with_half_of_their_scores(parts, tmp_path):
    corpus, scores, triples = parts
    made = read_json(triples / "triples.json", TripleManifest)
    publish_json(triples / "triples.json", made.model_copy(update={"large_scores": "5" * 64}))
    with pytest.raises(
        SettingsError,
        match=rf"--scores .*scores: .* sha256 {'5' * 64} of .*would be missing\. Publish these",
    ):
        publish(tmp_path / "out", corpus, scores, triples)
    assert not (tmp_path / "out").exists()
    publish(tmp_path / "out", corpus, None, triples)
    assert check(tmp_path / "out").endswith("files read")


def test_incomplete_or_changed_folders_are_not_published(parts, tmp_path):
    corpus, scores, triples = parts
    picture = corpus.parent / "pictures" / "a b" / "blue#1.png"
    picture.write_bytes(png("white"))
    with pytest.raises(DataError, match=r"blue#1\.png: changed: its sha256 is .*, but must be"):
        publish(tmp_path / "out", *parts)
    picture.unlink()
    with pytest.raises(DataError, match=r"blue#1\.png: cannot be read \(No such file"):
        publish(tmp_path / "out", *parts)
    shard = scores / "part-00001.parquet"
    shard.rename(tmp_path / "away")
    with pytest.raises(DataError, match=r"scores: 1 of 2 shards are missing \(first: 1\)"):
        publish(tmp_path / "out", *parts)
    shard.write_bytes((scores / "part-00000.parquet").read_bytes())
    with pytest.raises(
        DataError, match=r"part-00001\.parquet: was written for another plan or another shard"
    ):
        publish(tmp_path / "out", *parts)
    (triples / "part-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"triples: has 0 rows, but triples\.json says 3"):
        publish(tmp_path / "out", corpus, None, triples)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


@pytest.mark.parametrize("part", ["corpus", "scores", "triples"])
def test_a_dataset_with_foreign_parts_fails_its_check(parts, tmp_path, part):
    """Every file has the hash that dataset.json gives."""
    made = publish(tmp_path / "out", *parts)
    publish_json(tmp_path / "out" / MANIFEST, made.model_copy(update={part: "another"}))
    with pytest.raises(DataError, match=r"its parts do not match dataset\.json"):
        check(tmp_path / "out")
    without = {name: stored for name, stored in made.files.items() if name != IMAGES[1]}
    publish_json(tmp_path / "out" / MANIFEST, made.model_copy(update={"files": without}))
    with pytest.raises(DataError, match=r"image a b/green#1\.png is missing, or changed"):
        check(tmp_path / "out")
