"""Teaches the demo's two tiny models, on one CPU thread in about forty minutes; they are checked in.

    python -m demo.pretrain FOLDER      writes FOLDER/judge, FOLDER/base and FOLDER/pretraining.json

Made by hand for this world, and told its truth: 1. the vision tower learns shapes, colours and places as such; 2. all
of the model learns captions; 3. the vision tower is frozen and its features kept; 4. the judge learns Yes and No, first
in short rows (one thing, two things, their relation), then in the judge's own prompt; 5. the base embedder, from the
captions' model, learns in-batch InfoNCE, for a few steps only: a base that knows everything leaves its students nothing
to gain. Large batches, short rows and frozen vision are what makes minutes enough.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from demo.lessons import Album, Lessons, Row
from demo.tiny_model import build_model, make_tokenizer, save_model
from demo.tiny_reader import Reader
from demo.world import SMALL
from unijudge.storage.files import publish_text

SEED = 0
SCENES = 8000
TEXT = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
VISION = {"depth": 2, "hidden_size": 64, "intermediate_size": 192, "num_heads": 4, "fullatt_block_indexes": [1]}
STD = {"initializer_range": 0.06}
ROPE_THETA = 300.0
"""Small, so that a column's turn of the position is seen: at 1e4 relations are hardly learned."""
STEPS = {
    "see": 120, "caption": 400, "embed": 60, "phrases": 1000, "couples": 800, "relations": 2000, "mixed": 300,
    "judge": 2500,
}  # fmt: skip
"""At most; a stage whose name stands in ENOUGH ends sooner."""
ENOUGH = {"phrases": 0.98, "couples": 0.96, "relations": 0.94}
"""The share of right answers, on rows seen for the first time, with which a stage ends: when a skill comes differs by
hundreds of steps from seed to seed, and the next stage fails without it."""


class Log:
    """The steps' losses, printed and kept."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self._begun = time.process_time()

    def __call__(self, stage: str, step: int, loss: float, **more: float) -> None:
        """Adds a line."""
        line = {"stage": stage, "step": step, "cpu_s": round(time.process_time() - self._begun), "loss": round(loss, 4)}
        self.lines.append(line | {name: round(value, 4) for name, value in more.items()})
        print(self.lines[-1], flush=True)


def learn(
    parameters: Iterable[torch.nn.Parameter],
    steps: int,
    loss_of: Callable[[int], Tensor],
    rate: Callable[[float], float],
    log: Callable[[int, float], None],
    optimizer: torch.optim.Optimizer | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> torch.optim.Optimizer:
    """AdamW under a learning rate by progress in [0, 1); reports a smoothed loss every hundred steps."""
    parameters = list(parameters)
    optimizer = optimizer or torch.optim.AdamW(parameters, weight_decay=0.02, betas=(0.9, 0.98))
    smooth = 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step / steps) * min(1.0, (step + 1) / 30)
        loss = loss_of(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        smooth = loss.item() if step == 0 else 0.95 * smooth + 0.05 * loss.item()
        done = step + 1 == steps or enough()
        if done or (step + 1) % 100 == 0:
            log(step + 1, smooth)
        if done:
            break
    return optimizer


def cosine(peak: float, floor: float = 0.05) -> Callable[[float], float]:
    """From `peak` down to a part of it."""
    return lambda progress: peak * ((1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)) + floor)


@torch.no_grad()
def queries_begin_as_keys(model: Any) -> None:
    """One head of each group looks for what is like itself, from the start: matching is what is to be learned."""
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        width, group = attention.head_dim, attention.num_key_value_groups
        for head, key in enumerate(attention.k_proj.weight.split(width)):
            attention.q_proj.weight[head * group * width :][:width] = key


def see(reader: Reader, album: Album, tokenizer: Any, log: Log) -> None:
    """Each cell's token tells its shape, colour and place, and points to the embeddings of these words."""
    world = album.world
    words = {"shape": world.shapes, "color": world.colors, "row": world.rows, "column": world.columns}
    width = TEXT["hidden_size"]
    heads = torch.nn.ModuleDict({name: torch.nn.Linear(width, len(values) + 1) for name, values in words.items()})
    heads["digit"] = torch.nn.Linear(width * reader.cells, 10)
    sharpness = torch.nn.Parameter(torch.tensor(2.0))
    embedding = reader.model.get_input_embeddings().weight
    names = {k: torch.tensor([tokenizer(" " + v)["input_ids"][0] for v in values]) for k, values in words.items()}
    truth = {name: torch.zeros(len(album.scenes), reader.cells, dtype=torch.long) for name in words}
    side = len(world.rows)
    for index, scene in enumerate(album.scenes):
        for thing in scene:
            cell = thing.row * side + thing.column
            truth["shape"][index, cell] = world.shapes.index(thing.shape) + 1
            truth["color"][index, cell] = world.colors.index(thing.color) + 1
    for cell in range(reader.cells):
        truth["row"][:, cell], truth["column"][:, cell] = cell // side + 1, cell % side + 1
    labels = torch.tensor(album.labels)
    dice = torch.Generator().manual_seed(SEED)

    def loss_of(_: int) -> Tensor:
        scenes = torch.randint(len(album.scenes), (64,), generator=dice)
        digits = torch.randint(len(labels), (16,), generator=dice)
        seen = reader.look([*scenes.tolist(), *(digits + len(album.scenes)).tolist()])
        cells, written = seen[:64].flatten(0, 1), seen[64:].flatten(1)
        loss = 0.3 * F.cross_entropy(heads["digit"](written), labels[digits])
        for name, ids in names.items():
            found = truth[name][scenes].flatten()
            loss = loss + F.cross_entropy(heads[name](cells), found)
            full = found > 0
            towards = F.normalize(cells[full], dim=-1) @ F.normalize(embedding[ids], dim=-1).T * sharpness.exp()
            loss = loss + F.cross_entropy(towards, found[full] - 1)
        length = seen.norm(dim=-1) / embedding[names["color"]].norm(dim=-1).mean().detach()
        return loss + 0.1 * (length - 1).pow(2).mean()

    learned = [*reader.model.model.visual.parameters(), embedding, sharpness, *heads.parameters()]
    learn(learned, STEPS["see"], loss_of, cosine(2e-3, 0.1), lambda step, loss: log("see", step, loss))


