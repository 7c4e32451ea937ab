"""The training of the reranker: a judge learns from the rows that were mined with its scores.

The trained reranker is served as a judge.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from trainer.data.dataset import Examples
from trainer.losses.reranker import Lesson, Lessons, reranker_loss
from trainer.models.backbone import Backbone
from trainer.models.lora import save_merged
from trainer.training.distributed import processes
from trainer.training.finetune import finetune
from trainer.training.settings import RerankerSettings
from unijudge.judging.reranker_file import JUDGING_FILE, JudgingManifest
from unijudge.modeling.chat_encoder import Stream
from unijudge.storage.files import publishing_folder


def train_reranker(settings: RerankerSettings, report: Callable[[int, float], None]) -> Path:
    """Runs one training, or resumes it, and merges its adapter into the model.

    Args:
        settings: The settings of the run.
        report: A function that is called with (step, loss) after each update.

    Returns:
        The folder of the merged model, which `judge serve` takes as `model.name`.

    Raises:
        UnijudgeError: The rows, the model or the settings do not match; or a loss was not finite.
    """
    with processes(settings.model.device, settings.out, settings.trackers) as accelerator:
        run = finetune(settings, partial(RerankerObjective, settings), report, accelerator)
        if accelerator.is_main_process and not run.merged.exists():
            with publishing_folder(run.merged) as draft:
                save_merged(settings.model, run.adapter, draft)
        return run.merged


class RerankerObjective:
    """The objective of the reranker: the correct answers to the questions of each row."""

    questions = True

    def __init__(self, settings: RerankerSettings, backbone: Backbone, _: Examples):
        """Checks that each answer is a single token.

        Raises:
            ModelError: An answer is more than one token.
        """
        lessons = Lessons(backbone, settings.prompt, settings.loss, settings.seed)
        self.collate, self.longest = lessons.of, lessons.longest
        self.loss = partial(reranker_loss, backbone, settings.loss)
        asked = JudgingManifest(
            prompt=settings.prompt,
            min_pixels=settings.model.min_pixels,
            max_pixels=settings.model.max_pixels,
            base=backbone.inputs.weights,
        )
        self.beside = {JUDGING_FILE: asked}

    def streams(self, batch: Lesson) -> list[list[Stream]]:
        """Returns all questions of a batch as one group, since their hidden states are kept at the same time."""
        return [[question.stream for question in (*batch.pairs, *batch.lists)]]
