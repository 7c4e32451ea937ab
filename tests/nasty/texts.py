"""Ways to damage rows in text files: lines, tables, JSON, and the files beside them."""

import csv
import gzip
import json
from collections.abc import Callable, Sequence

from tests.nasty.made import LFS, ROWS, Made, new_folder, query_column


def rewrite(change: Callable[[bytes], bytes]) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        for path in made.text:
            path.write_bytes(change(path.read_bytes()))

    return spoil


def marked(made: Made) -> None:
    """Each line begins with a byte order mark, as after joining files of one line each."""
    for path in made.text:
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(b"\xef\xbb\xbf" + line for line in lines))


def blank_lines(made: Made) -> None:
    """Blank lines around the rows and between them. The first line of a caption file stays the first line."""
    for path in made.text:
        before = b"" if path.suffix == ".txt" else b" \r\n\n"
        path.write_bytes(before + path.read_bytes().replace(b"\n", b"\n\n \n") + b"\r\n\n")


def wide(made: Made) -> None:
    """Three thousand additional columns."""
    lines = made.source.read_bytes().splitlines()
    more = {f"column_{number}": number for number in range(3000)}
    rows = [json.dumps({**json.loads(line), **more}) for line in lines]
    made.source.write_text("\n".join(rows), encoding="utf-8")


def two_files(made: Made) -> None:
    """Two parts of one table in a folder, one of them compressed, beside files that are not tables."""
    folder = made.source.parent / "parts"
    folder.mkdir()
    first, second = made.source.read_bytes().splitlines(keepends=True)
    (folder / "part-0.jsonl").write_bytes(first)
    (folder / "part-1.JSONL.gz").write_bytes(gzip.compress(second))
    (folder / "README.md").write_text("About the data")
    made.source = folder


def both_files(made: Made) -> None:
    two_files(made)
    made.source, *made.more = sorted(path for path in made.source.iterdir() if "part" in path.name)


def pattern(made: Made) -> None:
    two_files(made)
    made.source = made.source / "part-*"


def renamed(name: str) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        made.source = made.source.rename(made.source.with_name(name))

    return spoil


def sheet(name: str, separator: str, twice: bool = False, long: int = 0) -> Callable[[Made], None]:
    """A table of texts as a spreadsheet program saves it."""

    def spoil(made: Made) -> None:
        made.source = made.source.with_name(name)
        with made.source.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file, delimiter=separator)
            names = [query_column(made), made.layout.positive, "a note"]
            writer.writerow(names + names[:1] * twice)
            for number, (_, caption) in enumerate(ROWS):
                writer.writerow(
                    [f"what is {number}?\nsay it" + "x" * long, caption, "", *["again"] * twice]
                )

    return spoil


def open_quote(name: str) -> Callable[[Made], None]:
    """A caption begins with a quotation mark that is never closed.

    A reader would take the following rows for its text.
    """

    def spoil(made: Made) -> None:
        separator = "\t" if name.endswith("tsv") else ","
        made.source = made.source.with_name(name)
        rows = [
            (query_column(made), made.layout.positive),
            ("one", "right"),
            ("two", '"wide'),
            ("three", "left"),
        ]
        made.source.write_text("".join(separator.join(row) + "\n" for row in rows))

    return spoil


def pointers(made: Made) -> None:
    """The files are pointers, as in a clone without Git LFS."""
    for path in [path for path in made.source.rglob("*") if path.is_file()] or [made.source]:
        path.write_bytes(LFS)


def beside(made: Made) -> None:
    """The files that the hub and the library `datasets` put beside a table."""
    made.source = made.source.rename(new_folder(made) / "train.jsonl").parent
    for name in ("dataset_info.json", "dataset_infos.json", "state.json", "config.json"):
        (made.source / name).write_text('{\n  "features": {}\n}')


def missing_as_nan(made: Made) -> None:
    """The missing values of a row are NaN, as pandas writes them."""
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


def one_object(made: Made) -> None:
    made.source = made.source.with_name("rows.json")
    made.source.write_text(json.dumps({"data": [{made.layout.positive: "one"}]}, indent=2))


def trailing(made: Made) -> None:
    """Empty columns at the end, as a spreadsheet program saves columns that a person emptied."""
    made.source = made.source.with_name("rows.csv")
    rows = [
        (query_column(made), made.layout.positive),
        *((f"what is {at}?", caption) for at, (_, caption) in enumerate(ROWS)),
    ]
    made.source.write_text(
        "".join(",".join((*row, "", "")) + "\n" for row in rows), encoding="utf-8"
    )


def duplicate_key(made: Made) -> None:
    positive = made.layout.positive
    made.source.write_text(f'{{"{positive}": "one", "{positive}": "two"}}\n', encoding="utf-8")


def tuples(*more: dict[str, object], positive: str = "positive") -> Callable[[Made], None]:
    """The rows have more columns, and the positive's column has another name."""

    def spoil(made: Made) -> None:
        rows = [json.loads(line) for line in made.source.read_bytes().splitlines()]
        lines = []
        for row, columns in zip(rows, more, strict=True):
            lines.append(json.dumps(row | {positive: row.pop("positive")} | columns))
        made.source.write_text("\n".join(lines), encoding="utf-8")

    return spoil


def scored(first: Sequence[float], second: Sequence[float]) -> Callable[[Made], None]:
    return tuples({"negative": "other", "scores": first}, {"negative": "other", "scores": second})


def listed(made: Made) -> None:
    """The columns are lists of documents, and one document is the right answer."""
    rows = [json.loads(line) for line in made.source.read_bytes().splitlines()]
    cells = [
        {"query": row["anchor"], "documents": ["other", row["positive"]], "labels": [0, 1]}
        for row in rows
    ]
    made.source.write_text("\n".join(map(json.dumps, cells)), encoding="utf-8")
