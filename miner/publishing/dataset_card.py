"""The card of a scored dataset: README.md, with the front matter by which the Hugging Face hub shows it.

Everything on it comes from the manifests; nothing is measured again. The column tables are made from the schemas.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from unijudge.formats.corpus import ITEMS, QUERIES
from unijudge.formats.datasets import Parts, Stored
from unijudge.formats.scores import JUDGED, SCORES
from unijudge.formats.tables import Table
from unijudge.formats.triples import TRIPLES
from unijudge.pages.markdown import facts, made_by, table
from unijudge.storage.locations import is_local

FOLDERS = {
    "triples": ("triples/*.parquet", TRIPLES, "a query, its positive, its chosen negatives"),
    "scores": ("scores/*.parquet", SCORES, "a query, and its positives and candidates as they were judged"),
    "items": ("corpus/items.parquet", ITEMS, "a candidate"),
    "queries": ("corpus/queries.parquet", QUERIES, "a training or evaluation row"),
}
"""Name of the hub's configuration → its files, their table, what a row is."""
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
"""Column, or table.column where a name means two things → what stands there."""
ABOUT = """A scored dataset of unijudge: hard negatives for universal multimodal embeddings, judged by a multimodal LLM
(the method of UniME-V2, arXiv 2510.13515). What was measured is stored, so that thresholds and counts can be chosen
again without judging again."""
SIZES = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"]


def card(
    out: Path,
    parts: Parts,
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
    names = [name for name in FOLDERS if any(file.startswith(f"{_folder(name)}/") for file in files)]
    title = out.name or "Scored dataset"
    sections = [
        _front_matter(title, names, parts, license),
        f"# {title}\n\n{ABOUT}",
        _contents(names, parts, files),
        _images(files, root, images=images),
        _judge(parts),
        _selection(parts),
        _loading(out, names),
        "## Columns\n\n" + "\n\n".join(_columns(name, columns(FOLDERS[name][1])) for name in names),
        _columns("judged", ((name, str(kind), MEANINGS[name]) for name, kind in JUDGED)),
        _origin(parts),
        "## Licence\n\n"
        + (f"{license}, as stated by who published this." if license else "None was stated by who published this.")
        + " Texts and images keep the licences of their sources.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(title: str, names: list[str], parts: Parts, license: str | None) -> str:  # noqa: A002
    rows = max(parts.corpus.queries, parts.corpus.items)
    lines = ["---", *([f"license: {json.dumps(license)}"] if license else []), f"pretty_name: {json.dumps(title)}"]
    lines += ["tags:", *(f"- {tag}" for tag in ("unijudge", "hard-negatives", "multimodal", "embeddings"))]
    lines += ["size_categories:", f"- {json.dumps(SIZES[min(len(SIZES) - 1, max(0, len(str(rows)) - 3))])}", "configs:"]
    for place, name in enumerate(names):
        lines += [f"- config_name: {name}", f"  data_files: {json.dumps(FOLDERS[name][0])}"]
        lines += ["  default: true"] if place == 0 else []
    return "\n".join([*lines, "---"])


def _contents(names: list[str], parts: Parts, files: Mapping[str, Stored]) -> str:
    rows = {"items": parts.corpus.items, "queries": parts.corpus.queries}
    rows |= {"scores": parts.scores.queries} if parts.scores else {}
    rows |= {"triples": parts.triples.rows} if parts.triples else {}
    lines = [
        [f"`{FOLDERS[name][0]}`", FOLDERS[name][2], f"{rows[name]:,}", f"{_bytes(files, FOLDERS[name][0]):,}"]
        for name in names
    ]
    return "## What is in it\n\n" + table(["files", "one row is", "rows", "bytes"], lines)


def _images(files: Mapping[str, Stored], root: Path, *, images: bool) -> str:
    if not images:
        there = "Put them" if is_local(root) else f"Fetch them from `{root}`, and put them"
        return (
            f"The images are not inside. {there} under `images/`, by the paths that the tables name. Each is "
            "known by its sha256, and another one is refused."
        )
    count = sum(name.startswith("images/") for name in files)
    return (
        f"`images/` holds {count:,} images, {_bytes(files, 'images/*'):,} bytes; the tables name them by their paths."
    )


def _judge(parts: Parts) -> str:
    if parts.scores is None:
        return ""
    candidates = parts.scores.model_dump(exclude={"version", "judge", "made"})
    return f"## The judge\n\n{facts(parts.scores.judge)}\n\n## The candidates\n\n{facts(candidates)}"


def _selection(parts: Parts) -> str:
    if parts.triples is None:
        return ""
    statistics = facts({name: f"{value:,.10g}" for name, value in parts.triples.statistics.items()})
    return f"## The selection\n\n{facts(parts.triples.selection)}\n\nWhat it did:\n\n{statistics}"


def _loading(out: Path, names: list[str]) -> str:
    return f"""## How to load it

Fetch it, each file checked against its sha256, and train on it:

```bash
unijudge train pull {out.name if is_local(out) else out} dataset
unijudge check dataset{_training(names)}
```

Or read a table of it as it lies there; `.to_pandas()` makes a data frame of it:

```python
from glob import glob

import pyarrow.parquet as pq

table = pq.read_table(sorted(glob("dataset/{FOLDERS[names[0]][0]}")))
print(table.num_rows, table.column_names)
```"""


def _training(names: list[str]) -> str:
    if "triples" not in names:
        return "\nunijudge mine select corpus=dataset/corpus scores=dataset/scores ..."
    return "\nunijudge train embedder corpus=dataset/corpus triples=dataset/triples ..."


def _columns(name: str, found: Iterable[tuple[str, str, str]]) -> str:
    lines = [[f"`{column}`", kind, meaning] for column, kind, meaning in found]
    return f"**{name}**\n\n" + table(["column", "type", "what it is"], lines)


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


def _origin(parts: Parts) -> str:
    manifests = {"corpus": parts.corpus, "scores": parts.scores, "training rows": parts.triples}
    made = {name: dict(manifest).get("made") for name, manifest in manifests.items() if manifest is not None}
    lines = [f"* {name}: {made_by(by)}" for name, by in made.items() if by is not None]
    source = {"imported from": parts.corpus.source, "rows rejected": parts.corpus.rejects}
    return "\n".join(["## Where it comes from", "", facts(source), *(["", *lines] if lines else [])])


def _folder(name: str) -> str:
    return FOLDERS[name][0].partition("/")[0]


def _bytes(files: Mapping[str, Stored], pattern: str) -> int:
    start, _, end = pattern.partition("*")
    return sum(file.size for name, file in files.items() if name.startswith(start) and name.endswith(end))
