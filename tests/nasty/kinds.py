"""Faults in files that people make, and the result of an import of each fault. Each fault has one line."""

import gzip
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import pyarrow as pa
from PIL import Image

from tests.nasty.layouts import Layout
from tests.nasty.made import LFS, ROWS, Made
from tests.nasty.pictures import (
    bomb,
    capitals,
    decomposed,
    encrypted,
    gone,
    in_a_folder,
    jpeg,
    large,
    linked,
    linked_folder,
    png_with,
    second_picture,
    side_files,
    with_exif,
    zip_pointer,
    zipped,
)
from tests.nasty.tables import (
    arrow,
    bad_utf8,
    duplicate_column,
    extra,
    inner_pictures,
    named_pictures,
    other_ids,
    struct_for_text,
    time_for_text,
    times,
    whole_ids,
)
from tests.nasty.texts import (
    beside,
    blank_lines,
    both_files,
    duplicate_key,
    listed,
    marked,
    missing_as_nan,
    one_object,
    open_quote,
    pattern,
    pointers,
    renamed,
    rewrite,
    scored,
    sheet,
    trailing,
    tuples,
    two_files,
    wide,
)


@dataclass(frozen=True)
class Kind:
    """One way to damage the files, and the result."""

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


def _is_tuples(layout: Layout) -> bool:
    return layout.name == "sentence-transformers"


def _has_texts(layout: Layout) -> bool:
    """Whether a column contains only texts."""
    return layout.free_columns and bool(layout.query)


def _reads_any_table(layout: Layout) -> bool:
    return layout.free_columns


def _has_ids(layout: Layout) -> bool:
    return layout.name == "pairs"


def _is_text(layout: Layout) -> bool:
    return bool(layout.text)


def _names_pictures(layout: Layout) -> bool:
    """In Urban1K, the pictures have the names of the captions."""
    return layout.name != "urban1k"


def _has_files(layout: Layout) -> bool:
    """Whether the layout reads a file of rows, and not only the names of pictures."""
    return layout.name != "urban1k"


BASE64 = "iVBORw0KGgoAAAANSUhEUg" * 2000

