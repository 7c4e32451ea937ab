"""A judge of the service, from settings."""

from judge_service.backends import open_judge
from judge_service.settings import ModelSettings, ServiceSettings
from unijudge.judging.prompt import Prompt


def load(folder, *, prompt=None, **settings):
    model = {
        "name": str(folder),
        "backend": "transformers",
        "min_pixels": 3136,
        "max_pixels": 12544,
    }
    chosen = ModelSettings(**model | {"max_tokens": 512} | settings)
    return open_judge(ServiceSettings(model=chosen, prompt=prompt or Prompt()))
