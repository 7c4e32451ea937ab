"""The card of a scored dataset: README.md, with the front matter by which the Hugging Face hub shows it.

Everything on it comes from the manifests; nothing is measured again. The column tables are made from the schemas.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from unijudge.formats.corpus import ITEMS, QUERIES
from unijudge.formats.datasets import DatasetParts, Stored
from unijudge.formats.scores import JUDGED, SCORES
from unijudge.formats.tables import Table
from unijudge.formats.triples import TRIPLES
from unijudge.pages.markdown import facts, made_by, rendered, table
from unijudge.storage.locations import is_local

TEMPLATE = Path(__file__).parent / "dataset_card.md.jinja"


class Folder(NamedTuple):
    """What one configuration of the hub holds."""

    files: str
    """A pattern."""
    table: Table
    row: str
    """What a row is."""


FOLDERS = {
    "triples": Folder("triples/*.parquet", TRIPLES, "a query, its positive, its chosen negatives"),
    "scores": Folder("scores/*.parquet", SCORES, "a query, and its positives and candidates as they were judged"),
    "items": Folder("corpus/items.parquet", ITEMS, "a candidate"),
    "queries": Folder("corpus/queries.parquet", QUERIES, "a training or evaluation row"),
}
"""By the name of the hub's configuration."""
MEANINGS = {
    "item_id": "the item, as items.parquet has it",
    "query_id": "the query, as queries.parquet has it",
    "subset": "the task or source data set that the row belongs to",
    "pools": "the subsets among whose candidates the item is",
    "text": "its text",
    "image": "its image: a path under images/",
    "image_sha256": "of the image file",
    "positive_ids": "the items that answer the query",
    "queries.candidates": "row numbers of items.parquet: the closed list of an evaluation",
    "item_key": "16-byte hash of the item's content, text and image",
    "query_key": "16-byte hash of the query's content, text and image",
    "positives": "the query's labelled positives, as they were judged",
    "scores.candidates": "the items that were judged, most similar first",
    "rank": "place among the candidates by similarity, from 0; none for a positive",
    "similarity": "cosine of query and item",
    "yes_logprob": "ln P(Yes), over the judge's whole vocabulary; none where nobody judged",
    "no_logprob": "ln P(No), likewise; score = 1 / (1 + exp(no_logprob − yes_logprob))",
    "argmax_is_label": "whether the judge's likeliest answer was Yes or No",
    "error": "why there is no verdict",
    "positive": "the positive that the row trains on",
    "negatives": "the chosen hard negatives",
    "beta": "the margin under the positive's score at which it survived",
    "duplicate": "stands in the row already, and fills it up",
    "fallback": "nothing survived; drawn at random",
    "extra_positives": "candidates at least as good as the positive by the judge, or a match by a person",
    "suspect": "the judge does not believe in the positive",
    "weight": "of the row in the loss, 0 … 1",
    "judge": "whose log-probabilities these are: a place in `triples.json`'s `scales`",
    "positive_judge": "the same of the positive",
    "positive_affirmed": "a person calls the positive a match: its label is 1, whatever the judge says",
    "affirmed": "a person calls it a match: its label is 1, whatever the judge says",
    "overruled": "a person says that it does not answer the query: its label is 0, whatever the judge says",
}
"""What a column holds, by its name, or by table.column where a name has two meanings."""
SIZES = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"]


def card(
    out: Path,
    parts: DatasetParts,
    files: Mapping[str, Stored],
    root: Path,
    *,
    images: bool,
    license: str | None,  # noqa: A002
) -> str:
    """The whole text.

    Args:
        out: Where the dataset goes; its last part is the title.
        parts: The manifests.
        files: What was copied.
        root: Where the images were.
        images: Whether they were copied.
        license: The hub's short form, if there is one.
    """
    there = {file.partition("/")[0] for file in files}
    names = [name for name in FOLDERS if _folder(name) in there]
    scores, triples = parts.scores, parts.triples
    count = sum(name.startswith("images/") for name in files)
    tables = [(name, _table(columns(FOLDERS[name].table))) for name in names]
    tables.append(("judged", _table((name, str(kind), MEANINGS[name]) for name, kind in JUDGED)))
    text = rendered(
        TEMPLATE,
        title=out.name or "Scored dataset",
        license=license,
        size=_size_category(max(parts.corpus.queries, parts.corpus.items)),
        names=names,
        folders=FOLDERS,
        contents=_contents(names, parts, files),
        images=(count, _bytes(files, "images/*")) if images else None,
        images_at=None if is_local(root) else str(root),
        judge=scores and facts(scores.judge),
        candidates=scores and facts(scores.model_dump(exclude={"version", "judge", "made"})),
        selection=triples and facts(triples.selection),
        statistics=triples and facts({name: f"{value:,.10g}" for name, value in triples.statistics.items()}),
        place=out.name if is_local(out) else out,
        tables=tables,
        source=facts({"imported from": parts.corpus.source, "rows rejected": parts.corpus.rejects}),
        origin=list(_origin(parts)),
    )
    return f"{text}\n"


def _size_category(rows: int) -> str:
    """The hub's name of a number of rows."""
    digits = len(str(rows))
    return SIZES[min(len(SIZES) - 1, max(0, digits - 3))]


def _contents(names: list[str], parts: DatasetParts, files: Mapping[str, Stored]) -> str:
    rows = {"items": parts.corpus.items, "queries": parts.corpus.queries}
    rows |= {"scores": parts.scores.queries} if parts.scores else {}
    rows |= {"triples": parts.triples.rows} if parts.triples else {}
    lines = []
    for name in names:
        folder = FOLDERS[name]
        lines.append([f"`{folder.files}`", folder.row, f"{rows[name]:,}", f"{_bytes(files, folder.files):,}"])
    return table(["files", "one row is", "rows", "bytes"], lines)


def _table(found: Iterable[tuple[str, str, str]]) -> str:
    lines = [[f"`{column}`", kind, meaning] for column, kind, meaning in found]
    return table(["column", "type", "what it is"], lines)


def columns(of: Table) -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of each column of a table; of a struct, what it has beside a judged item's fields."""
    for field in of.schema:
        many = pa.types.is_list(field.type)
        kind = field.type.value_type if many else field.type
        shown = "judged" if pa.types.is_struct(kind) else str(kind)
        meaning = MEANINGS.get(f"{of.name}.{field.name}") or MEANINGS[field.name]
        yield field.name, f"list of {shown}" if many else shown, meaning
        for inner in kind if pa.types.is_struct(kind) else []:
            if inner.name not in dict(JUDGED):
                yield f"{field.name}{'[]' if many else ''}.{inner.name}", str(inner.type), MEANINGS[inner.name]


def _origin(parts: DatasetParts) -> Iterator[tuple[str, str]]:
    """What was made on the way, and the command that made it."""
    manifests = {"corpus": parts.corpus, "scores": parts.scores, "training rows": parts.triples}
    for name, manifest in manifests.items():
        by = None if manifest is None else manifest.made
        if by is not None:
            yield name, made_by(by)


def _folder(name: str) -> str:
    return FOLDERS[name].files.partition("/")[0]


def _bytes(files: Mapping[str, Stored], pattern: str) -> int:
    start, _, end = pattern.partition("*")
    return sum(file.size for name, file in files.items() if name.startswith(start) and name.endswith(end))
