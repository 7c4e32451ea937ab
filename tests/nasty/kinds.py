"""Ways in which files that people make are unlike the example, and what an importer makes of each: one line a kind."""

import csv
import gzip
import io
import json
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
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
    more: list[Path] = field(default_factory=list)
    """Other sources."""


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
    has_pictures: bool = True
    """Whether its rows still name pictures."""
    options: tuple[str, ...] = ()


def jpeg(color: str = "red", **saved: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (60, 60), color).save(out, saved.pop("format", "JPEG"), **saved)
    return out.getvalue()


def _text(change: Callable[[bytes], bytes]) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        for path in made.text:
            path.write_bytes(change(path.read_bytes()))

    return spoil


def _marked(made: Made) -> None:
    """Each line begins with the mark, as where files of a line were put together."""
    for path in made.text:
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(b"\xef\xbb\xbf" + line for line in lines))


def _blank_lines(made: Made) -> None:
    """Around the rows and between them; the first line of a caption's file stays the first."""
    for path in made.text:
        before = b"" if path.suffix == ".txt" else b" \r\n\n"
        path.write_bytes(before + path.read_bytes().replace(b"\n", b"\n\n \n") + b"\r\n\n")


def _picture(data: bytes) -> Callable[[Made], None]:
    """The second picture's bytes."""
    return lambda made: (made.images / "b.jpg").write_bytes(data) and None


def _large(made: Made) -> None:
    """As clip art is, and as no phone takes it."""
    out = io.BytesIO()
    Image.new("1", (10_562, 16_000)).save(out, "PNG")
    (made.images / "b.jpg").write_bytes(out.getvalue())


def _bomb(made: Made) -> None:
    """A kilobyte that says it is a gigapixel."""
    data = jpeg(format="PNG")
    header = data[12:16] + struct.pack(">II", 32_000, 32_000) + data[24:29]
    made.images.joinpath("b.jpg").write_bytes(
        data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    )


def _side_files(made: Made) -> None:
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


def _linked(made: Made) -> None:
    """As the hub's cache holds files: each is a link to one elsewhere, named by its hash."""
    blobs = made.images.parent.parent / "blobs"
    blobs.mkdir()
    sources = [path for path in made.source.parent.rglob("*") if path.is_file()] + list(
        made.images.iterdir()
    )
    for number, path in enumerate(dict.fromkeys(sources)):
        path.rename(blobs / str(number)).touch()
        path.symlink_to(blobs / str(number))


def _linked_folder(made: Made) -> None:
    """The pictures lie on another disk."""
    made.images.rename(made.images.parent.parent / "elsewhere")
    made.images.mkdir()
    for name, _ in ROWS:
        (made.images / name).symlink_to(made.images.parent.parent / "elsewhere" / name)


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


def _times(kind: pa.DataType) -> Callable[[Made], None]:
    """Beside the rows, and where the second row's caption belongs, a time that Python cannot hold."""

    def spoil(made: Made) -> None:
        cells = [{"bytes": None, "path": name} for name, _ in ROWS]
        captions = [caption for _, caption in ROWS]
        table = pa.table({made.layout.picture: cells, made.layout.positive: captions})
        table = table.append_column("taken", pa.array([2**61, 2**61]).cast(kind))
        made.source = made.layout.table(made.source.parent / "table", table)

    return spoil


def _time_for_text(made: Made) -> None:
    cells = [{"bytes": None, "path": name} for name, _ in ROWS]
    times = pa.array([2**61, 2**61]).cast(pa.timestamp("us"))
    table = pa.table({made.layout.picture: cells, made.layout.positive: times})
    made.source = made.layout.table(made.source.parent / "table", table)


def _pictures(kind: pa.DataType) -> Callable[[Made], None]:
    """The pictures stand in the table."""

    def spoil(made: Made) -> None:
        data = [(made.images / name).read_bytes() for name, _ in ROWS]
        cells = (
            [{"bytes": one, "path": "c.jpg"} for one in data] if pa.types.is_struct(kind) else data
        )
        _as_table(made, pa.array(cells, kind))

    return spoil


