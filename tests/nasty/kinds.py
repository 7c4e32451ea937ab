"""Ways in which files that people make are unlike the example, and what an importer makes of each: one line a kind."""

import io
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.nasty.layouts import Layout

ROWS = (("café.jpg", "one street"), ("b.jpg", "two\u2028 streets  in rain"))
"""A picture's name and its caption; the second caption holds what some readers take for a line's end."""


@dataclass
class Made:
    """An import before it begins."""

    layout: Layout
    source: Path
    """What the importer is given."""
    images: Path
    text: list[Path] = field(default_factory=list)
    """The files of the source that are text."""


@dataclass(frozen=True)
class Kind:
    """One way to spoil what was made, and what comes of it."""

    name: str
    spoil: Callable[[Made], None]
    rows: int = 2
    """Captioned pictures that are read."""
    reason: str = ""
    """Words that name what was rejected, or why nothing was imported."""
    is_refused: bool = False
    fits: Callable[[Layout], bool] = lambda _: True
    captioned: Sequence[tuple[str, str]] = ROWS


def jpeg(color: str = "red", **saved: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (60, 60), color).save(out, saved.pop("format", "JPEG"), **saved)
    return out.getvalue()


def _text(change: Callable[[bytes], bytes]) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        for path in made.text:
            path.write_bytes(change(path.read_bytes()))

    return spoil


def _blank_lines(made: Made) -> None:
    """Around the rows and between them; the first line of a caption's file stays the first."""
    for path in made.text:
        before = b"" if path.suffix == ".txt" else b" \r\n\n"
        path.write_bytes(before + path.read_bytes().replace(b"\n", b"\n\n \n") + b"\r\n\n")


def _picture(data: bytes) -> Callable[[Made], None]:
    """The second picture's bytes."""
    return lambda made: (made.images / "b.jpg").write_bytes(data) and None


def _side_files(made: Made) -> None:
    folders = {made.images, made.source if made.source.is_dir() else made.source.parent}
    folders |= {path.parent for folder in list(folders) for path in folder.rglob("*")}
    for folder in folders:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._a.zip", "._rows.jsonl", "._original-0.parquet"):
            (folder / name).write_bytes(b"\x00\x05\x16\x07 Mac OS X")
        (folder / "._b.txt").write_bytes(b"\xff\xfe")
        (folder / ".cache").mkdir(exist_ok=True)


def _decomposed(made: Made) -> None:
    (made.images / "café.jpg").rename(made.images / unicodedata.normalize("NFD", "café.jpg"))


def _zipped(made: Made) -> None:
    """As macOS makes it: decomposed names in UTF-8, which it does not call so; side files; no plain pictures."""
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


def _capitals(made: Made) -> None:
    (made.images / "b.jpg").rename(made.images / "b.JPG")


def _gone(made: Made) -> None:
    (made.images / "b.jpg").unlink()


def _as_table(made: Made, pictures: Sequence[object] | pa.Array) -> None:
    """The source as a Parquet file, with such cells for its pictures."""
    layout = made.layout
    captions = [caption for _, caption in ROWS]
    table = pa.table({layout.picture: pictures, layout.positive: captions})
    made.source = layout.table(made.source.parent / "table", table)


def _bad_utf8(made: Made) -> None:
    """The second caption of a Parquet file is no UTF-8."""
    if made.source.is_file():
        _as_table(made, [{"bytes": None, "path": name} for name, _ in ROWS])
    for path in made.source.rglob("*.parquet") if made.source.is_dir() else [made.source]:
        table = pq.read_table(path)
        place = table.schema.get_field_index(made.layout.positive)
        cells = pa.array([b"one street", b"two \xff streets"]).view(pa.string())
        pq.write_table(table.set_column(place, made.layout.positive, cells), path)


def _is_table(layout: Layout) -> bool:
    return layout.table is not None


def _is_text(layout: Layout) -> bool:
    return bool(layout.text)


def _names_pictures(layout: Layout) -> bool:
    """Urban1K's pictures are called like its captions."""
    return layout.name != "urban1k"


def _with_exif(data: bytes) -> bytes:
    """Side data that ends in the middle."""
    return data[:2] + b"\xff\xe1\x00\x10Exif\x00\x00MM\x00*\xff\xff\xff\xff" + data[2:]


BASE64 = "iVBORw0KGgoAAAANSUhEUg" * 2000

KINDS = (
    Kind("nothing", lambda _: None),
    Kind("A1 a byte-order mark", _text(lambda data: b"\xef\xbb\xbf" + data), fits=_is_text),
    Kind("A1 UTF-16", _text(lambda data: data.decode().encode("utf-16")), 0, "is UTF-16", True, _is_text),
    Kind("A1 UTF-16, no mark", _text(lambda data: data.decode().encode("utf-16-le")), 0, "is UTF-16", True, _is_text),
    Kind("A1 UTF-32", _text(lambda data: data.decode().encode("utf-32")), 0, "is UTF-32", True, _is_text),
    Kind("A2 blank lines", _blank_lines, fits=_is_text),
    Kind("A2 Windows' line ends", _text(lambda data: data.replace(b"\n", b"\r\n")), fits=_is_text),
    Kind("A3 base64 for a name", lambda _: None, 1, "base64 text, not a path", False, _names_pictures,
         (ROWS[0], (BASE64, ROWS[1][1]))),
    Kind("A3 a data: URL", lambda _: None, 1, "a data: URL, not a path", False, _names_pictures,
         (ROWS[0], ("data:image/png;base64," + BASE64, ROWS[1][1]))),
    Kind("A3 a URL", lambda _: None, 1, "a URL, not a path", False, _names_pictures,
         (ROWS[0], ("https://example.com/b.jpg", ROWS[1][1]))),
    Kind("A5 side files", _side_files),
    Kind("A6 text that is not UTF-8", _text(lambda data: data.replace(b"two", b"tw\xff")), 0, "UTF-8", True, _is_text),
    Kind("A6 a cell that is not UTF-8", _bad_utf8, 1, "not UTF-8", False, lambda layout: bool(layout.positive)),
    Kind("A7 a photo with a second picture", _picture(
        jpeg(format="MPO", save_all=True, append_images=[Image.new("RGB", (60, 60), "blue")]))),
    Kind("A7 damaged EXIF in a JPEG", _picture(_with_exif(jpeg()))),
    Kind("A7 damaged EXIF in a PNG", _picture(jpeg(format="PNG", exif=b"Exif\0\0MM\0*\xff\xff"))),
    Kind("A7 damaged EXIF in a WebP", _picture(jpeg(format="WEBP", exif=b"Exif\0\0MM\0*\xff\xff"))),
    Kind("A7 a large profile in a PNG", _picture(jpeg(format="PNG", icc_profile=bytes(2**21)))),
    Kind("A7 half of a picture", _picture(jpeg()[:300]), 1, "not a whole"),
    Kind("A8 a decomposed name", _decomposed),
    Kind("A8 a decomposed row", lambda _: None,
         captioned=((unicodedata.normalize("NFD", "café.jpg"), ROWS[0][1]), ROWS[1])),
    Kind("A8 a name from Windows", lambda _: None, fits=_names_pictures,
         captioned=((".\\café.jpg", ROWS[0][1]), ("./b.jpg", ROWS[1][1]))),
    Kind("A8 a zip of macOS", _zipped),
    Kind("A8 another case", _capitals, 1, "did you mean b.JPG?"),
    Kind("A8 no such picture", _gone, 1, "no such file"),
)  # fmt: skip
