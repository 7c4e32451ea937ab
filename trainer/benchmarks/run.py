"""Measures one system on every chosen set: import, embed, evaluate, set by set; then the table of all systems.

    OUT/corpora/SET/                 the set as a corpus, for all systems; SET.import.txt is the command that made it,
                                     and a digest of its source's names, sizes and times, and of the
                                     pictures of a partial set
    OUT/NAME/SET/vectors/            what the system made of it
    OUT/NAME/SET/metrics.json        every measure, and rankings.parquet; what `train rerank` takes
    OUT/table.md, OUT/table.json     all systems, and the published rows

A set is done when its metrics.json is there; the same command goes on with the others. All corpora are made and counted
before the first thing is embedded. With `allow_partial` a set that cannot be read or measured is left out, and said in
the end.
"""

import logging
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from trainer.benchmarks.embed import embed_set
from trainer.benchmarks.registry import SETS, choose_sets
from trainer.benchmarks.settings import BenchmarkSettings
from trainer.benchmarks.spec import BenchmarkSet
from trainer.benchmarks.systems import open_system
from trainer.benchmarks.table import Measured, ResultTable
from trainer.embedding.base import Identity, System
from trainer.evaluation.evaluate import EvaluationReport, evaluate
from trainer.evaluation.settings import EvaluateSettings
from trainer.training.distributed import processes
from unijudge.cli import run
from unijudge.errors import DataError, SettingsError
from unijudge.formats.corpus import Corpus, CorpusManifest
from unijudge.formats.vectors import ENTRY_KINDS, VectorManifest
from unijudge.provenance import without_passwords
from unijudge.shown import listed
from unijudge.storage.files import file_sha256, publish_json, publish_text, read_json, read_text
from unijudge.storage.listing import foreign_files
from unijudge.storage.outputs import check_file, is_json_of
from unijudge.storage.stores import exists, is_folder

logger = logging.getLogger(__name__)

CORPORA = "corpora"
PATIENCE = timedelta(days=1)
"""How long processes wait for the one that imports."""


def benchmark(settings: BenchmarkSettings, report: Callable[[str, int, int], None]) -> ResultTable | None:
    """Runs one benchmark, or what is left of it.

    Args:
        settings: The job.
        report: Is called with (set, contents done, contents in all), in the first process.

    Returns:
        The table; None in all processes but the first.

    Raises:
        SettingsError: No system is named.
        DataError: A set is not there, has other counts than published, or a vector is no vector.
    """
    if settings.label in ("", CORPORA):
        raise SettingsError(f"name: {settings.label!r} cannot be a system's; name a model, or set another name")
    check_file(settings.out / "table.json", is_json_of(ResultTable), "table of `train benchmark`")
    chosen, absent = choose_sets(settings.root, settings.benchmarks, partial=settings.allow_partial)
    with processes("cpu" if settings.on_cpu else "auto", settings.out, patience=PATIENCE) as accelerator:
        unread = [_import_all(settings, chosen, absent) if accelerator.is_main_process else {}]
        accelerator.wait_for_everyone()
        broadcast_object_list(unread)
        failed = _Failed(settings, unread[0])
        system = open_system(settings)
        _check_identity(settings.out / settings.label, system.identity)
        for one in failed.without(chosen):
            with failed.noting(one):
                system.check_texts(Corpus(settings.out / CORPORA / one.name))
        for one in failed.without(chosen):
            with failed.noting(one):
                _measure(settings, system, one, accelerator, partial(report, one.name))
        if not accelerator.is_main_process:
            return None
        failed.check(chosen)
        table = ResultTable.of(_measured(settings.out))
        publish_json(settings.out / "table.json", table)
        publish_text(settings.out / "table.md", table.text())
    failed.tell()
    return table


class _Failed:
    """The sets that cannot be read or measured, and why: the others are measured where partial sets are allowed."""

    def __init__(self, settings: BenchmarkSettings, why: Mapping[str, str]):
        """Begins with some."""
        self._settings = settings
        self._why = dict(why)

    def without(self, chosen: Sequence[BenchmarkSet]) -> list[BenchmarkSet]:
        """The others."""
        return [one for one in chosen if one.name not in self._why]

    @contextmanager
    def noting(self, one: BenchmarkSet) -> Iterator[None]:
        """Inside, what is wrong with the set's data is noted and not raised."""
        try:
            yield
        except DataError as error:
            if not self._settings.allow_partial:
                raise
            self._why[one.name] = f"{one.name}: {error}"
            logger.warning("%s", self._why[one.name])

    def check(self, chosen: Sequence[BenchmarkSet]) -> None:
        """Refuses to write a table where no set was measured.

        Raises:
            DataError: All sets failed.
        """
        if not self.without(chosen):
            raise DataError(f"{self._settings.out}: nothing was measured. The first: {next(iter(self._why.values()))}")

    def tell(self) -> None:
        """Says which sets are not in the table.

        Raises:
            DataError: There are some.
        """
        if self._why:
            raise DataError(
                f"{self._settings.out / 'table.md'}: is written, without {len(self._why)} sets that failed: "
                f"{listed(self._why)}. The first: {next(iter(self._why.values()))}. Mend them, and give the same "
                "command again"
            )


def _import_all(settings: BenchmarkSettings, chosen: list[BenchmarkSet], absent: Mapping[str, str]) -> dict[str, str]:
    """Imports what is not there yet. Returns the sets that cannot be read, the absent ones among them, and why."""
    unread, faults = dict(absent), []
    for one in chosen:
        try:
            faults += _import(settings, one)
        except DataError as error:
            unread[one.name] = f"{one.name}: {error}"
    faults += unread.values()
    for fault in faults:
        logger.warning("%s", fault)
    if len(unread) == len(absent) + len(chosen) or (faults and not settings.allow_partial):
        raise DataError(
            f"{len(faults)} faults in the data, nothing was measured. The first: {faults[0]}. Mend them, leave sets "
            "out with `benchmarks`, or set allow_partial = true: partial sets are marked in the table"
        )
    return unread