def _named(made: Made) -> None:
    _as_table(made, [{"bytes": None, "path": name} for name, _ in ROWS])
    made.source = made.source.rename(made.source.with_name("rows.PARQUET"))


def _struct_for_text(made: Made) -> None:
    """A column of pictures, as large as they are, where texts are expected."""
    table = pa.table(
        {
            _query(made): [{"bytes": bytes(90_000), "path": "c"}] * 2,
            made.layout.positive: ["a", "b"],
        }
    )
    made.source = made.layout.table(made.source.parent / "table", table)


def _wide(made: Made) -> None:
    """Three thousand columns of somebody else's."""
    lines = made.source.read_bytes().splitlines()
    more = {f"column_{number}": number for number in range(3000)}
    rows = [json.dumps({**json.loads(line), **more}) for line in lines]
    made.source.write_text("\n".join(rows), encoding="utf-8")


def _extra(made: Made) -> None:
    """An index of pandas, and a column that is a list of structs."""
    table = pq.read_table(io.BytesIO(_parquet(made)))
    table = table.append_column("__index_level_0__", pa.array([0, 1]))
    table = table.append_column("boxes", pa.array([[{"x": 1}], []]))
    made.source = made.layout.table(made.source.parent / "table", table)


def _parquet(made: Made) -> bytes:
    out = io.BytesIO()
    cells = [{"bytes": None, "path": name} for name, _ in ROWS]
    table = pa.table(
        {made.layout.picture: cells, made.layout.positive: [caption for _, caption in ROWS]}
    )
    pq.write_table(table, out)
    return out.getvalue()


def _two_files(made: Made) -> None:
    """Two parts of one table in a folder, one of them compressed; beside them what is no table."""
    folder = made.source.parent / "parts"
    folder.mkdir()
    first, second = made.source.read_bytes().splitlines(keepends=True)
    (folder / "part-0.jsonl").write_bytes(first)
    (folder / "part-1.JSONL.gz").write_bytes(gzip.compress(second))
    (folder / "README.md").write_text("About the data")
    made.source = folder


def _both_files(made: Made) -> None:
    _two_files(made)
    made.source, *made.more = sorted(path for path in made.source.iterdir() if "part" in path.name)


def _pattern(made: Made) -> None:
    _two_files(made)
    made.source = made.source / "part-*"


def _called(name: str) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        made.source = made.source.rename(made.source.with_name(name))

    return spoil


def _query(made: Made) -> str:
    return made.layout.query or made.layout.picture


def _sheet(name: str, separator: str, twice: bool = False, long: int = 0) -> Callable[[Made], None]:
    """A table of texts, as a spreadsheet saves it."""

    def spoil(made: Made) -> None:
        made.source = made.source.with_name(name)
        with made.source.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file, delimiter=separator)
            names = [_query(made), made.layout.positive, "a note"]
            writer.writerow(names + names[:1] * twice)
            for number, (_, caption) in enumerate(ROWS):
                writer.writerow(
                    [f"what is {number}?\nsay it" + "x" * long, caption, "", *["again"] * twice]
                )

    return spoil


def _open_quote(name: str) -> Callable[[Made], None]:
    """A caption that begins with a quotation mark, which nothing closes: what follows would be its text."""

    def spoil(made: Made) -> None:
        separator = "\t" if name.endswith("tsv") else ","
        made.source = made.source.with_name(name)
        rows = [
            (_query(made), made.layout.positive),
            ("one", "right"),
            ("two", '"wide'),
            ("three", "left"),
        ]
        made.source.write_text("".join(separator.join(row) + "\n" for row in rows))

    return spoil


def _pointers(made: Made) -> None:
    """A clone without Git LFS."""
    for path in [path for path in made.source.rglob("*") if path.is_file()] or [made.source]:
        path.write_bytes(LFS)


def _zip_pointer(made: Made) -> None:
    for name, _ in ROWS:
        (made.images / name).unlink()
    (made.images / "photos.zip").write_bytes(LFS)


def _beside(made: Made) -> None:
    """What the hub and the library `datasets` put beside a table."""
    made.source = made.source.rename(_folder(made) / "train.jsonl").parent
    for name in ("dataset_info.json", "dataset_infos.json", "state.json", "config.json"):
        (made.source / name).write_text('{\n  "features": {}\n}')


