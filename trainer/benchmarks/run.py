"""Measures a system on every chosen set by import, embedding and evaluation, then writes the table of all systems.

    OUT/corpora/SET/                 the set as a corpus, shared by all systems. SET.import.txt holds the import
                                     command, and a digest over the names, sizes and times of the source files,
                                     for a partial set also of the images
    OUT/NAME/SET/vectors/            the system's vectors of the set
    OUT/NAME/SET/metrics.json        every measure, next to rankings.parquet, the input of `train rerank`
    OUT/table.md, OUT/table.json     all systems and the published rows

A set is finished when its metrics.json exists. The same command resumes with the other sets. All corpora are imported
and counted before the first content is embedded. With `allow_partial`, a set that cannot be read or measured is left
out, and the final error names the set.
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
"""How long the other processes wait for the process that imports."""


def benchmark(
    settings: BenchmarkSettings, report: Callable[[str, int, int], None]
) -> ResultTable | None:
    """Runs a benchmark, or resumes an interrupted benchmark.

    Args:
        settings: The settings of the job.
        report: A function that the first process calls with (set, finished contents, all contents).

    Returns:
        The table. Only the first process gets the table. The other processes get None.

    Raises:
        SettingsError: The settings name no system.
        DataError: The data of a set is missing, a set differs from its published size, or a vector is invalid.
    """
    if settings.label in ("", CORPORA):
        raise SettingsError(
            f"name: {settings.label!r} cannot be the name of a system. Set a model, or another name"
        )
    check_file(settings.out / "table.json", is_json_of(ResultTable), "table of `train benchmark`")
    chosen, absent = choose_sets(settings.root, settings.benchmarks, partial=settings.allow_partial)
    with processes(
        "cpu" if settings.on_cpu else "auto", settings.out, patience=PATIENCE
    ) as accelerator:
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
    """The sets that cannot be read or measured, with reasons. With `allow_partial`, the other sets are measured."""

    def __init__(self, settings: BenchmarkSettings, why: Mapping[str, str]):
        """Starts with the sets that already failed."""
        self._settings = settings
        self._why = dict(why)

    def without(self, chosen: Sequence[BenchmarkSet]) -> list[BenchmarkSet]:
        """Returns the chosen sets that did not fail."""
        return [one for one in chosen if one.name not in self._why]

    @contextmanager
    def noting(self, one: BenchmarkSet) -> Iterator[None]:
        """Records an error in the data of a set. With `allow_partial`, the error is not raised."""
        try:
            yield
        except DataError as error:
            if not self._settings.allow_partial:
                raise
            self._why[one.name] = f"{one.name}: {error}"
            logger.warning("%s", self._why[one.name])

    def check(self, chosen: Sequence[BenchmarkSet]) -> None:
        """Raises an error if every chosen set failed, so that no empty table is written.

        Raises:
            DataError: All sets failed.
        """
        if not self.without(chosen):
            raise DataError(
                f"{self._settings.out}: no set was measured. The first error: {next(iter(self._why.values()))}"
            )

    def tell(self) -> None:
        """Raises an error that names the sets that are not in the table.

        Raises:
            DataError: At least one set failed.
        """
        if self._why:
            raise DataError(
                f"{self._settings.out / 'table.md'}: the table lacks {len(self._why)} sets that failed: "
                f"{listed(self._why)}. The first error: {next(iter(self._why.values()))}. Fix the data of these sets, "
                "and run the same command again"
            )


def _import_all(
    settings: BenchmarkSettings, chosen: list[BenchmarkSet], absent: Mapping[str, str]
) -> dict[str, str]:
    """Imports the sets without a corpus. Returns the absent and unreadable sets, each with a reason."""
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
            f"{len(faults)} faults in the data, so no set was measured. The first: {faults[0]}. Fix the data, leave "
            "sets out with `benchmarks`, or set allow_partial = true, which marks partial sets in the table"
        )
    return unread


def _import(settings: BenchmarkSettings, one: BenchmarkSet) -> list[str]:
    """Imports a set, unless its corpus exists. Returns the faults of the corpus.

    A corpus with rejected rows is imported again if the images of the set have changed, since missing images may now
    exist.

    Raises:
        DataError: The set cannot be read.
    """
    folder = settings.out / CORPORA / one.name
    words = one.words(settings.root, folder, settings.instruction)
    command = without_passwords(shlex.join(["unijudge", *words]))
    made_by = f"{command}\n{one.source_digest(settings.root)}\n"
    record = folder.with_name(f"{folder.name}.import.txt")
    is_imported = exists(folder / "corpus.json") and exists(record)
    known = read_text(record) if is_imported else ""
    if known == made_by or (
        settings.allow_partial and known == made_by + _of_pictures(settings, one)
    ):
        return _miscounts(folder, one)
    run([*words, "--max-rejects", "1" if settings.allow_partial else "0"])
    partial = read_json(folder / "corpus.json", CorpusManifest).rejects
    publish_text(record, made_by + (_of_pictures(settings, one) if partial else ""))
    return _miscounts(folder, one)


def _of_pictures(settings: BenchmarkSettings, one: BenchmarkSet) -> str:
    return f"{one.pictures_digest(settings.root)}\n"


def _miscounts(folder: Path, one: BenchmarkSet) -> list[str]:
    corpus = Corpus(folder)
    counts = Counter(corpus.queries.table["subset"].to_pylist())
    if not counts:
        raise DataError(
            f"no row of the set can be used. See {folder / 'rejects.jsonl'}, and fix the data"
        )
    rejected = f"rejected rows are in {folder / 'rejects.jsonl'}" if corpus.manifest.rejects else ""
    return [
        f"{one.name}: {subset} has {count} queries, but {published} were published; "
        + (
            rejected
            or f"no row was rejected, so the source holds {'only ' if count < published else ''}{count}"
        )
        for subset in sorted({*one.queries, *counts})
        if (count := counts[subset]) != (published := one.queries.get(subset, 0))
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
    accelerator.wait_for_everyone()  # all processes must see the same state
    if measured:
        return
    if not embedded:
        embed_set(settings, system, corpus, vectors, accelerator, report)
    if accelerator.is_main_process:
        evaluate(
            EvaluateSettings(corpus=corpus.folder, vectors=vectors, out=folder, to_the_letter=True),
            overwrite=True,
        )


def _is_measured(folder: Path) -> bool:
    path = folder / "metrics.json"
    vectors = file_sha256(folder / "vectors" / "vectors.json")
    return exists(path) and read_json(path, EvaluationReport).inputs.get("vectors") == vectors


def _is_embedded(vectors: Path, corpus: Corpus) -> bool:
    """Returns whether all vectors exist. Raises an error if they belong to another corpus."""
    if not exists(vectors / "vectors.json"):
        return False
    manifest = read_json(vectors / "vectors.json", VectorManifest)
    if manifest.corpus != corpus.fingerprint:
        raise DataError(
            f"{vectors.parent}: was measured with another corpus. Delete this folder to measure the set again, or give "
            "this system another `name`"
        )
    return not any(manifest.parts(kind).missing(vectors) for kind in ENTRY_KINDS)


def _check_identity(folder: Path, identity: Identity) -> None:
    """Checks that the same system made all earlier vectors of a folder, since a row of the table is one system."""
    for one in SETS:
        path = folder / one.name / "vectors" / "vectors.json"
        if not exists(path):
            continue
        manifest = read_json(path, VectorManifest)
        if differing := [
            name for name, value in asdict(identity).items() if getattr(manifest, name) != value
        ]:
            raise DataError(
                f"{folder / one.name}: was measured with another {' and '.join(differing)}. Delete this folder to "
                "measure the set again, or give this system another `name`"
            )


def _measured(out: Path) -> dict[str, Measured]:
    """Returns the measures of every system on the current corpora. For sets of other corpora, only the name is kept."""
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
    """Returns the fingerprint of a corpus, or None if the corpus does not exist."""
    path = corpus / "corpus.json"
    return read_json(path, CorpusManifest).fingerprint if exists(path) else None
