"""The judges that run here: each in one file, each behind `judge(query, candidates)`."""

import importlib.util
import logging

from judge_service.gpus import current_gpu
from judge_service.settings import ServiceSettings
from unijudge.errors import ModelError, SettingsError
from unijudge.judging.verdicts import Judge
from unijudge.modeling.checkpoints import check_checkpoint

logger = logging.getLogger(__name__)


def open_judge(settings: ServiceSettings) -> Judge:
    """Loads the judge that the settings name. The engines are imported here, and only the chosen one.

    Raises:
        SettingsError: The settings contradict each other.
        ModelError: The model cannot be loaded, or cannot judge.
    """
    backend = settings.model.backend
    if backend == "scripted":
        from judge_service.backends.scripted import ScriptedJudge

        return ScriptedJudge(settings.prompt, delay_s=settings.model.scripted_delay_s)
    if not settings.model.name:
        raise SettingsError("model.name: required; a hub name such as Qwen/Qwen2.5-VL-7B-Instruct, or a folder")
    if backend == "auto":
        backend = "vllm" if importlib.util.find_spec("vllm") else "transformers"
        if backend == "transformers":
            logger.warning("vLLM is not installed: judging with transformers, exact and slower; the identity says so")
    if backend == "transformers" and settings.tensor_parallel_size > 1:
        raise SettingsError(
            f"tensor_parallel_size: {settings.tensor_parallel_size}, but the transformers backend runs one copy on one "
            "GPU; set 1 and more replicas, or the vllm backend"
        )
    from judge_service.backends.rendering import open_inputs

    device = settings.model.device
    gpu = current_gpu(required=device == "cuda" or settings.gpus_per_replica > 0) if device != "cpu" else None
    inputs = open_inputs(settings.model, settings.prompt, settings.limits)
    settings = settings.model_copy(update={"model": inputs.settings})  # the weights of the same commit
    try:
        check_checkpoint(settings.model.name, settings.model.revision)
    except ModelError as error:
        raise ModelError(f"{settings.model.name}: {error}") from error
    if backend == "vllm":
        from judge_service.backends.vllm import VllmJudge

        return VllmJudge(inputs, settings, gpu)
    from judge_service.backends.transformers import TransformersJudge

    return TransformersJudge(inputs, "cuda" if gpu else "cpu")
