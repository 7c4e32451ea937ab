"""Opens the system that a benchmark measures: a model of this project, sentence-transformers or an endpoint."""

from trainer.benchmarks.settings import BenchmarkSettings
from trainer.embedding.base import System


def open_system(settings: BenchmarkSettings) -> System:
    """Loads the system that the settings name.

    Raises:
        SettingsError: The settings name no model.
        ModelError: The model cannot be loaded.
    """
    match settings.system:
        case "unijudge":
            from trainer.embedding.unijudge_model import OurModel

            return OurModel(settings.model)
        case "sentence-transformers":
            from trainer.embedding.sentence_transformers import SentenceTransformersModel

            return SentenceTransformersModel(settings.sentence_transformers, settings.instruction)
        case "endpoint":
            from trainer.embedding.endpoint import Endpoint

            return Endpoint(settings.endpoint)