def _folder(made: Made) -> Path:
    folder = made.source.parent / "rows"
    folder.mkdir()
    return folder


def _arrow(write: Callable[..., pa.ipc.RecordBatchStreamWriter]) -> Callable[[Made], None]:
    """As `save_to_disk` of `datasets` writes rows, or pandas' `to_feather`."""

    def spoil(made: Made) -> None:
        table = pq.read_table(io.BytesIO(_parquet(made)))
        made.source = _folder(made)
        with write(str(made.source / "data-00000-of-00001.arrow"), table.schema) as writer:
            writer.write_table(table, max_chunksize=1)

    return spoil


def _missing_as_nan(made: Made) -> None:
    """pandas writes NaN where a row has no value."""
    lines = [json.loads(line) for line in made.source.read_bytes().splitlines()]
    more = {"subset": float("nan"), "negative": float("nan"), "query_text": float("nan")}
    known = {
        name: value
        for name, value in more.items()
        if name == "negative" or made.layout.name == "pairs"
    }
    made.source.write_text(
        "\n".join(json.dumps({**line, **known}) for line in lines), encoding="utf-8"
    )


def _other_ids(cells: pa.Array) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        table = pq.read_table(io.BytesIO(_parquet(made))).append_column("query_id", cells)
        made.source = made.layout.table(made.source.parent / "table", table)

    return spoil


def _one_object(made: Made) -> None:
    made.source = made.source.with_name("rows.json")
    made.source.write_text(json.dumps({"data": [{made.layout.positive: "one"}]}, indent=2))


def _trailing(made: Made) -> None:
    """As a spreadsheet saves columns that somebody emptied."""
    made.source = made.source.with_name("rows.csv")
    rows = [
        (_query(made), made.layout.positive),
        *((f"what is {at}?", caption) for at, (_, caption) in enumerate(ROWS)),
    ]
    made.source.write_text(
        "".join(",".join((*row, "", "")) + "\n" for row in rows), encoding="utf-8"
    )


def _encrypted(made: Made) -> None:
    _zipped(made)
    data = bytearray((made.images / "photos.zip").read_bytes())
    place = data.rindex(b"PK\x01\x02", 0, data.rindex(b"b.jpg", 0, data.rindex(b"__MACOSX")))
    data[place + 8] |= 1
    (made.images / "photos.zip").write_bytes(data)


def _in_a_folder(made: Made) -> None:
    with zipfile.ZipFile(made.images / "photos.zip", "w") as archive:
        archive.writestr("train/2017/b.jpg", (made.images / "b.jpg").read_bytes())
    (made.images / "b.jpg").unlink()


def _png(*chunks: tuple[bytes, bytes, int]) -> bytes:
    """A picture with more chunks, each with what is wrong with its checksum."""
    more = b""
    for name, content, wrong in chunks:
        more += len(content).to_bytes(4, "big") + name + content
        more += (zlib.crc32(name + content) ^ wrong).to_bytes(4, "big")
    data = jpeg("blue", format="PNG")
    return data[:33] + more + data[33:]


def _duplicate_column(made: Made) -> None:
    arrays = [pa.array(["a", "b"]), pa.array(["c", "d"]), pa.array(["e", "f"])]
    names = [_query(made), made.layout.positive, made.layout.positive]
    made.source = made.layout.table(
        made.source.parent / "table", pa.Table.from_arrays(arrays, names)
    )


def _duplicate_key(made: Made) -> None:
    positive = made.layout.positive
    made.source.write_text(f'{{"{positive}": "one", "{positive}": "two"}}\n', encoding="utf-8")


def _tuples(*more: dict[str, object], positive: str = "positive") -> Callable[[Made], None]:
    """The rows with more columns, and another name for the positive's."""

    def spoil(made: Made) -> None:
        rows = [json.loads(line) for line in made.source.read_bytes().splitlines()]
        lines = []
        for row, columns in zip(rows, more, strict=True):
            lines.append(json.dumps(row | {positive: row.pop("positive")} | columns))
        made.source.write_text("\n".join(lines), encoding="utf-8")

    return spoil