def teach_judge(reader: Reader, lessons: Lessons, log: Log) -> None:
    """Yes and No: one thing, two things and their relation, everything, and then in the judge's prompt."""
    parameters = [*reader.model.model.language_model.parameters()]

    def some(batch: Callable[[int], list[Row]]) -> Callable[[int], Tensor]:
        return lambda step: reader.loss(batch(step))

    def mixed(step: int) -> list[Row]:
        return lessons.mixed(64, long=True) if step % 5 == 0 else lessons.mixed(128, long=False)

    def in_prompt(step: int) -> Tensor:
        long = step % 5 == 0
        loss = reader.loss(lessons.judged(32 if long else 64, long=long))
        return loss if step % 2 else 0.5 * (loss + reader.loss(lessons.relations(64)))

    flat = lambda _: 1e-3  # noqa: E731
    stages: list[tuple[str, Callable[[int], Tensor], Callable[[float], float]]] = [
        ("phrases", some(lambda _: lessons.phrases(128)), flat),
        ("couples", some(lambda step: lessons.couples(128) if step % 4 else lessons.phrases(128)), flat),
        ("relations", some(lambda step: lessons.relations(128) if step % 4 else mixed(step)), flat),
        ("mixed", some(mixed), flat),
        ("judge", in_prompt, cosine(7e-4)),
    ]
    optimizer = None
    for name, loss_of, rate in stages:
        report = lambda step, loss, name=name: log(name, step, loss, correct=reader.correct)  # noqa: E731
        reader.correct = 0.5
        enough = lambda name=name: reader.correct >= ENOUGH.get(name, 2.0)  # noqa: E731
        optimizer = learn(parameters, STEPS[name], loss_of, rate, report, optimizer, enough)


def teach_base(reader: Reader, lessons: Lessons, log: Log) -> None:
    """In-batch InfoNCE over whole user's turns, vision frozen."""

    def loss_of(_: int) -> Tensor:
        queries, candidates = zip(*lessons.matches(64), strict=True)
        q, c = (F.normalize(reader.last_hidden(list(streams)), dim=-1) for streams in (queries, candidates))
        return F.cross_entropy(q @ c.T / 0.1, torch.arange(len(q)))

    parameters = reader.model.model.language_model.parameters()
    learn(parameters, STEPS["embed"], loss_of, cosine(3e-3), lambda step, loss: log("embed", step, loss))


def main(folder: Path) -> None:
    """Teaches both, and keeps the log."""
    torch.set_num_threads(1)
    log, tokenizer = Log(), make_tokenizer()
    album = Album.of(SMALL, scenes=SCENES, seed=SEED, held_out=False)
    model = build_model(tokenizer, TEXT | STD, VISION | STD, seed=SEED, rope_theta=ROPE_THETA, tied=True)
    queries_begin_as_keys(model)
    reader = Reader(model, tokenizer, Qwen2VLImageProcessorPil(), album.pictures)
    lessons = Lessons(album, tokenizer, SEED)
    see(reader, album, tokenizer, log)
    learn(
        model.parameters(),
        STEPS["caption"],
        lambda _: reader.loss(lessons.captioning(24)),
        cosine(2e-3, 0.1),
        lambda step, loss: log("caption", step, loss),
    )
    reader.freeze_vision()
    captions = {name: value.clone() for name, value in model.state_dict().items()}
    teach_base(reader, lessons, log)
    save_model(folder / "base", model.half(), tokenizer)
    model.float().load_state_dict(captions)
    teach_judge(reader, lessons, log)
    save_model(folder / "judge", model.half(), tokenizer)
    publish_text(folder / "pretraining.json", json.dumps({"seed": SEED, "steps": STEPS, "log": log.lines}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
