"""A judge of any family on a tiny model."""

from judge_service.backends import open_judge
from judge_service.settings import ModelSettings, ServiceSettings
from tests.engines import ENGINE
from unijudge.judging.prompt import Prompt

LABELS = {"llava_next": {"yes": "Y", "no": "N"}}
"""Words that are one token where the answer stands, for tokenizers in which Yes and No are not."""


def load(folder, family, backend="transformers", **prompt):
    model = {
        "name": str(folder),
        "backend": backend,
        "min_pixels": 3136,
        "max_pixels": 12544,
        "max_tokens": 2048,
    }
    chosen = Prompt(**LABELS.get(family, {}) | prompt)
    return open_judge(ServiceSettings(model=ModelSettings(**model), prompt=chosen, engine=ENGINE))