def _scored(first: Sequence[float], second: Sequence[float]) -> Callable[[Made], None]:
    return _tuples({"negative": "other", "scores": first}, {"negative": "other", "scores": second})


def _listed(made: Made) -> None:
    """Lists of documents, of which one answers."""
    rows = [json.loads(line) for line in made.source.read_bytes().splitlines()]
    cells = [
        {"query": row["anchor"], "documents": ["other", row["positive"]], "labels": [0, 1]}
        for row in rows
    ]
    made.source.write_text("\n".join(map(json.dumps, cells)), encoding="utf-8")


def _is_tuples(layout: Layout) -> bool:
    return layout.name == "sentence-transformers"


def _ids(made: Made) -> None:
    cells = [{"bytes": None, "path": name} for name, _ in ROWS]
    captions = [caption for _, caption in ROWS]
    columns = {
        "query_image": cells,
        "positive_text": captions,
        "query_id": pa.array([7, 8]),
        "subset": [1, 1],
    }
    made.source = made.layout.table(made.source.parent / "table", pa.table(columns))


def _has_texts(layout: Layout) -> bool:
    """Whether a column holds texts alone."""
    return layout.free_columns and bool(layout.query)


def _reads_any_table(layout: Layout) -> bool:
    return layout.free_columns


def _has_ids(layout: Layout) -> bool:
    return layout.name == "pairs"


def _is_text(layout: Layout) -> bool:
    return bool(layout.text)


def _names_pictures(layout: Layout) -> bool:
    """Urban1K's pictures are called like its captions."""
    return layout.name != "urban1k"


def _with_exif(data: bytes) -> bytes:
    """Side data that ends in the middle."""
    return data[:2] + b"\xff\xe1\x00\x10Exif\x00\x00MM\x00*\xff\xff\xff\xff" + data[2:]


def _has_files(layout: Layout) -> bool:
    """Whether it reads a file of its own, not the names of pictures."""
    return layout.name != "urban1k"


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
BASE64 = "iVBORw0KGgoAAAANSUhEUg" * 2000

