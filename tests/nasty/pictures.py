"""Ways to damage pictures: their bytes, their names, and the zip files or links that hold them."""

import io
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable

from PIL import Image

from tests.nasty.made import LFS, ROWS, Made


def jpeg(color: str = "red", **saved: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (60, 60), color).save(out, saved.pop("format", "JPEG"), **saved)
    return out.getvalue()


def second_picture(data: bytes) -> Callable[[Made], None]:
    """The bytes of the second picture."""
    return lambda made: (made.images / "b.jpg").write_bytes(data) and None


def large(made: Made) -> None:
    """A picture with the size of a large drawing, which no phone produces."""
    out = io.BytesIO()
    Image.new("1", (10_562, 16_000)).save(out, "PNG")
    (made.images / "b.jpg").write_bytes(out.getvalue())


def bomb(made: Made) -> None:
    """A file of a kilobyte whose header says a gigapixel."""
    data = jpeg(format="PNG")
    header = data[12:16] + struct.pack(">II", 32_000, 32_000) + data[24:29]
    made.images.joinpath("b.jpg").write_bytes(
        data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    )


def side_files(made: Made) -> None:
    folders = {made.images, made.source if made.source.is_dir() else made.source.parent}
    folders |= {path.parent for folder in list(folders) for path in folder.rglob("*")}
    for folder in folders:
        for name in (
            ".DS_Store",
            "Thumbs.db",
            "desktop.ini",
            "._a.zip",
            "._rows.jsonl",
            "._original-0.parquet",
        ):
            (folder / name).write_bytes(b"\x00\x05\x16\x07 Mac OS X")
        (folder / "._b.txt").write_bytes(b"\xff\xfe")
        (folder / ".cache").mkdir(exist_ok=True)


def decomposed(made: Made) -> None:
    (made.images / "café.jpg").rename(made.images / unicodedata.normalize("NFD", "café.jpg"))


def zipped(made: Made) -> None:
    """A zip file from macOS: it has decomposed names in UTF-8 without the flag for UTF-8, side files, and no plain
    pictures.
    """
    with zipfile.ZipFile(made.images / "photos.zip", "w") as archive:
        for name, _ in ROWS:
            archive.writestr(unicodedata.normalize("NFD", name), (made.images / name).read_bytes())
            archive.writestr(f"__MACOSX/._{name}", b"\x00\x05\x16\x07")
            (made.images / name).unlink()
    data = bytearray((made.images / "photos.zip").read_bytes())
    for header, flags in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        at = data.find(header)
        while at >= 0:
            data[at + flags] &= ~0x08
            at = data.find(header, at + 4)
    (made.images / "photos.zip").write_bytes(data)


def capitals(made: Made) -> None:
    (made.images / "b.jpg").rename(made.images / "b.JPG")


def linked(made: Made) -> None:
    """Each file is a link to another folder, named by its hash, as in the hub's cache."""
    blobs = made.images.parent.parent / "blobs"
    blobs.mkdir()
    sources = [path for path in made.source.parent.rglob("*") if path.is_file()] + list(
        made.images.iterdir()
    )
    for number, path in enumerate(dict.fromkeys(sources)):
        path.rename(blobs / str(number)).touch()
        path.symlink_to(blobs / str(number))


def linked_folder(made: Made) -> None:
    """The pictures are on another disk."""
    made.images.rename(made.images.parent.parent / "elsewhere")
    made.images.mkdir()
    for name, _ in ROWS:
        (made.images / name).symlink_to(made.images.parent.parent / "elsewhere" / name)


def gone(made: Made) -> None:
    (made.images / "b.jpg").unlink()


def zip_pointer(made: Made) -> None:
    for name, _ in ROWS:
        (made.images / name).unlink()
    (made.images / "photos.zip").write_bytes(LFS)


def encrypted(made: Made) -> None:
    zipped(made)
    data = bytearray((made.images / "photos.zip").read_bytes())
    place = data.rindex(b"PK\x01\x02", 0, data.rindex(b"b.jpg", 0, data.rindex(b"__MACOSX")))
    data[place + 8] |= 1
    (made.images / "photos.zip").write_bytes(data)


def in_a_folder(made: Made) -> None:
    with zipfile.ZipFile(made.images / "photos.zip", "w") as archive:
        archive.writestr("train/2017/b.jpg", (made.images / "b.jpg").read_bytes())
    (made.images / "b.jpg").unlink()


def png_with(*chunks: tuple[bytes, bytes, int]) -> bytes:
    """A picture with additional chunks, each with a wrong checksum."""
    more = b""
    for name, content, wrong in chunks:
        more += len(content).to_bytes(4, "big") + name + content
        more += (zlib.crc32(name + content) ^ wrong).to_bytes(4, "big")
    data = jpeg("blue", format="PNG")
    return data[:33] + more + data[33:]


def with_exif(data: bytes) -> bytes:
    """The EXIF data ends in the middle."""
    return data[:2] + b"\xff\xe1\x00\x10Exif\x00\x00MM\x00*\xff\xff\xff\xff" + data[2:]
