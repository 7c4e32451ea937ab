"""Images that are sent as blobs."""

import hashlib

from tests.pictures import noise

IMAGES = [noise(seed) for seed in range(6)]


def sha(data):
    return hashlib.sha256(data).hexdigest()
