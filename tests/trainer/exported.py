"""Tiny runs to export, contents to compare, and a function that runs a card's code."""

import io
import re

import numpy as np
import torch
from PIL import Image

from tests.pictures import noise
from trainer.embedding.embed import embed_corpus
from trainer.embedding.settings import EmbedSettings
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.settings import EvaluateSettings
from trainer.losses.settings import RerankerLossSettings
from trainer.models.backbone import open_backbone
from trainer.models.embedder import embed
from trainer.models.settings import LoraSettings, RerankerLoraSettings
from trainer.training.embedder import train_embedder
from trainer.training.reranker import train_reranker
from trainer.training.settings import EmbedderSettings, RerankerSettings
from unijudge.content import Content

LOOP = {
    "max_steps": 4,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "warmup_steps": 1,
    "num_negatives": 3,
}


def quiet(*_):
    pass


SMALL, TALL, WIDE, FITTING = (
    noise(0, (40, 31)),
    noise(1, (200, 330)),
    noise(2, (280, 56)),
    noise(3, (70, 100)),
)
CONTENTS = [
    Content("a red fox"), Content("Which colour? " * 9), Content(image=SMALL), Content(image=TALL), Content(image=WIDE),
    Content("Find an image like this one.", TALL), Content("Describe the image.", SMALL),
]  # fmt: skip
PAIRS = [(CONTENTS[a], CONTENTS[b]) for a, b in [(0, 1), (0, 3), (2, 0), (5, 6), (6, 5), (3, 4)]]


def trained_embedder(corpus, triples, model, out):
    settings = EmbedderSettings(
        corpus=corpus.folder,
        triples=triples,
        out=out,
        model=model,
        lora=LoraSettings(rank=4, alpha=8),
        **LOOP,
    )
    train_embedder(settings, quiet)
    return out


def trained_reranker(corpus, triples, model, out, **changes):
    settings = RerankerSettings(
        corpus=corpus.folder, triples=triples, out=out, model=model.model_dump(),
        lora=RerankerLoraSettings(rank=4, alpha=8),
        loss=RerankerLossSettings(listwise=0), **LOOP | changes,
    )  # fmt: skip
    train_reranker(settings, quiet)
    return out


@torch.inference_mode()
def vectors(model, adapter, contents=CONTENTS):
    """Returns the vectors of the base with the run's adapter, computed by unijudge."""
    return embed(open_backbone(model.model_copy(update={"adapter": adapter})), contents).numpy()


@torch.inference_mode()
def log_odds(model, adapter, prompt, pairs=PAIRS):
    """Returns the log-odds of the base with the run's adapter, computed by unijudge."""
    backbone = open_backbone(model.model_copy(update={"adapter": adapter}))
    encoder = backbone.inputs.encoder
    logits = backbone.next_token_logits([encoder.stream(prompt.parts(*pair)) for pair in pairs])
    return (
        logits[:, encoder.label_id(prompt.yes)] - logits[:, encoder.label_id(prompt.no)]
    ).numpy()


def as_given(content, *, text_first=False):
    """Returns the content in the form that sentence-transformers takes."""
    if content.image is None:
        return content.text
    image = Image.open(io.BytesIO(content.image))
    if content.text is None:
        return image
    both = {"text": content.text, "image": image}
    return both if text_first else {"image": image, "text": content.text}


def code_of(folder, library):
    """Returns the Python code under a library's name on the card."""
    section = (folder / "README.md").read_text().split(f"**{library}**")[1].split("\n**")[0]
    (code,) = re.findall(r"```python\n(.+?)```", section, re.DOTALL)
    return code


def run_card(folder, library, monkeypatch):
    """Runs the code of a card where a reader would run it, beside the folder. Returns its variables."""
    (folder.parent / "photo.jpg").write_bytes(TALL)
    monkeypatch.chdir(folder.parent)
    variables = {"__name__": "__main__"}  # the code checks whether it is the main program
    exec(code_of(folder, library), variables)  # noqa: S102
    return variables


def evaluation_of(corpus, model, folder):
    embed_corpus(EmbedSettings(corpus=corpus.folder, out=folder / "vectors", model=model), quiet)
    evaluate(
        EvaluateSettings(
            corpus=corpus.folder, vectors=folder / "vectors", out=folder / "evaluation"
        )
    )
    return folder / "evaluation"


def gap(found, expected):
    return float(np.abs(np.asarray(found) - expected).max())