def _import(settings: BenchmarkSettings, one: BenchmarkSet) -> list[str]:
    """Makes the corpus of a set, unless it is there. Returns what is wrong with it.

    One with rejected rows is made anew where its pictures changed since: those that were lacking may be there now.

    Raises:
        DataError: The set cannot be read.
    """
    folder = settings.out / CORPORA / one.name
    words = one.words(settings.root, folder, settings.instruction)
    command = without_passwords(shlex.join(["unijudge", *words]))
    made_by = f"{command}\n{one.source_digest(settings.root)}\n"
    record = folder.with_name(f"{folder.name}.import.txt")
    there = exists(folder / "corpus.json") and exists(record)
    known = read_text(record) if there else ""
    if known == made_by or (settings.allow_partial and known == made_by + _of_pictures(settings, one)):
        return _miscounts(folder, one)
    run([*words, "--max-rejects", "1" if settings.allow_partial else "0"])
    partial = read_json(folder / "corpus.json", CorpusManifest).rejects
    publish_text(record, made_by + (_of_pictures(settings, one) if partial else ""))
    return _miscounts(folder, one)


def _of_pictures(settings: BenchmarkSettings, one: BenchmarkSet) -> str:
    return f"{one.pictures_digest(settings.root)}\n"


def _miscounts(folder: Path, one: BenchmarkSet) -> list[str]:
    corpus = Corpus(folder)
    found = Counter(corpus.queries.table["subset"].to_pylist())
    if not found:
        raise DataError(f"no row of it can be used; see {folder / 'rejects.jsonl'}, and mend it")
    rejected = f"rows that were left out are in {folder / 'rejects.jsonl'}" if corpus.manifest.rejects else ""
    return [
        f"{one.name}: {subset} has {count} queries, but {published} were published; "
        + (rejected or f"none were rejected: the source holds {'only ' if count < published else ''}{count}")
        for subset in sorted({*one.queries, *found})
        if (count := found[subset]) != (published := one.queries.get(subset, 0))
    ]


def _measure(
    settings: BenchmarkSettings,
    system: System,
    one: BenchmarkSet,
    accelerator: Accelerator,
    report: Callable[[int, int], None],
) -> None:
    corpus = Corpus(settings.out / CORPORA / one.name)
    folder = settings.out / settings.label / one.name
    vectors = folder / "vectors"
    embedded = _is_embedded(vectors, corpus)
    measured = embedded and _is_measured(folder)
    accelerator.wait_for_everyone()  # all have seen the same
    if measured:
        return
    if not embedded:
        embed_set(settings, system, corpus, vectors, accelerator, report)
    if accelerator.is_main_process:
        evaluate(
            EvaluateSettings(corpus=corpus.folder, vectors=vectors, out=folder, to_the_letter=True), overwrite=True
        )


def _is_measured(folder: Path) -> bool:
    path = folder / "metrics.json"
    vectors = file_sha256(folder / "vectors" / "vectors.json")
    return exists(path) and read_json(path, EvaluationReport).inputs.get("vectors") == vectors


def _is_embedded(vectors: Path, corpus: Corpus) -> bool:
    """Whether all vectors are there; those of another corpus are never taken for this one's."""
    if not exists(vectors / "vectors.json"):
        return False
    there = read_json(vectors / "vectors.json", VectorManifest)
    if there.corpus != corpus.fingerprint:
        raise DataError(
            f"{vectors.parent}: was measured with another corpus; delete it to measure it again, or give this system "
            "another `name`"
        )
    return not any(there.parts(kind).missing(vectors) for kind in ENTRY_KINDS)


def _check_identity(folder: Path, identity: Identity) -> None:
    """A row of the table is one system: whatever set was measured before was measured with the same."""
    for one in SETS:
        path = folder / one.name / "vectors" / "vectors.json"
        if not exists(path):
            continue
        there = read_json(path, VectorManifest)
        if differing := [name for name, value in asdict(identity).items() if getattr(there, name) != value]:
            raise DataError(
                f"{folder / one.name}: was measured with another {' and '.join(differing)}; delete it to measure it "
                "again, or give this system another `name`"
            )


def _measured(out: Path) -> dict[str, Measured]:
    """What every system measured so far, of the corpora that are there now: of others, only the names of the sets."""
    systems = {}
    for folder in foreign_files(out):
        if folder.name == CORPORA or not is_folder(folder):
            continue
        subsets: dict[str, dict[str, float]] = {}
        identity: dict[str, str | int] = {}
        others: list[str] = []
        for one in SETS:
            if not exists(folder / one.name / "metrics.json"):
                continue
            report = read_json(folder / one.name / "metrics.json", EvaluationReport)
            if report.inputs.get("corpus") != _present(out / CORPORA / one.name):
                others.append(one.name)
                continue
            subsets |= report.subsets
            manifest = read_json(folder / one.name / "vectors" / "vectors.json", VectorManifest)
            identity = {name: getattr(manifest, name) for name in Identity.__dataclass_fields__}
        if subsets or others:
            systems[folder.name] = Measured.of(identity, subsets, others)
    return systems


def _present(corpus: Path) -> str | None:
    """The fingerprint of a corpus, if it is there."""
    path = corpus / "corpus.json"
    return read_json(path, CorpusManifest).fingerprint if exists(path) else None
