"""A foreign dataset cannot choose which files of this machine are read."""

import hashlib

import pytest

from miner.publishing.publish import publish
from tests.folders import make_corpus
from tests.pictures import png
from unijudge.errors import DataError
from unijudge.formats.corpus import CorpusManifest, Item
from unijudge.formats.datasets import pull, stored
from unijudge.formats.image_roots import MANIFEST
from unijudge.formats.inventory import check
from unijudge.storage.files import publish_json, read_json


@pytest.mark.parametrize(
    "name", ["../white.png", "/dev/zero", "a/../../white.png", "a\\\\white.png", "s3://b/white.png"]
)
def test_an_image_outside_of_its_root_is_never_read(parts, tmp_path, name):
    """A corpus with such an image is not opened, so it is not judged, exported or published.

    The dataset is not pulled.
    """
    sha256 = hashlib.sha256(png("white")).hexdigest()
    (tmp_path / "white.png").write_bytes(png("white"))
    outside = Item("i-white", ("colors",), image=name, image_sha256=sha256)
    refusal = r"items\.parquet: row 3: image '.*' is not a path inside the image root, so nothing was read"
    with pytest.raises(DataError, match=refusal):
        make_corpus(tmp_path / "corpus", tmp_path / "pictures", extra=[outside])
    with pytest.raises(DataError, match=refusal):
        check(tmp_path / "corpus")
    spoil(tmp_path, parts, tmp_path / "corpus")
    with pytest.raises(DataError, match=refusal):
        pull(tmp_path / "published", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


@pytest.mark.parametrize("root", ["../../..", "/dev", "https://me:secret@host/x", "images"])
def test_a_dataset_reads_its_images_from_itself(parts, tmp_path, root):
    made = read_json(parts[0] / "corpus.json", CorpusManifest).model_copy(update={"images": root})
    spoil(tmp_path, parts, parts[0], made)
    refusal = r"corpus: is part of a dataset, whose images are in \.\./images, but it names"
    for action in (
        lambda: pull(tmp_path / "published", tmp_path / "pulled"),
        lambda: check(tmp_path / "published"),
    ):
        with pytest.raises(DataError, match=refusal):
            action()
    assert not (tmp_path / "pulled").exists()


def spoil(tmp_path, parts, corpus, manifest=None):
    """A dataset whose files all match dataset.json, but whose corpus was exchanged."""
    made = publish(tmp_path / "published", *parts)
    place = tmp_path / "published" / "corpus"
    for name in ("items.parquet", "queries.parquet", "corpus.json"):
        (place / name).write_bytes((corpus / name).read_bytes())
    found = manifest or read_json(place / "corpus.json", CorpusManifest).model_copy(
        update={"images": "../images"}
    )
    publish_json(place / "corpus.json", found)
    files = {name: stored(tmp_path / "published" / name) for name in made.files}
    spoilt = made.model_copy(update={"files": files, "corpus": found.fingerprint})
    publish_json(tmp_path / "published" / MANIFEST, spoilt)


@pytest.mark.parametrize(
    "name", ["images/a b/red#1.png", "corpus/items.parquet", "scores/part-00000.parquet"]
)
@pytest.mark.parametrize("endless", [True, False])
def test_only_the_listed_files_and_sizes_are_read(parts, tmp_path, name, endless):
    """A device is not read, and an endless file is read only up to its listed size."""
    publish(tmp_path / "published", *parts)
    file = tmp_path / "published" / name
    size = file.stat().st_size
    if endless:
        file.unlink()
        file.symlink_to("/dev/zero")
        refusal = rf"{file.name}: cannot be read \(no regular file\)"
    else:
        file.write_bytes(file.read_bytes() + bytes(9 * 2**20))
        refusal = rf"{file.name}: has more than the {size:,} bytes that its dataset lists, so the copy was stopped"
    with pytest.raises(DataError, match=refusal):
        pull(tmp_path / "published", tmp_path / "pulled")
    assert not (tmp_path / "pulled" / name).exists()
    assert not (tmp_path / "pulled" / MANIFEST).exists()


def test_a_manifest_that_never_ends_is_not_read(tmp_path):
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / MANIFEST).symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"dataset\.json: cannot be read \(no regular file\)"):
        pull(tmp_path / "published", tmp_path / "pulled")


def test_a_device_is_not_read_as_a_picture(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", tmp_path / "pictures")
    picture = corpus.images / corpus.items[0].image
    picture.unlink()
    picture.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="not a regular file, so not a picture"):
        corpus.content(corpus.items[0])
