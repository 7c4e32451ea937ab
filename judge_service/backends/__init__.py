"""The judges that run in a replica. Each backend has its own file and the method `judge(query, candidates)`."""

import importlib.util
import logging
import re
from pathlib import Path

from judge_service.gpus import current_gpu
from judge_service.settings import ModelSettings, ServiceSettings
from unijudge.errors import ModelError, SettingsError
from unijudge.judging.verdicts import Judge
from unijudge.modeling.checkpoints import check_checkpoint
from unijudge.modeling.model_source import ADAPTER_CONFIG

logger = logging.getLogger(__name__)

HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?", re.ASCII)


def check_model_name(model: ModelSettings) -> None:
    """Refuses a name that can be no model, before Ray starts. Nothing is loaded, and no hub is asked.

    Raises:
        SettingsError: The name is empty, or is a path and no model's folder.
    """
    name, folder = model.name, Path(model.name)
    if model.backend == "scripted":
        return
    if not name:
        raise SettingsError(
            "model.name: is empty. Set a hub name such as Qwen/Qwen2.5-VL-7B-Instruct, or a folder"
        )
    if folder.is_dir():
        if not any((folder / file).is_file() for file in ("config.json", ADAPTER_CONFIG)):
            raise SettingsError(
                f"model.name: {name}: holds no config.json, so it is not a model. Set the folder of a model"
            )
    elif HUB_NAME.fullmatch(name) is None:
        raise SettingsError(
            f"model.name: {name}: no such folder, and not a hub name (owner/model). Check the path"
        )


def open_judge(settings: ServiceSettings) -> Judge:
    """Loads the judge that the settings name. Only the engine of this judge is imported.

    Raises:
        SettingsError: The settings contradict each other.
        ModelError: The model cannot be loaded, or cannot judge.
    """
    # The scripted judge needs no model.
    backend = settings.model.backend
    if backend == "scripted":
        from judge_service.backends.scripted import ScriptedJudge

        return ScriptedJudge(settings.prompt, delay_s=settings.model.scripted_delay_s)

    check_model_name(settings.model)
    if backend == "auto":
        backend = "vllm" if importlib.util.find_spec("vllm") else "transformers"
        if backend == "transformers":
            logger.warning(
                "vLLM is not installed: transformers scores the pairs, with exact scores but slower"
            )
    if backend == "transformers" and settings.tensor_parallel_size > 1:
        raise SettingsError(
            f"tensor_parallel_size: {settings.tensor_parallel_size}, but the transformers backend runs one copy on one "
            "GPU. Set tensor_parallel_size = 1 and more replicas, or use the vllm backend"
        )
    from judge_service.backends.rendering import open_inputs

    gpu = None
    if settings.model.device != "cpu":
        gpu = current_gpu(required=settings.model.device == "cuda" or settings.gpus_per_replica > 0)

    # The settings of the inputs pin the commit, so that the weights are of the same commit.
    inputs = open_inputs(settings.model, settings.prompt, settings.limits)
    settings = settings.model_copy(update={"model": inputs.settings})
    try:
        check_checkpoint(settings.model.name, settings.model.revision)
    except ModelError as error:
        raise ModelError(f"{settings.model.name}: {error}") from error

    if backend == "vllm":
        from judge_service.backends.vllm import VllmJudge

        return VllmJudge(inputs, settings, gpu)
    from judge_service.backends.transformers import TransformersJudge

    return TransformersJudge(inputs, "cuda" if gpu else "cpu")
