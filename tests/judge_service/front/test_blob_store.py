"""The folder of images: it is bounded, holds only complete files, and removes the oldest first, with many writers."""

import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from judge_service.front.blobs import BlobStore
from tests.judge_service.front.blob_images import IMAGES, sha
from tests.pictures import noise
from unijudge.errors import BadImage, DataError


@pytest.fixture
def store(tmp_path):
    return BlobStore(tmp_path / "blobs", max_bytes=10**6)


def test_the_least_recently_used_image_is_removed_first_and_no_recent_one(tmp_path):
    room = 4 * len(IMAGES[0]) + 100
    store = BlobStore(tmp_path, max_bytes=room, young_s=60)
    names = [sha(image) for image in IMAGES]
    for age, (name, image) in enumerate(zip(names[:4], IMAGES, strict=False)):
        store.put(name, image)
        os.utime(tmp_path / name, (time.time() - 1000 + age,) * 2)
    (tmp_path / f"{names[5]}.0.unijudge-draft").write_bytes(
        b"x"
    )  # a draft of a replica that was killed
    os.utime(tmp_path / f"{names[5]}.0.unijudge-draft", (0, 0))
    (tmp_path / "README").write_text("not ours")
    assert store.get(names[0]) == IMAGES[0]  # now this image is the most recently used
    store.put(names[4], IMAGES[4])
    left = {path.name for path in tmp_path.iterdir()}
    assert {names[0], names[4], "README"} <= left
    assert names[1] not in left
    assert not any(name.endswith(".unijudge-draft") for name in left)
    assert sum((tmp_path / name).stat().st_size for name in left) <= room + 20
    for name in left - {"README"}:
        os.utime(tmp_path / name)
    fresh = BlobStore(tmp_path, max_bytes=room, young_s=60)
    new = noise(99, (100, 100))
    with pytest.raises(
        DataError, match=r"used in the last blobs\.min_age_s\. Raise blobs\.max_bytes"
    ):
        fresh.put(sha(new), new)


def test_an_image_larger_than_the_store_empties_nothing(tmp_path):
    store = BlobStore(tmp_path, max_bytes=2 * len(IMAGES[0]), young_s=0)
    store.put(sha(IMAGES[0]), IMAGES[0])
    large = noise(9, (200, 200))
    with pytest.raises(DataError, match=r"keeps 24\d+ in total"):
        store.put(sha(large), large)
    assert store.get(sha(IMAGES[0])) == IMAGES[0]


def test_a_changed_file_is_not_an_image(store):
    name = sha(IMAGES[0])
    store.put(name, IMAGES[0])
    (store._folder / name).write_bytes(IMAGES[1])
    assert store.get(name) is None
    with pytest.raises(BadImage, match="Send the image again"):
        store.put(name, IMAGES[1])
    assert store.put(name, IMAGES[0])


def test_many_writers_and_readers(tmp_path):
    """Eight threads use three stores of one small folder. All bytes that are read are correct."""
    stores = [BlobStore(tmp_path, max_bytes=3 * len(IMAGES[0]), young_s=0) for _ in range(3)]

    def work(turn):
        image = IMAGES[turn % 6]
        with contextlib.suppress(
            DataError
        ):  # possible if the other threads use all images at this moment
            stores[turn % 3].put(sha(image), image)
        return stores[(turn + 1) % 3].get(sha(image)) in (image, None)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(600)))
    used = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert used <= (3 + 3 * 3 / 16 + 1) * len(IMAGES[0])
