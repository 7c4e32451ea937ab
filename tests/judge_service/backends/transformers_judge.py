"""The transformers judge on a tiny model."""

from judge_service.backends import open_judge
from judge_service.settings import ModelSettings, ServiceSettings
from unijudge.judging.prompt import Prompt

PIXELS = {"min_pixels": 56 * 56, "max_pixels": 112 * 112}


def load(folder, prompt=None, **model):
    settings = ModelSettings(name=str(folder), **{"backend": "transformers"} | PIXELS | model)
    return open_judge(ServiceSettings(model=settings, prompt=prompt or Prompt()))
