"""Makes the plan of a scoring job before the job starts, and opens the source of its pairs."""

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

TOTALS = "totals.json"
"""The file of the counts of all runs (`ScoreTotals`)."""
BEGUN = {"manifest.json", "candidates", TOTALS}
"""The files and folders that may exist in the folder of a job without a plan."""


CandidateInput = VectorFolder | CascadePairs
"""What the candidates come from: vectors to search, or the scores of a cascade's first judge."""


def open_candidate_input(settings: ScoreSettings, corpus: Corpus) -> CandidateInput:
    """Opens the vectors of a job, or a first judge's scores. A job opens this input once.

    Raises:
        SettingsError: Neither vectors nor a first judge's scores are given.
        DataError: The input is missing, or belongs to another corpus.
    """
    if settings.cascade.scores is not None:
        return CascadePairs(corpus, settings.cascade)
    if settings.vectors is None:
        raise SettingsError(
            "vectors: is not set, but only the second step of a cascade works without vectors. Give the folder that "
            "`train embed` wrote"
        )
    return VectorFolder(settings.vectors, corpus)


def plan_of(
    settings: ScoreSettings, corpus: Corpus, judge: JudgeIdentity, candidate_input: CandidateInput
) -> ScoreManifest:
    """Returns the plan of a job, which will be the manifest of its folder.

    Raises:
        SettingsError: The judge of a cascade's second step is the judge of its first step.
        JudgeChanged: A folder to reuse was scored by a different judge.
        DataError: An input is missing or belongs to something else, or `out` holds something else.
    """
    # All inputs and the output are checked here, before the search for candidates.
    check_reuse(settings.reuse, judge)
    if not exists(settings.out / "manifest.json"):
        check_folder(settings.out, BEGUN)
    shape: dict[str, Any] = {
        "corpus": corpus.fingerprint,
        "queries": len(corpus.queries),
        "judge": judge,
    }
    shape |= {"shard_size": settings.shard_size, "made": Provenance.now(settings)}
    if isinstance(candidate_input, CascadePairs):
        questions = candidate_input
        first = questions.manifest
        if first.judge == judge:
            raise SettingsError(
                f"cascade.scores: {settings.cascade.scores} was scored by the judge of this service ({judge}), but the "
                "second step of a cascade needs a different judge. Start the large judge, or give the scores of "
                "another judge"
            )
        band: dict[str, Any] = {"scores": first.fingerprint} | settings.cascade.model_dump(
            include={"beta", "width"}
        )
        band |= questions.scale.model_dump()
        kept = first.model_dump(include={"vectors", "k", "pool", "retrieval"})
        return ScoreManifest(**shape, **kept, band=band)
    vectors = file_sha256(candidate_input.folder / "vectors.json")
    return ScoreManifest(
        **shape, vectors=vectors, k=settings.k, pool=settings.pool, retrieval=settings.retrieval
    )


def pair_source_of(
    settings: ScoreSettings,
    corpus: Corpus,
    candidate_input: CandidateInput,
    stop: threading.Event | None = None,
) -> PairSource:
    """Returns the source of a job's pairs. Searches candidates first, if they are missing.

    Raises:
        DataError: Vectors are missing, truncated or of a different corpus, or the first step of a cascade is
            incomplete.
        Stopped: `stop` was set during the search.
    """
    if isinstance(candidate_input, CascadePairs):
        return candidate_input
    manifest = CandidateManifest(
        corpus=corpus.fingerprint,
        vectors=file_sha256(candidate_input.folder / "vectors.json"),
        queries=len(corpus.queries),
        k=settings.k,
        pool=settings.pool,
        retrieval=settings.retrieval,
        made=Provenance.now(settings),
    )
    folder = settings.out / "candidates"
    found = find_candidates(folder, manifest, corpus, candidate_input, settings, stop)
    return SearchedPairs(corpus, found, settings.k)


def start_plan(folder: Path, plan: ScoreManifest) -> None:
    """Writes the plan of a score folder, or checks that the folder has the same plan.

    Raises:
        JudgeChanged: The folder has the same plan with a different judge.
        DataError: The folder has a different plan, or holds something else.
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
            f"{folder}: was started with judge {found.judge}, but the service runs {plan.judge}, and a folder holds "
            "the scores of a single judge. Start the first judge again, or give another output folder"
        )
    if different:
        changes = "; ".join(
            f"{name} was {getattr(found, name)}, is {getattr(plan, name)}" for name in different
        )
        raise DataError(
            f"{folder}: was started with a different plan ({changes}), and a plan never changes. Give another folder"
        )
