"""Opens the system that a benchmark measures."""

from trainer.benchmarks.settings import BenchmarkSettings
from trainer.embedding.base import System


def open_system(settings: BenchmarkSettings) -> System:
    """Loads the system that the settings name.

    Raises:
        SettingsError: No model is named.
        ModelError: It cannot be loaded.
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
