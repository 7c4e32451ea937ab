"""Labelled pairs + a running service → bench.json, bench.html and scores.parquet."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from judge_service.bench.asking import (
    BenchProgress,
    BenchQuery,
    Contents,
    PairAnswer,
    answers,
    questions_of,
)
from judge_service.bench.figures import INTERVAL, ScoredPairs, all_figures
from judge_service.bench.injection import (
    Injections,
    drawn,
    injections,
    texts_for,
    with_a_no,
    with_text,
)
from judge_service.bench.pairs import Format, LabelledPair, read_labelled, sampled
from judge_service.bench.report import page_of
from judge_service.bench.result import PAGE, RESULT, SCORES, Bench
from unijudge.client.client import JudgeClient
from unijudge.errors import JudgeError, UnijudgeError, first_error
from unijudge.foreign.cells import Side
from unijudge.foreign.tables import files_of, shared_folder
from unijudge.formats.labelled_scores import LabelledScore, write_labelled
from unijudge.judging.verdicts import JudgeIdentity, PairError, Verdict
from unijudge.provenance import Provenance, without_passwords
from unijudge.storage.files import file_sha256, publish_json, publish_text
from unijudge.storage.locations import locate
from unijudge.storage.outputs import check_absent, is_folder_of, replacing


@dataclass(frozen=True)
class BenchJob:
    """The input of `judge bench`."""

    files: Sequence[Path]
    service: str
    out: Path
    layout: Format | None = None
    images: Path | None = None
    """The root of the pictures' names. None: the folder of the files."""
    instruction: str | None = None
    """The text beside each picture, for SugarCrepe."""
    queries: int | None = None
    """The largest number of queries of each subset, drawn uniformly. None: all queries."""
    injections: int = 200
    """The number of candidates to which each text is added. 0 skips this measurement."""
    seed: int = 0
    """The seed of all draws."""
    key: str | None = None
    """The API key of the service."""
    at_once: int = 64
    """The largest number of queries in flight."""
    retry_for_s: float = 60
    """Seconds during which a request is retried."""


def bench(job: BenchJob, report: BenchProgress, *, overwrite: bool = False) -> Bench:
    """Measures a judge, and writes the folder `job.out`.

    Raises:
        DataError: The pairs are invalid, a picture is missing, or `out` exists.
        JudgeError: The service cannot be used, or no pair gets a verdict.
    """
    pairs = read_labelled(job.files, job.layout, job.instruction)
    if job.queries is not None:
        pairs = sampled(pairs, job.queries, job.seed)
    is_own = is_folder_of(RESULT, Bench, lambda _, name: name in (PAGE, SCORES))
    with replacing(job.out, is_own, "measurement of a judge", overwrite=overwrite) as out:
        check_absent(out)
        with Contents(pairs, job.images or _folder_of(job.files)) as contents:
            try:
                identity, scored, steered = asyncio.run(_asked(job, pairs, contents, report))
            except* UnijudgeError as group:
                raise first_error(group) from None
            write_labelled(out / SCORES, [_row(pair, contents) for pair in scored])
        made = Bench(
            service=without_passwords(job.service),
            identity=identity,
            inputs={str(path): file_sha256(path) for path in files_of(job.files)},
            interval=f"{INTERVAL}, seed {job.seed}",
            seed=job.seed,
            figures=all_figures(scored, job.seed),
            injections=steered,
            made=Provenance.now(),
        )
        publish_text(out / PAGE, page_of(made, scored))
        publish_json(out / RESULT, made)
    return made


def _folder_of(files: Sequence[Path]) -> Path:
    return locate(shared_folder(files_of(files)) or ".")


async def _asked(
    job: BenchJob, pairs: Sequence[LabelledPair], contents: Contents, report: BenchProgress
) -> tuple[JudgeIdentity, list[ScoredPairs], Injections | None]:
    """Returns the judge's identity, the pairs with their answers, and the effect of texts inside candidates."""
    client = JudgeClient(
        job.service, key=job.key, max_in_flight=job.at_once, retry_for_s=job.retry_for_s
    )
    async with client as judge:
        scored = await _scored(job, judge, pairs, contents, report)
        _check_verdicts(job, scored)
        steered = await _injected(job, judge, scored, contents, report) if job.injections else None
        return judge.identity, scored, steered


async def _scored(
    job: BenchJob,
    judge: JudgeClient,
    pairs: Sequence[LabelledPair],
    contents: Contents,
    report: BenchProgress,
) -> list[ScoredPairs]:
    """Returns the pairs with their answers, in the order of the pairs."""
    questions = questions_of(pairs)
    answers_of_queries = await answers(
        judge, contents, questions, job.at_once, partial(report, "pairs")
    )

    # Query → its number and the answers of its candidates.
    by_query: dict[Side, tuple[int, dict[Side, PairAnswer]]] = {}
    for number, (question, results) in enumerate(zip(questions, answers_of_queries, strict=True)):
        by_query[question.query] = number, dict(zip(question.candidates, results, strict=True))

    # A pair that several subsets have was judged once, and appears once for each subset here.
    scored = []
    for pair in pairs:
        number, by_candidate = by_query[pair.query]
        scored.append(ScoredPairs(pair, number, by_candidate[pair.candidate]))
    return scored


def _check_verdicts(job: BenchJob, scored: Sequence[ScoredPairs]) -> None:
    """Checks that at least one pair has a verdict.

    Raises:
        JudgeError: No pair has a verdict.
    """
    errors = [pair.answer for pair in scored if isinstance(pair.answer, PairError)]
    if len(errors) == len(scored):
        reasons = Counter(f"{error.code}: {error.message}" for error in errors)
        ((commonest, _),) = reasons.most_common(1)
        raise JudgeError(
            f"{without_passwords(job.service)}: none of {len(scored):,} pairs got a verdict. The most common error is "
            f"{commonest}. Check the service and the pairs"
        )


async def _injected(
    job: BenchJob,
    judge: JudgeClient,
    scored: Sequence[ScoredPairs],
    contents: Contents,
    report: BenchProgress,
) -> Injections | None:
    """Returns the effect of texts inside candidates. None if no negative got a No."""
    refused = with_a_no(scored)
    if not refused:
        return None
    texts = texts_for(judge.identity.yes)
    sample = drawn(refused, job.injections, job.seed)

    # Each drawn candidate is judged again, once with each text.
    questions = []
    for pair, _ in sample:
        candidates = [with_text(pair.candidate, text) for text in texts.values()]
        questions.append(BenchQuery(pair.query, candidates))
    after = await answers(
        judge, contents, questions, job.at_once, partial(report, "pairs with an added text")
    )
    return injections(
        [verdict for _, verdict in sample], after, texts, of=len(refused), seed=job.seed
    )


def _row(scored: ScoredPairs, contents: Contents) -> LabelledScore:
    pair = scored.pair
    return LabelledScore(
        place=pair.place,
        subset=pair.subset,
        kind=pair.kind,
        match=pair.match,
        query_key=contents.key(pair.query),
        query_text=pair.query.text,
        query_image=pair.query.image if isinstance(pair.query.image, str) else None,
        candidate_key=contents.key(pair.candidate),
        candidate_text=pair.candidate.text,
        candidate_image=pair.candidate.image if isinstance(pair.candidate.image, str) else None,
        **_answer(scored.answer),
    )


def _answer(answer: PairAnswer) -> dict[str, Any]:
    if isinstance(answer, Verdict):
        return answer.model_dump()
    return {"error": f"{answer.code}: {answer.message}"}
