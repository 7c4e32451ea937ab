"""The judge with vLLM, and the transformers judge for comparison."""

from judge_service.backends import open_judge
from judge_service.settings import ModelSettings, ServiceSettings
from tests.engines import ENGINE


def load(folder, backend, *, engine=ENGINE, **model):
    settings = {
        "name": str(folder),
        "backend": backend,
        "min_pixels": 3136,
        "max_pixels": 12544,
        "max_tokens": 1024,
    }
    return open_judge(ServiceSettings(model=ModelSettings(**settings | model), engine=engine))


def gap(verdicts, alone, pairs):
    return max(
        abs(v.log_odds - alone[pair].log_odds) for v, pair in zip(verdicts, pairs, strict=True)
    )
