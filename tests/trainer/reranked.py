"""Judges with known answers to lists, and a reranking with them over HTTP."""

from judge_service.backends.scripted import ScriptedJudge
from tests.miner.conftest import serving
from tests.trainer.exported import quiet
from trainer.reranking.rerank import rerank
from unijudge.formats.rankings import Evaluation, read_rankings, write_rankings
from unijudge.judging.prompt import Prompt
from unijudge.judging.verdicts import ListVerdict
from unijudge.storage.files import file_sha256, publish_json


class Answering(ScriptedJudge):
    """A scripted judge that always chooses the same number from a list, or gives the same answer."""

    def __init__(self, answer):
        super().__init__(Prompt())
        self.answer = answer
        self.listed = []

    @property
    def identity(self):
        """The identity of a judge. Another answer means another judge."""
        return super().identity.model_copy(update={"weights": repr(self.answer)})

    async def choose(self, query, candidates):
        self.listed.append(list(candidates))
        if not isinstance(self.answer, int):
            return self.answer
        logprobs = [-3.0] * len(candidates)
        logprobs[self.answer] = -0.1
        return ListVerdict.of(logprobs, argmax_is_number=True)


def write_evaluation(folder, corpus, rankings):
    """Writes an evaluation with these rankings, without any measure."""
    write_rankings(folder / "rankings.parquet", rankings)
    inputs, digest = {"corpus": corpus.fingerprint}, file_sha256(folder / "rankings.parquet")
    made = Evaluation(corpus=str(corpus.folder), subsets={}, inputs=inputs, rankings_sha256=digest)
    publish_json(folder / "metrics.json", made)
    return folder


def run(judge, settings, **options):
    """Returns (report, rankings before, rankings after)."""
    with serving(judge) as url:
        report = rerank(settings.model_copy(update={"service": url}), quiet, **options)
    return report, *(
        list(read_rankings(path / "rankings.parquet"))
        for path in (settings.evaluation, settings.out)
    )
