"""Members of zip archives are found as the standard library finds them, with a few bytes of memory for each."""

import io
import subprocess
import sys
import zipfile

import pytest

from unijudge.foreign.archives import Archive

PEAK = """
import resource, sys
import numpy
from unijudge.foreign.archives import Archive
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
archive = Archive("a", open(sys.argv[1], "rb"))
assert archive.open(archive.find("a folder/000123.txt")).read() == b"123"
assert archive.find("a folder/200000.txt") is None
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def archive_bytes(members, *, comment=b"", before=b"", **options):
    """The bytes of an archive, and the same bytes behind other bytes, as in a self-extracting archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
        archive.comment = comment
    return before + out.getvalue()


MEMBERS = [
    ("a.txt", b"one"),
    ("a folder/", b""),
    ("a folder/b.txt", b"two" * 1000),
    ("a folder/é.txt", b"three"),
]


@pytest.mark.parametrize(
    "data",
    [
        archive_bytes(MEMBERS),
        archive_bytes(MEMBERS, comment=b"PK about it" * 100),
        archive_bytes(MEMBERS, before=b"#!/bin/sh\n" * 100),
        archive_bytes(MEMBERS, compression=zipfile.ZIP_DEFLATED),
        archive_bytes(MEMBERS, compression=zipfile.ZIP_LZMA, comment=b"c"),
        archive_bytes([(f"{number}.txt", str(number)) for number in range(70_000)]),
    ],
    ids=[
        "plain",
        "with a comment",
        "behind a program",
        "deflated",
        "LZMA",
        "70,000 members: with a longer record",
    ],
)
def test_members_are_those_of_the_standard_library(data):
    archive = Archive("a", io.BytesIO(data))
    with zipfile.ZipFile(io.BytesIO(data)) as theirs:
        for info in theirs.infolist()[:1000] + theirs.infolist()[-1000:]:
            found = archive.find(info.filename)
            if info.is_dir():
                assert found is None
                continue
            for name in (
                "header_offset",
                "file_size",
                "compress_size",
                "CRC",
                "flag_bits",
                "compress_type",
            ):
                assert getattr(found, name) == getattr(info, name)
            assert archive.open(found).read() == theirs.read(info)
    assert archive.find("nowhere") is None


def test_sizes_and_places_of_eight_bytes_are_read(monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    data = archive_bytes(MEMBERS)
    assert b"PK\6\6" in data
    archive = Archive("a", io.BytesIO(data))
    assert [
        archive.open(archive.find(name)).read() for name, _ in MEMBERS if not name.endswith("/")
    ] == [data for name, data in MEMBERS if not name.endswith("/")]


def test_the_last_of_several_members_with_one_name_is_used():
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = archive_bytes([("a.txt", b"old"), ("b.txt", b"b"), ("a.txt", b"new")])
    archive = Archive("a", io.BytesIO(data))
    assert archive.open(archive.find("a.txt")).read() == b"new"


def test_names_are_found_in_any_unicode_form():
    archive = Archive("a", io.BytesIO(archive_bytes([("./x\\cafe\u0301.PNG", b"one")])))
    assert archive.find("x/café.PNG") is not None
    assert archive.find("x/café.png") is None
    assert archive.alike("x/café.png") == "x/café.PNG"
    assert archive.alike("x/cafe.png") is None


@pytest.mark.parametrize("cut", [3, 30, 200])
def test_an_incomplete_archive_is_refused(cut):
    data = archive_bytes(MEMBERS)
    with pytest.raises(zipfile.BadZipFile):
        Archive("a", io.BytesIO(data[:-cut]))
    with pytest.raises(zipfile.BadZipFile):
        Archive("a", io.BytesIO(data.replace(b"PK\1\2", b"PK\1\3")))


def test_a_member_takes_few_bytes(tmp_path):
    """The archive has 200,000 members. The standard library would take over 100 MB."""
    data = archive_bytes([(f"a folder/{number:06}.txt", str(number)) for number in range(200_000)])
    (tmp_path / "a.zip").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, tmp_path / "a.zip"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 40 * 10**6
