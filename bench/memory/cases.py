"""The measured commands, and the sizes of their inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.memory.inputs import (
    FEW,
    NEGATIVES,
    make_array,
    make_corpus,
    make_group,
    make_scores,
    make_some_scores,
    make_vectors,
    make_zip,
)

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """One command, or several commands on the same input, and the sizes of the input."""

    name: str
    grows: str
    """The unit of the sizes."""
    sizes: tuple[int, ...]
    make: Callable[[Path, int], None]
    """Creates an input in a folder. Runs in a separate process, because a child inherits its parent's peak."""
    words: tuple[str, ...]
    """The command. `FOLDER` is a placeholder for the folder, and `URL` for the URL of the judge."""
    then: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Names and words of commands that read the output of this command."""
    module: str = "unijudge"
    """The Python module that runs the command."""
    few: int = FEW
    """The size for the start measurement."""


def settings(**values: str) -> tuple[str, ...]:
    """Returns settings as arguments of a command."""
    return tuple(f"{name.replace('__', '.')}={value}" for name, value in values.items())


def located(words: tuple[str, ...], folder: Path, url: str = "") -> list[str]:
    """Returns the words of a case, with the placeholders replaced."""
    return [word.replace("FOLDER", str(folder)).replace("URL", url) for word in words]


IMPORT = ("mine", "import", "pairs")
SCORE = settings(
    corpus="FOLDER/corpus",
    vectors="FOLDER/vectors",
    out="FOLDER/scores",
    service="URL",
    k="1",
    pool="subset",
)
SELECT = settings(
    corpus="FOLDER/corpus",
    scores="FOLDER/scores",
    out="FOLDER/triples",
    num_negatives=str(NEGATIVES),
)
EMBED = settings(
    corpus="FOLDER/corpus", out="FOLDER/vectors", model__name=str(ROOT / "demo/models/base")
)
EXPORT = ("mine", "export")
WRITTEN = ("--corpus", "FOLDER/corpus", "FOLDER/triples")
EXPORTS = (
    (
        "mine export sentence-transformers",
        (*EXPORT, "sentence-transformers", *WRITTEN, "FOLDER/rows.parquet"),
    ),
    ("mine export flagembedding", (*EXPORT, "flagembedding", *WRITTEN, "FOLDER/rows.jsonl")),
)
MILLION = (62_500, 250_000, 1_000_000)

CASES = (
    Case("import of Parquet, one row group with images of 100 kB", "MB", (62, 125, 250, 500), make_group(182),
         (*IMPORT, "FOLDER/rows.parquet", "FOLDER/out"), few=0),
    Case("import of Parquet, images of 9 MB in one page", "MB", (90, 180, 360, 720), make_group(1732),
         (*IMPORT, "FOLDER/rows.parquet", "FOLDER/out"), few=0),
    Case("import of a zip", "members", MILLION, make_zip,
         (*IMPORT, "FOLDER/rows.jsonl", "FOLDER/out", "--images", "FOLDER/images.zip")),
    Case("import of a JSON array", "MB", (250, 500, 1000, 2000), make_array,
         (*IMPORT, "FOLDER/rows.json", "FOLDER/out"), few=0),
    Case("train embed, a tiny model", "rows", (500, 2_000, 8_000), make_corpus, ("train", "embed", *EMBED)),
    Case("train embed, a scripted model", "rows", MILLION, make_corpus, ("--embed", "--scratch", "FOLDER"),
         module="bench.memory"),
    Case("mine score, each question in sixteen rows", "rows", MILLION, make_vectors, ("mine", "score", *SCORE)),
    Case("mine select", "rows", (16_000, 64_000, 128_000), make_scores, ("mine", "select", *SELECT), EXPORTS),
    Case("mine select of 16,384 rows of a corpus", "rows", MILLION, make_some_scores,
         ("mine", "select", *SELECT, *settings(partial="true")), EXPORTS),
)  # fmt: skip
