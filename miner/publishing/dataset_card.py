"""Writes the card of a scored dataset: README.md with the front matter for the Hugging Face hub.

The card shows facts of the manifests, without measuring again. The tables of columns are made from the schemas.
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
    """The files and the table of one configuration of the hub."""

    files: str
    """A pattern of paths in the dataset."""
    table: Table
    row: str
    """A phrase that says what one row is."""


FOLDERS = {
    "triples": Folder(
        "triples/*.parquet", TRIPLES, "a query, its positive and its chosen negatives"
    ),
    "scores": Folder(
        "scores/*.parquet", SCORES, "a query with the judged positives and candidates"
    ),
    "items": Folder("corpus/items.parquet", ITEMS, "a candidate"),
    "queries": Folder("corpus/queries.parquet", QUERIES, "a training or evaluation row"),
}
"""Name of the hub's configuration → its files."""
MEANINGS = {
    "item_id": "the id of the item in items.parquet",
    "query_id": "the id of the query in queries.parquet",
    "subset": "the task or source dataset of the row",
    "pools": "the subsets whose pools contain the item",
    "text": "the text",
    "image": "the image: a path under images/",
    "image_sha256": "the sha256 of the image file",
    "positive_ids": "the items that answer the query",
    "queries.candidates": "the closed list of an evaluation, as row numbers of items.parquet",
    "item_key": "a 16-byte hash of the item's text and image",
    "query_key": "a 16-byte hash of the query's text and image",
    "positives": "the judged positives of the query",
    "scores.candidates": "the judged candidates, the most similar first",
    "rank": "the rank among the candidates by similarity, from 0; null for a positive",
    "similarity": "the cosine of query and item",
    "yes_logprob": "ln P(Yes), over the judge's whole vocabulary; null without a verdict",
    "no_logprob": "ln P(No), like yes_logprob; score = 1 / (1 + exp(no_logprob − yes_logprob))",
    "argmax_is_label": "whether the judge's most likely answer was Yes or No",
    "error": "the reason why there is no verdict",
    "positive": "the positive of the training row",
    "negatives": "the chosen hard negatives",
    "beta": "the margin below the positive's score that the negative survived",
    "duplicate": "whether the negative repeats an earlier negative to fill up the row",
    "fallback": "whether the negative was drawn at random, because no candidate survived",
    "extra_positives": "candidates that score at least as high as the positive, or that a person marked as a match",
    "suspect": "whether the positive's score is too low",
    "weight": "the weight of the row in the loss, 0 … 1",
    "judge": "the judge of the log-probabilities, as an index into `scales` of `triples.json`",
    "positive_judge": "the judge of the positive's log-probabilities, as an index into `scales` of `triples.json`",
    "positive_affirmed": "whether a person marked the positive as a match: its label is then 1",
    "affirmed": "whether a person marked the item as a match: its label is then 1",
    "overruled": "whether a person marked the item as a negative: its label is then 0",
}
"""Name of a column → its meaning. A name with two meanings has the key table.column."""
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
    """Returns the text of the card.

    Args:
        out: The folder or URL of the dataset. Its last part is the title of the card.
        parts: The manifests.
        files: The copied files.
        root: The folder that the images were copied from.
        images: Whether images were copied.
        license: The hub's short form of the license, if there is a license.
    """
    # Configurations whose folders are in the dataset, and a table of columns for each.
    folders = {file.partition("/")[0] for file in files}
    names = [name for name in FOLDERS if _folder(name) in folders]
    tables = [(name, _table(columns(FOLDERS[name].table))) for name in names]
    judged = [(name, str(kind), MEANINGS[name]) for name, kind in JUDGED]
    tables.append(("judged", _table(judged)))

    scores, triples = parts.scores, parts.triples
    count = sum(name.startswith("images/") for name in files)
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
        statistics=triples
        and facts({name: f"{value:,.10g}" for name, value in triples.statistics.items()}),
        place="URL-OF-THIS-DATASET" if is_local(out) else out,
        tables=tables,
        source=facts({"imported from": parts.corpus.source, "rows rejected": parts.corpus.rejects}),
        origin=list(_origin(parts)),
    )
    return f"{text}\n"


def _size_category(rows: int) -> str:
    """Returns the hub's size category for a number of rows."""
    digits = len(str(rows))
    return SIZES[min(len(SIZES) - 1, max(0, digits - 3))]


def _contents(names: list[str], parts: DatasetParts, files: Mapping[str, Stored]) -> str:
    rows = {"items": parts.corpus.items, "queries": parts.corpus.queries}
    if parts.scores:
        rows["scores"] = parts.scores.queries
    if parts.triples:
        rows["triples"] = parts.triples.rows

    lines = []
    for name in names:
        folder = FOLDERS[name]
        size = _bytes(files, folder.files)
        lines.append([f"`{folder.files}`", folder.row, f"{rows[name]:,}", f"{size:,}"])
    return table(["files", "one row is", "rows", "bytes"], lines)


def _table(described: Iterable[tuple[str, str, str]]) -> str:
    lines = [[f"`{column}`", kind, meaning] for column, kind, meaning in described]
    return table(["column", "type", "meaning"], lines)


def columns(of: Table) -> Iterator[tuple[str, str, str]]:
    """Yields name, type and meaning of each column of a table. Of a struct, only fields beyond `JUDGED` are listed."""
    judged_fields = {name for name, _ in JUDGED}
    for field in of.schema:
        path, kind, list_of = field.name, field.type, ""
        if pa.types.is_list(kind):
            path, kind, list_of = f"{field.name}[]", kind.value_type, "list of "
        meaning = MEANINGS.get(f"{of.name}.{field.name}") or MEANINGS[field.name]
        if not pa.types.is_struct(kind):
            yield field.name, f"{list_of}{kind}", meaning
            continue

        yield field.name, f"{list_of}judged", meaning
        for inner in kind:
            if inner.name not in judged_fields:
                yield f"{path}.{inner.name}", str(inner.type), MEANINGS[inner.name]


def _origin(parts: DatasetParts) -> Iterator[tuple[str, str]]:
    """Yields the name of each part, and the command that made the part."""
    manifests = {"corpus": parts.corpus, "scores": parts.scores, "training rows": parts.triples}
    for name, manifest in manifests.items():
        if manifest is not None and manifest.made is not None:
            yield name, made_by(manifest.made)


def _folder(name: str) -> str:
    return FOLDERS[name].files.partition("/")[0]


def _bytes(files: Mapping[str, Stored], pattern: str) -> int:
    start, _, end = pattern.partition("*")
    return sum(
        file.size for name, file in files.items() if name.startswith(start) and name.endswith(end)
    )
