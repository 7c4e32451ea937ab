"""Rows of any layout → a corpus: deduplicated items, checked images, and a list of what was rejected and why."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from unijudge.corpus import CorpusManifest, Item, Query, content_key, open_image, write_corpus
from unijudge.errors import BadImage, DataError
from unijudge.files import publish_text


@dataclass(frozen=True)
class Side:
    """A text and an image path, as a row names them."""

    text: str | None
    image: str | None


@dataclass(frozen=True)
class Pair:
    """One row of a foreign layout."""

    place: str
    """Where it stands, as in `cirr/original-00000.parquet:17`: for messages."""
    subset: str
    query: Side
    positive: Side
    query_id: str | None = None
    """Rows that share it are one query with several positives."""


class Rejected(Exception):
    """This row cannot be used; the message says why."""


class CorpusBuilder:
    """Collects rows. Every image is opened once, however many rows name it."""

    def __init__(self, images: Path):
        """`images` is the root of all image paths.

        Raises:
            DataError: No such folder.
        """
        if not images.is_dir():
            raise DataError(f"{images}: no such folder of images; set --images to the root of the image paths")
        self._images = images.resolve()
        self._seen: dict[str, str | Rejected] = {}
        self._items: dict[bytes, Item] = {}
        self._queries: dict[str, Query] = {}
        self._rejects: list[dict[str, str]] = []
        self._rows = 0

    def add(self, pair: Pair) -> None:
        """Takes one row, or notes why not."""
        self._rows += 1
        try:
            query_sha = self._check("query", pair.query)
            positive_sha = self._check("positive", pair.positive)
            self._add_query(pair, query_sha, self._item(pair.positive, positive_sha, pair.subset))
        except Rejected as reason:
            self._rejects.append({"row": pair.place, "subset": pair.subset, "reason": str(reason)})

    def _add_query(self, pair: Pair, sha: str | None, item_id: str) -> None:
        query_id = pair.query_id or pair.place
        known = self._queries.get(query_id)
        if known is None:
            image = pair.query.image or None
            text = pair.query.text or None
            self._queries[query_id] = Query(query_id, pair.subset, (item_id,), text, image, sha)
        elif known.key != content_key(pair.query.text, sha):
            raise Rejected(f"query_id {query_id!r} stands for another query already; ids must be unique")
        elif item_id not in known.positive_ids:
            self._queries[query_id] = replace(known, positive_ids=(*known.positive_ids, item_id))

    def _item(self, side: Side, sha: str | None, subset: str) -> str:
        key = content_key(side.text, sha)
        known = self._items.get(key)
        if known is None:
            known = Item(key.hex(), (subset,), side.text or None, side.image or None, sha)
        elif subset not in known.pools:
            known = replace(known, pools=(*known.pools, subset))
        self._items[key] = known
        return known.item_id

    def _check(self, name: str, side: Side) -> str | None:
        """The sha256 of the side's image, if it has one."""
        for value in (side.text, side.image):
            if value and not _is_clean(value):
                raise Rejected(f"{name}: a lone surrogate or a NUL in {value[:40]!r}")
        if not side.image:
            if not (side.text or "").strip():
                raise Rejected(f"{name}: neither text nor image")
            return None
        if side.image not in self._seen:
            self._seen[side.image] = self._open(side.image)
        found = self._seen[side.image]
        if isinstance(found, Rejected):
            raise Rejected(f"{name}: image {side.image}: {found}")
        return found

    def _open(self, name: str) -> str | Rejected:
        path = (self._images / name).resolve()
        if not path.is_relative_to(self._images):
            return Rejected(f"outside of {self._images}")
        try:
            data = path.read_bytes()
            open_image(data)
        except FileNotFoundError:
            return Rejected("no such file")
        except OSError as error:
            return Rejected(f"cannot be read ({error.strerror})")
        except BadImage as error:
            return Rejected(str(error))
        return hashlib.sha256(data).hexdigest()

    def write(self, out: Path, *, source: str, max_rejects: float) -> CorpusManifest:
        """Writes the corpus, and `rejects.jsonl` beside it.

        Raises:
            DataError: No row, or more than the share `max_rejects` was rejected: then only rejects.jsonl is written.
        """
        if out.exists() and not out.is_dir():
            raise DataError(f"{out}: is a file; give a folder to write the corpus into")
        with suppress(FileNotFoundError):
            (out / "corpus.json").unlink()
        lines = [json.dumps(reject, ensure_ascii=False) + "\n" for reject in self._rejects]
        publish_text(out / "rejects.jsonl", "".join(lines))
        if not self._rows:
            raise DataError(f"{source}: no rows; is this the right file or folder?")
        if len(self._rejects) > max_rejects * self._rows:
            raise DataError(
                f"{len(self._rejects)} of {self._rows} rows rejected, more than --max-rejects {max_rejects:g}; no "
                f"corpus was written. Reasons are in {out / 'rejects.jsonl'}; the first: {self._rejects[0]['row']}: "
                f"{self._rejects[0]['reason']}"
            )
        return write_corpus(
            out,
            list(self._items.values()),
            self._queries.values(),
            images=self._images,
            rejects=len(self._rejects),
            source=source,
        )


def build(rows: Iterator[Pair], *, images: Path, out: Path, source: str, max_rejects: float) -> CorpusManifest:
    """Imports all rows into a corpus folder. See `CorpusBuilder`."""
    builder = CorpusBuilder(images)
    for pair in rows:
        builder.add(pair)
    return builder.write(out, source=source, max_rejects=max_rejects)


def _is_clean(text: str) -> bool:
    """Whether a text can be written as UTF-8, and named as a path."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
