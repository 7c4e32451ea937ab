"""What a scoring job will ask, decided before it begins: its plan, and where its pairs come from."""

import threading
from pathlib import Path
from typing import Any

from miner.retrieval.candidates import find_candidates
from miner.scoring.pairs import CascadePairs, PairSource, SearchedPairs
from miner.scoring.score_cache import check_reuse
from miner.settings import ScoreSettings
from unijudge.errors import DataError, JudgeChanged, SettingsError
from unijudge.formats.candidates import CandidateManifest
from unijudge.formats.corpus import Corpus
from unijudge.formats.scores import ScoreManifest
from unijudge.formats.vectors import VectorFolder
from unijudge.judging.verdicts import JudgeIdentity
from unijudge.provenance import Provenance, differences
from unijudge.storage.files import file_sha256, names_in, publish_json, read_json
from unijudge.storage.outputs import check_folder
from unijudge.storage.stores import exists

BEGUN = {"manifest.json", "candidates"}
"""What may lie in the folder of a job that has no plan yet."""


def plan_of(settings: ScoreSettings, corpus: Corpus, judge: JudgeIdentity) -> ScoreManifest:
    """The plan of a job, as it will stand in its folder.

    Raises:
        SettingsError: Neither vectors nor a first judge's scores are given.
        JudgeChanged: A folder to reuse was scored by another judge.
        DataError: An input is missing or foreign, or `out` holds something else.
    """
    check_reuse(settings.reuse, judge)  # else nothing is begun
    if not exists(settings.out / "manifest.json"):
        check_folder(settings.out, BEGUN)  # before candidates are sought
    shape: dict[str, Any] = {"corpus": corpus.fingerprint, "queries": len(corpus.queries), "judge": judge}
    shape |= {"shard_size": settings.shard_size, "made": Provenance.now(settings)}
    if settings.cascade.scores is not None:
        questions = CascadePairs(corpus, settings.cascade)
        first = questions.manifest
        if first.judge == judge:
            raise SettingsError(
                f"cascade.scores: {settings.cascade.scores} was scored by the judge that answers now ({judge}); the "
                "second step of a cascade needs another one"
            )
        band: dict[str, Any] = {"scores": first.fingerprint} | settings.cascade.model_dump(include={"beta", "width"})
        band |= questions.scale.model_dump()
        kept = first.model_dump(include={"vectors", "k", "pool", "retrieval"})
        return ScoreManifest(**shape, **kept, band=band)
    if settings.vectors is None:
        raise SettingsError("vectors: required, and not set (only the second step of a cascade needs none)")
    VectorFolder(settings.vectors, corpus)  # of this corpus: likewise
    vectors = file_sha256(settings.vectors / "vectors.json")
    return ScoreManifest(**shape, vectors=vectors, k=settings.k, pool=settings.pool, retrieval=settings.retrieval)


def pair_source_of(settings: ScoreSettings, corpus: Corpus, stop: threading.Event | None = None) -> PairSource:
    """Where a job's pairs come from; the candidates are sought first, where they were not yet.

    Raises:
        DataError: Vectors are missing, torn or of another corpus; or the first step of a cascade is not whole.
        Stopped: `stop` was set meanwhile.
    """
    if settings.cascade.scores is not None:
        return CascadePairs(corpus, settings.cascade)
    assert settings.vectors is not None  # noqa: S101  the plan was made
    manifest = CandidateManifest(
        corpus=corpus.fingerprint,
        vectors=file_sha256(settings.vectors / "vectors.json"),
        queries=len(corpus.queries),
        k=settings.k,
        pool=settings.pool,
        retrieval=settings.retrieval,
        made=Provenance.now(settings),
    )
    vectors = VectorFolder(settings.vectors, corpus)
    folder = settings.out / "candidates"
    found = find_candidates(folder, manifest, corpus, vectors, settings, stop)
    return SearchedPairs(corpus, found, settings.k)


def start_plan(folder: Path, plan: ScoreManifest) -> None:
    """Publishes the plan of a score folder, or checks that the folder already follows the same one.

    Raises:
        JudgeChanged: The same plan, but another judge.
        DataError: Another plan, or something else is there.
    """
    path = folder / "manifest.json"
    if path.name not in names_in(folder):
        check_folder(folder, BEGUN)
        publish_json(path, plan)
        return
    found = read_json(path, ScoreManifest)
    different = differences(found, plan)
    if different == ["judge"]:
        raise JudgeChanged(
            f"{folder}: was begun with {found.judge}, but now {plan.judge} answers; one folder holds one judge's "
            "scores: start that judge again, or give another output folder"
        )
    if different:
        changes = "; ".join(f"{name} was {getattr(found, name)}, is {getattr(plan, name)}" for name in different)
        raise DataError(f"{folder}: was begun with another plan ({changes}); a plan never changes, give another folder")