KINDS = (
    Kind("nothing", lambda _: None),
    Kind("A1 a byte-order mark", _text(lambda data: b"\xef\xbb\xbf" + data), fits=_is_text),
    Kind("A1 marks of files that were put together", _marked, fits=_reads_any_table),
    Kind("A1 UTF-16", _text(lambda data: data.decode().encode("utf-16")), 0, "is UTF-16", True, _is_text),
    Kind("A1 UTF-16, no mark", _text(lambda data: data.decode().encode("utf-16-le")), 0, "is UTF-16", True, _is_text),
    Kind("A1 UTF-32", _text(lambda data: data.decode().encode("utf-32")), 0, "is UTF-32", True, _is_text),
    Kind("A2 blank lines", _blank_lines, fits=_is_text),
    Kind("A2 Windows' line ends", _text(lambda data: data.replace(b"\n", b"\r\n")), fits=_is_text),
    Kind("A3 base64 for a name", lambda _: None, 1, "base64 text, not a path", False, _names_pictures,
         (ROWS[0], (BASE64, ROWS[1][1]))),
    Kind("A3 base64 of a small picture", lambda _: None, 1, "base64 text, not a path", False, _names_pictures,
         (ROWS[0], (BASE64[:150], ROWS[1][1]))),
    Kind("A3 a data: URL", lambda _: None, 1, "a data: URL, not a path", False, _names_pictures,
         (ROWS[0], ("data:image/png;base64," + BASE64, ROWS[1][1]))),
    Kind("A3 a URL", lambda _: None, 1, "a URL, not a path", False, _names_pictures,
         (ROWS[0], ("https://example.com/b.jpg", ROWS[1][1]))),
    Kind("A5 side files", _side_files),
    Kind("A6 text that is not UTF-8", _text(lambda data: data.replace(b"two", b"tw\xff")), 0, "UTF-8", True, _is_text),
    Kind("A6 a cell that is not UTF-8", _bad_utf8, 1, "not UTF-8", False, lambda layout: bool(layout.positive)),
    Kind("A6 times out of range", _times(pa.timestamp("us")), fits=_reads_any_table),
    Kind("A6 times with nanoseconds", _times(pa.timestamp("ns")), fits=_reads_any_table),
    Kind("A6 times for texts", _time_for_text, 0, "column 'positive", True, _reads_any_table),
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
    Kind("text of Windows", _text(lambda data: data.replace(b"street", b"stra\xdfe")), 0, "in Excel choose CSV UTF-8",
         True, _is_text),
    Kind("a sheet of Excel", _text(lambda _: b"PK\3\4" + bytes(90)), 0, "is a zip archive (.xlsx", True, _is_text),
    Kind("a page for rows", _text(lambda _: b"\n<!DOCTYPE html><html>404</html>"), 0, "is a web page, which a", True,
         _is_text),
    Kind("compressed rows without the ending", _text(gzip.compress), 0, "add .gz to its name", True, _is_text),
    Kind("a path of a Windows disk", lambda _: None, 1, "it is a path of a Windows disk", False, _names_pictures,
         captioned=((ROWS[0][0], ROWS[0][1]), ("C:\\photos\\b.jpg", ROWS[1][1]))),
    Kind("a pointer for rows", _pointers, 0, "is a pointer of Git LFS, not the file itself; fetch it: git lfs", True,
         _has_files),
    Kind("a pointer for a picture", _picture(LFS), 1, "but a pointer of Git LFS, not the file itself; fetch it"),
    Kind("a pointer for a zip", _zip_pointer, 0, "photos.zip: is a pointer of Git LFS", True),
    Kind("a HEIC called .jpg", _picture(b"\0\0\0\x18ftypheic" + bytes(90)), 1, "image, but a HEIC; convert it"),
    Kind("a GIF called .jpg", _picture(jpeg(format="GIF")), 1, "image, but a GIF; convert it"),
    Kind("a TIFF called .jpg", _picture(jpeg(format="TIFF")), 1, "image, but a TIFF; convert it"),
    Kind("a page for a picture", _picture(b" <!DOCTYPE html><html>404</html>"), 1, "which a server sent instead of a"),
    Kind("an empty picture", _picture(b""), 1, "but an empty file; download it again"),
    Kind("a spoiled chunk of side data in a PNG", _picture(_png((b"tEXt", b"a\0b", 1), (b"eXIf", b"MM\0*", 1)))),
    Kind("a zip with a password", _encrypted, 1, "encrypted in its zip file; unpack it, and set --images to"),
    Kind("a zip with more folders", _in_a_folder, 1, "did you mean train/2017/b.jpg?"),
    Kind("a name with %20", lambda _: None, 1, "did you mean b.jpg?", False, _names_pictures,
         (ROWS[0], ("%62.jpg ", ROWS[1][1]))),
    Kind("a file:// URL", lambda _: None, 1, "a file:// URL; name the file by its path", False, _names_pictures,
         (ROWS[0], ("file:///data/b.jpg", ROWS[1][1]))),
    Kind("links of a cache", _linked),
    Kind("linked pictures", _linked_folder),
    Kind("A8 another case", _capitals, 1, "did you mean b.JPG?"),
    Kind("A8 no such picture", _gone, 1, "no such file"),
    Kind("A3 pictures for texts", _struct_for_text, 0, "90,000 bytes, 'path': 'c'} is no text", True, _has_texts),
    Kind("A3 many columns", _wide, fits=_reads_any_table),
    Kind("A3 many columns, refused", _wide, 0, "and 2,995 more", True, _reads_any_table, options=("--strict",)),
    Kind("A4 structs of bytes", _pictures(pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
         fits=_reads_any_table),
    Kind("A4 bytes", _pictures(pa.binary()), fits=_reads_any_table),
    Kind("A4 large bytes", _pictures(pa.large_binary()), fits=_reads_any_table),
    Kind("A4 structs of paths in a .PARQUET", _named, fits=_reads_any_table),
    Kind("A9 a folder of parts", _two_files, fits=_reads_any_table),
    Kind("A9 several files", _both_files, fits=_reads_any_table),
    Kind("A9 a pattern", _pattern, fits=_reads_any_table),
    Kind("A9 lines called .json", _called("rows.json"), fits=_reads_any_table),
    Kind("A9 a .tsv", _sheet("rows.TSV", "\t"), fits=_reads_any_table, has_pictures=False),
    Kind("A9 another ending", _called("rows.xlsx"), 0, "expected a .parquet, .jsonl", True, _reads_any_table),
    Kind("A10 whole numbers for ids", _ids, fits=_has_ids),
    Kind("A10 columns of others", _extra, fits=_reads_any_table),
    Kind("A10 a column twice", _duplicate_column, 0, "duplicate column", True, _reads_any_table),
    Kind("A10 a column twice in a CSV", _sheet("rows.csv", ",", twice=True), 0, "duplicate column", True,
         _reads_any_table),
    Kind("A10 a key twice", _duplicate_key, 0, "duplicate key", True, _reads_any_table),
    Kind("A10 semicolons", _sheet("rows.csv", ";"), 0, "semicolons", True, _reads_any_table),
    Kind("files of the hub beside the rows", _beside, fits=_reads_any_table),
    Kind("a stream of Arrow", _arrow(pa.ipc.new_stream), fits=_reads_any_table),
    Kind("a file of Arrow", _arrow(pa.ipc.new_file), fits=_reads_any_table),
    Kind("NaN for no value", _missing_as_nan, fits=_reads_any_table),
    Kind("one object over several lines", _one_object, 0, "is one object over several lines, not rows", True,
         _reads_any_table),
    Kind("whole numbers in floats for ids", _other_ids(pa.array([7.0, None])), fits=_has_ids),
    Kind("decimals for ids", _other_ids(pa.array([Decimal(7), Decimal(8)])), fits=_has_ids),
    Kind("UUIDs for ids", _other_ids(pa.array([bytes(16), bytes(15) + b"1"], pa.uuid())), fits=_has_ids),
    Kind("floats for ids", _other_ids(pa.array([7.5, 1e300])), 0, "7.5 is no text", True, _has_ids),
    Kind("empty columns at the end of a sheet", _trailing, fits=_reads_any_table, has_pictures=False),
    Kind("an open quotation mark", _open_quote("rows.csv"), 0, "rows.csv:3: the quotation marks of that row are not in",
         True, _reads_any_table),
    Kind("an open quotation mark in a .tsv", _open_quote("rows.tsv"), 0, "rows.tsv:3: the quotation marks", True,
         _reads_any_table),
    Kind("A11 cosines for scores", _scored([0.8, -0.25], [0.7, 0.1]), fits=_is_tuples, options=("--scores", "SCORES")),
    Kind("A11 logits for scores", _scored([7.5, -3.25], [0.5, 2]), fits=_is_tuples, options=("--scores", "SCORES")),
    Kind("A11 logits, refused", _scored([0.7, 0.5], [7.5, -3.25]), 1, "score 7.5 is not a probability", False,
         _is_tuples, options=("--scores", "SCORES", "--probabilities")),
    Kind("A11 a lone score", _tuples({"score": 1}, {"score": 0.76}), 1, "does not decide whether the pair matches",
         False, _is_tuples),
    Kind("A11 a labelled mismatch", _tuples({"label": 1}, {"label": 0}), 1, "a labelled mismatch", False, _is_tuples),
    Kind("A11 mismatches alone", _tuples({"label": 0}, {"label": 0}), 0,
         "0 of 2 rows rejected and 2 labelled mismatches", True, _is_tuples),
    Kind("A11 an answer", _tuples({}, {}, positive="answer"), fits=_is_tuples),
    Kind("A11 a score beside an answer", _tuples({"score": [0.9]}, {"score": [0.8]}, positive="answer"),
         fits=_is_tuples, options=("--scores", "SCORES")),
    Kind("A11 lists of documents", _listed, fits=_is_tuples),
    Kind("D1 a picture of 169 megapixels", _large, fits=lambda layout: layout.name == "pairs"),
    Kind("D1 a picture of a gigapixel", _bomb, 1, "200000000"),
    Kind("A12 a long cell with lines", _sheet("rows.csv", ",", long=200_000), fits=_reads_any_table,
         has_pictures=False),
)  # fmt: skip
