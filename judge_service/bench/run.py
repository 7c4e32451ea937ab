"""Labelled pairs + a running service → bench.json, bench.html and scores.parquet."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from judge_service.bench.asking import Answer, BenchQuery, Contents, ProgressCallback, answers, questions_of
from judge_service.bench.figures import INTERVAL, ScoredPairs, all_figures
from judge_service.bench.injection import Injections, drawn, injections, texts_for, with_a_no, with_text
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
class Job:
    """What `judge bench` is told."""

    files: Sequence[Path]
    service: str
    out: Path
    layout: Format | None = None
    images: Path | None = None
    """The root of the pictures' names; None: the folder of the files."""
    instruction: str | None = None
    queries: int | None = None
    """Queries of each subset at most, drawn evenly; None: all."""
    injections: int = 200
    """Candidates that each text is added to; 0: none."""
    seed: int = 0
    key: str | None = None
    at_once: int = 64
    """Queries that wait for the service at most."""
    retry_for_s: float = 60


def bench(job: Job, report: ProgressCallback, *, overwrite: bool = False) -> Bench:
    """Measures a judge, and writes the folder `job.out`.

    Raises:
        DataError: The pairs cannot be used, a picture is missing, or `out` exists.
        JudgeError: The service cannot be used, or gives no verdict at all.
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
            write_labelled(out / SCORES, [_row(one, contents) for one in scored])
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
    job: Job, pairs: Sequence[LabelledPair], contents: Contents, report: ProgressCallback
) -> tuple[JudgeIdentity, list[ScoredPairs], Injections | None]:
    """Who judges, the pairs with their answers, and what texts inside candidates do."""
    client = JudgeClient(job.service, key=job.key, max_in_flight=job.at_once, retry_for_s=job.retry_for_s)
    async with client as judge:
        scored = await _scored(job, judge, pairs, contents, report)
        _check_verdicts(job, scored)
        steered = await _injected(job, judge, scored, contents, report) if job.injections else None
        return judge.identity, scored, steered


async def _scored(
    job: Job, judge: JudgeClient, pairs: Sequence[LabelledPair], contents: Contents, report: ProgressCallback
) -> list[ScoredPairs]:
    """The pairs with their answers, in order."""
    questions = questions_of(pairs)
    found = await answers(judge, contents, questions, job.at_once, partial(report, "pairs"))
    by_query: dict[Side, tuple[int, dict[Side, Answer]]] = {}
    for number, (question, row) in enumerate(zip(questions, found, strict=True)):
        by_query[question.query] = number, dict(zip(question.candidates, row, strict=True))
    scored = []
    for pair in pairs:
        number, by_candidate = by_query[pair.query]
        scored.append(ScoredPairs(pair, number, by_candidate[pair.candidate]))
    return scored


def _check_verdicts(job: Job, scored: Sequence[ScoredPairs]) -> None:
    """Returns if the judge gave any verdict.

    Raises:
        JudgeError: It gave none.
    """
    faults = Counter(f"{one.answer.code}: {one.answer.message}" for one in scored if isinstance(one.answer, PairError))
    if faults.total() == len(scored):
        reason, _ = faults.most_common(1)[0]
        raise JudgeError(
            f"{without_passwords(job.service)}: none of {len(scored):,} pairs got a verdict, most often because of "
            f"{reason}. Look at the service, or at the pairs"
        )


async def _injected(
    job: Job, judge: JudgeClient, scored: Sequence[ScoredPairs], contents: Contents, report: ProgressCallback
) -> Injections | None:
    """What texts inside candidates do; None where there is no candidate to add them to."""
    refused = with_a_no(scored)
    if not refused:
        return None
    texts = texts_for(judge.identity.yes)
    sample = drawn(refused, job.injections, job.seed)
    questions = []
    for pair, _ in sample:
        candidates = [with_text(pair.candidate, text) for text in texts.values()]
        questions.append(BenchQuery(pair.query, candidates))
    after = await answers(judge, contents, questions, job.at_once, partial(report, "pairs with an added text"))
    return injections([verdict for _, verdict in sample], after, texts, of=len(refused), seed=job.seed)


def _row(one: ScoredPairs, contents: Contents) -> LabelledScore:
    pair = one.pair
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
        **_answer(one.answer),
    )


def _answer(answer: Answer) -> dict[str, Any]:
    if isinstance(answer, Verdict):
        return answer.model_dump()
    return {"error": f"{answer.code}: {answer.message}"}