KINDS = (
    Kind("nothing", lambda _: None),
    Kind("a byte-order mark", rewrite(lambda data: b"\xef\xbb\xbf" + data), fits=_is_text),
    Kind("marks of files that were put together", marked, fits=_reads_any_table),
    Kind("UTF-16", rewrite(lambda data: data.decode().encode("utf-16")), 0, "is UTF-16", True, _is_text),
    Kind("UTF-16, no mark", rewrite(lambda data: data.decode().encode("utf-16-le")), 0, "is UTF-16", True, _is_text),
    Kind("UTF-32", rewrite(lambda data: data.decode().encode("utf-32")), 0, "is UTF-32", True, _is_text),
    Kind("blank lines", blank_lines, fits=_is_text),
    Kind("Windows' line ends", rewrite(lambda data: data.replace(b"\n", b"\r\n")), fits=_is_text),
    Kind("base64 for a name", lambda _: None, 1, "base64 text, not a path", False, _names_pictures,
         (ROWS[0], (BASE64, ROWS[1][1]))),
    Kind("base64 of a small picture", lambda _: None, 1, "base64 text, not a path", False, _names_pictures,
         (ROWS[0], (BASE64[:150], ROWS[1][1]))),
    Kind("a data: URL", lambda _: None, 1, "a data: URL, not a path", False, _names_pictures,
         (ROWS[0], ("data:image/png;base64," + BASE64, ROWS[1][1]))),
    Kind("a URL", lambda _: None, 1, "a URL, not a path", False, _names_pictures,
         (ROWS[0], ("https://example.com/b.jpg", ROWS[1][1]))),
    Kind("side files", side_files),
    Kind("text that is not UTF-8", rewrite(lambda data: data.replace(b"two", b"tw\xff")), 0, "UTF-8", True,
         _is_text),
    Kind("a cell that is not UTF-8", bad_utf8, 1, "not UTF-8", False, lambda layout: bool(layout.positive)),
    Kind("times out of range", times(pa.timestamp("us")), fits=_reads_any_table),
    Kind("times with nanoseconds", times(pa.timestamp("ns")), fits=_reads_any_table),
    Kind("times for texts", time_for_text, 0, "column 'positive", True, _reads_any_table),
    Kind("a photo with a second picture", second_picture(
        jpeg(format="MPO", save_all=True, append_images=[Image.new("RGB", (60, 60), "blue")]))),
    Kind("damaged EXIF in a JPEG", second_picture(with_exif(jpeg()))),
    Kind("damaged EXIF in a PNG", second_picture(jpeg(format="PNG", exif=b"Exif\0\0MM\0*\xff\xff"))),
    Kind("damaged EXIF in a WebP", second_picture(jpeg(format="WEBP", exif=b"Exif\0\0MM\0*\xff\xff"))),
    Kind("a large profile in a PNG", second_picture(jpeg(format="PNG", icc_profile=bytes(2**21)))),
    Kind("half of a picture", second_picture(jpeg()[:300]), 1, "not a whole"),
    Kind("a decomposed name", decomposed),
    Kind("a decomposed row", lambda _: None,
         captioned=((unicodedata.normalize("NFD", "café.jpg"), ROWS[0][1]), ROWS[1])),
    Kind("a name from Windows", lambda _: None, fits=_names_pictures,
         captioned=((".\\café.jpg", ROWS[0][1]), ("./b.jpg", ROWS[1][1]))),
    Kind("a zip of macOS", zipped),
    Kind("text of Windows", rewrite(lambda data: data.replace(b"street", b"stra\xdfe")), 0, "In Excel choose CSV UTF-8",
         True, _is_text),
    Kind("a sheet of Excel", rewrite(lambda _: b"PK\3\4" + bytes(90)), 0, "is a zip archive (.xlsx", True, _is_text),
    Kind("a page for rows", rewrite(lambda _: b"\n<!DOCTYPE html><html>404</html>"), 0, "is a web page, which a", True,
         _is_text),
    Kind("compressed rows without the ending", rewrite(gzip.compress), 0, "Add .gz to its name", True, _is_text),
    Kind("a path of a Windows disk", lambda _: None, 1, "It is a path of a Windows disk", False, _names_pictures,
         captioned=((ROWS[0][0], ROWS[0][1]), ("C:\\photos\\b.jpg", ROWS[1][1]))),
    Kind("a pointer for rows", pointers, 0, "is a pointer of Git LFS, not the file itself. Fetch it: git lfs", True,
         _has_files),
    Kind("a pointer for a picture", second_picture(LFS), 1, "but a pointer of Git LFS, not the file itself. Fetch it"),
    Kind("a pointer for a zip", zip_pointer, 0, "photos.zip: is a pointer of Git LFS", True),
    Kind("a HEIC called .jpg", second_picture(b"\0\0\0\x18ftypheic" + bytes(90)), 1, "image, but a HEIC. Convert it"),
    Kind("a GIF called .jpg", second_picture(jpeg(format="GIF")), 1, "image, but a GIF. Convert it"),
    Kind("a TIFF called .jpg", second_picture(jpeg(format="TIFF")), 1, "image, but a TIFF. Convert it"),
    Kind("a page for a picture", second_picture(b" <!DOCTYPE html><html>404</html>"), 1,
         "which a server sent instead of a"),
    Kind("an empty picture", second_picture(b""), 1, "but an empty file. Download it again"),
    Kind("a spoiled chunk of side data in a PNG",
         second_picture(png_with((b"tEXt", b"a\0b", 1), (b"eXIf", b"MM\0*", 1)))),
    Kind("a zip with a password", encrypted, 1, "encrypted in its zip file. Unpack it, and set --images to"),
    Kind("a zip with more folders", in_a_folder, 1, "Did you mean train/2017/b.jpg?"),
    Kind("a name with %20", lambda _: None, 1, "Did you mean b.jpg?", False, _names_pictures,
         (ROWS[0], ("%62.jpg ", ROWS[1][1]))),
    Kind("a file:// URL", lambda _: None, 1, "a file:// URL. Name the file by its path", False, _names_pictures,
         (ROWS[0], ("file:///data/b.jpg", ROWS[1][1]))),
    Kind("links of a cache", linked),
    Kind("linked pictures", linked_folder),
    Kind("another case", capitals, 1, "Did you mean b.JPG?"),
    Kind("no such picture", gone, 1, "no such file"),
    Kind("pictures for texts", struct_for_text, 0, "90,000 bytes, 'path': 'c'} is not a text", True, _has_texts),
    Kind("many columns", wide, fits=_reads_any_table),
    Kind("many columns, refused", wide, 0, "and 2,995 more", True, _reads_any_table, options=("--strict",)),
    Kind("structs of bytes", inner_pictures(pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
         fits=_reads_any_table),
    Kind("bytes", inner_pictures(pa.binary()), fits=_reads_any_table),
    Kind("large bytes", inner_pictures(pa.large_binary()), fits=_reads_any_table),
    Kind("structs of paths in a .PARQUET", named_pictures, fits=_reads_any_table),
    Kind("a folder of parts", two_files, fits=_reads_any_table),
    Kind("several files", both_files, fits=_reads_any_table),
    Kind("a pattern", pattern, fits=_reads_any_table),
    Kind("lines called .json", renamed("rows.json"), fits=_reads_any_table),
    Kind("a .tsv", sheet("rows.TSV", "\t"), fits=_reads_any_table, has_pictures=False),
    Kind("another ending", renamed("rows.xlsx"), 0, "expected a .parquet, .jsonl", True, _reads_any_table),
    Kind("whole numbers for ids", whole_ids, fits=_has_ids),
    Kind("columns of others", extra, fits=_reads_any_table),
    Kind("a column twice", duplicate_column, 0, "duplicate column", True, _reads_any_table),
    Kind("a column twice in a CSV", sheet("rows.csv", ",", twice=True), 0, "duplicate column", True,
         _reads_any_table),
    Kind("a key twice", duplicate_key, 0, "duplicate key", True, _reads_any_table),
    Kind("semicolons", sheet("rows.csv", ";"), 0, "semicolons", True, _reads_any_table),
    Kind("files of the hub beside the rows", beside, fits=_reads_any_table),
    Kind("a stream of Arrow", arrow(pa.ipc.new_stream), fits=_reads_any_table),
    Kind("a file of Arrow", arrow(pa.ipc.new_file), fits=_reads_any_table),
    Kind("NaN for no value", missing_as_nan, fits=_reads_any_table),
    Kind("one object over several lines", one_object, 0, "is one object over several lines, not rows", True,
         _reads_any_table),
    Kind("whole numbers in floats for ids", other_ids(pa.array([7.0, None])), fits=_has_ids),
    Kind("decimals for ids", other_ids(pa.array([Decimal(7), Decimal(8)])), fits=_has_ids),
    Kind("UUIDs for ids", other_ids(pa.array([bytes(16), bytes(15) + b"1"], pa.uuid())), fits=_has_ids),
    Kind("floats for ids", other_ids(pa.array([7.5, 1e300])), 0, "7.5 is not a text", True, _has_ids),
    Kind("empty columns at the end of a sheet", trailing, fits=_reads_any_table, has_pictures=False),
    Kind("an open quotation mark", open_quote("rows.csv"), 0, "rows.csv:3: the quotation marks of that row are not in",
         True, _reads_any_table),
    Kind("an open quotation mark in a .tsv", open_quote("rows.tsv"), 0, "rows.tsv:3: the quotation marks", True,
         _reads_any_table),
    Kind("cosines for scores", scored([0.8, -0.25], [0.7, 0.1]), fits=_is_tuples, options=("--scores", "SCORES")),
    Kind("logits for scores", scored([7.5, -3.25], [0.5, 2]), fits=_is_tuples, options=("--scores", "SCORES")),
    Kind("logits, refused", scored([0.7, 0.5], [7.5, -3.25]), 1, "score 7.5 is not a probability", False,
         _is_tuples, options=("--scores", "SCORES", "--probabilities")),
    Kind("a lone score", tuples({"score": 1}, {"score": 0.76}), 1, "does not decide whether the pair matches",
         False, _is_tuples),
    Kind("a labelled mismatch", tuples({"label": 1}, {"label": 0}), 1, "a labelled mismatch", False, _is_tuples),
    Kind("mismatches alone", tuples({"label": 0}, {"label": 0}), 0,
         "0 of 2 rows rejected and 2 labelled mismatches", True, _is_tuples),
    Kind("an answer", tuples({}, {}, positive="answer"), fits=_is_tuples),
    Kind("a score beside an answer", tuples({"score": [0.9]}, {"score": [0.8]}, positive="answer"),
         fits=_is_tuples, options=("--scores", "SCORES")),
    Kind("lists of documents", listed, fits=_is_tuples),
    Kind("a picture of 169 megapixels", large, fits=lambda layout: layout.name == "pairs"),
    Kind("a picture of a gigapixel", bomb, 1, "200000000"),
    Kind("a long cell with lines", sheet("rows.csv", ",", long=200_000), fits=_reads_any_table,
         has_pictures=False),
)  # fmt: skip
