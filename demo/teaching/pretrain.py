"""Trains the demo's two tiny models on one CPU thread in about an hour. Both models are checked in.

    python -m demo.teaching.pretrain FOLDER
    python -m demo.teaching.pretrain FOLDER internvl            # a judge of another family, trained alike
    python -m demo.teaching.pretrain FOLDER llava_onevision

    FOLDER/judge, FOLDER/base     the two models
    FOLDER/judge-100, …           the judge after 100, 300 and 1,000 steps of its last stage, with increasing quality
    FOLDER/stages/NAME.pt         the weights after each stage; a stage with a file is skipped
    FOLDER/pretraining.json       the log

For another family, only FOLDER/judge is written. Its language model, its rows and its steps are the same.

The stages are designed for this world, and use its ground truth:

1. The vision tower learns shapes, colours, sizes and positions. Then it is frozen, and its features are cached, because
   training on captions would make it forget shapes.
2. The language model learns captions.
3. The base embedder starts from the caption model, and learns in-batch InfoNCE for only a few steps. With a better
   base, the students would have nothing to gain.
4. The judge also starts from the caption model, and learns Yes and No: first in short rows (one thing, two things,
   their relation), then in the judge's own prompt.

Large batches, short rows and the frozen vision tower keep the time at one hour.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from demo.teaching.learning import Log, cosine, learn
from demo.teaching.lessons import Album, Lessons, Row
from demo.teaching.reader import Reader
from demo.tiny_families import BUILDERS, Shape, TinyModel
from demo.world import WORLD
from unijudge.storage.files import publish_text, publishing

SEED = 0
SCENES = 8000
SHAPE = Shape(
    text={
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    },
    depth=2,
    width=64,
    inner=192,
    heads=4,
    spread=0.06,
    rope_theta=300.0,
    side=WORLD.pixels,
)
"""The sizes of the models. `rope_theta` is small, so that the positions of two columns differ enough. With 1e4,
relations are hardly learned."""
OWN_FAMILY = "qwen2_5_vl"
"""The family of the two models in the repository."""
STEPS = {
    "see": 300, "caption": 700, "embed": 60, "phrases": 1200, "couples": 1000, "relations": 2000, "settled": 2000,
    "polished": 4000, "mixed": 300, "judge": 2000,
}  # fmt: skip
"""Largest number of steps of each stage. A stage in `ENOUGH` may end earlier."""
KEPT = (100, 300, 1000)
"""Steps of the stage `judge` after which the judge is also saved."""
ENOUGH = {"phrases": 0.98, "couples": 0.96, "relations": 0.94, "settled": 0.94, "polished": 0.94}
"""The share of correct answers on new rows at which a stage ends. The number of steps to learn a skill differs by
hundreds between seeds, and the next stage fails without this skill."""


@torch.no_grad()
def queries_begin_as_keys(model: Any) -> None:
    """Initializes one query head of each group with its key head, so that equal content attracts from the start."""
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        width, group = attention.head_dim, attention.num_key_value_groups
        for head, key in enumerate(attention.k_proj.weight.split(width)):
            attention.q_proj.weight[head * group * width :][:width] = key


def see(reader: Reader, album: Album, tokenizer: Any, log: Log) -> None:
    """Trains the vision tower: the features of a cell predict shape, colour and position, and point to their words."""
    world = album.world
    words = {
        "shape": world.shapes, "color": world.colors, "size": world.sizes, "row": world.rows, "column": world.columns,
    }  # fmt: skip
    width = SHAPE.text["hidden_size"]
    cells_of_scene = len(world.rows) * len(world.columns)
    heads = torch.nn.ModuleDict(
        {name: torch.nn.Linear(width, len(values) + 1) for name, values in words.items()}
    )
    heads["digit"] = torch.nn.Linear(width * cells_of_scene, 10)
    sharpness = torch.nn.Parameter(torch.tensor(2.0))
    embedding = reader.model.get_input_embeddings().weight
    names = {
        k: torch.tensor([tokenizer(" " + v)["input_ids"][0] for v in values])
        for k, values in words.items()
    }
    truth = {
        name: torch.zeros(len(album.scenes), cells_of_scene, dtype=torch.long) for name in words
    }
    side = len(world.rows)
    for index, scene in enumerate(album.scenes):
        for thing in scene:
            cell = thing.row * side + thing.column
            truth["shape"][index, cell] = world.shapes.index(thing.shape) + 1
            truth["color"][index, cell] = world.colors.index(thing.color) + 1
            truth["size"][index, cell] = world.sizes.index(thing.size) + 1
    for cell in range(cells_of_scene):
        truth["row"][:, cell], truth["column"][:, cell] = cell // side + 1, cell % side + 1
    labels = torch.tensor(album.labels)
    dice = torch.Generator().manual_seed(SEED)

    def losses_of(_: int) -> list[Tensor]:
        scenes = torch.randint(len(album.scenes), (64,), generator=dice)
        digits = torch.randint(len(labels), (16,), generator=dice)
        seen = reader.look_at_cells([*scenes.tolist(), *(digits + len(album.scenes)).tolist()])
        cells, written = seen[:64].flatten(0, 1), seen[64:].flatten(1)
        loss = 0.3 * F.cross_entropy(heads["digit"](written), labels[digits])
        for name, ids in names.items():
            found = truth[name][scenes].flatten()
            loss = loss + F.cross_entropy(heads[name](cells), found)
            full = found > 0
            towards = (
                F.normalize(cells[full], dim=-1)
                @ F.normalize(embedding[ids], dim=-1).T
                * sharpness.exp()
            )
            loss = loss + F.cross_entropy(towards, found[full] - 1)
        length = seen.norm(dim=-1) / embedding[names["color"]].norm(dim=-1).mean().detach()
        return [loss + 0.1 * (length - 1).pow(2).mean()]

    learned = [*reader.vision_parameters(), embedding, sharpness, *heads.parameters()]
    learn(
        learned,
        STEPS["see"],
        losses_of,
        cosine(2e-3, 0.1),
        lambda step, loss: log("see", step, loss),
    )


def teach_judge(
    stages: "Stages", reader: Reader, lessons: Lessons, log: Log, keep: Callable[[int], None]
) -> None:
    """Trains Yes and No: for one thing, two things and their relation, all questions, and then in the judge's prompt.

    Args:
        stages: Stores the weights after each stage.
        reader: The caption model.
        lessons: Draws the training rows.
        log: Stores the losses.
        keep: Called in each step of the last stage, with the number of completed steps.
    """
    parameters = [*reader.model.model.language_model.parameters()]

    def some(batch: Callable[[int], list[Row]]) -> Callable[[int], Iterable[Tensor]]:
        return lambda step: reader.losses(batch(step))

    def mixed(step: int) -> list[Row]:
        return lessons.mixed(64, long=True) if step % 5 == 0 else lessons.mixed(128, long=False)

    def relations(step: int) -> list[Row]:
        return lessons.relations(128) if step % 4 else mixed(step)

    def in_prompt(step: int) -> Iterator[Tensor]:
        keep(step)
        long = step % 5 == 0
        share = 1.0 if step % 2 else 0.5
        for term in reader.losses(lessons.judged(32 if long else 64, long=long)):
            yield share * term
        if share < 1:
            for term in reader.losses(lessons.relations(64)):
                yield share * term

    flat = lambda _: 1e-3  # noqa: E731
    taught: list[tuple[str, Callable[[int], Iterable[Tensor]], Callable[[float], float]]] = [
        ("phrases", some(lambda _: lessons.phrases(128)), flat),
        (
            "couples",
            some(lambda step: lessons.couples(128) if step % 4 else lessons.phrases(128)),
            flat,
        ),
        ("relations", some(relations), flat),
        ("settled", some(relations), cosine(1e-3)),
        ("polished", some(relations), cosine(6e-4)),
        ("mixed", some(mixed), flat),
        ("judge", in_prompt, cosine(7e-4)),
    ]
    for name, losses_of, rate in taught:
        report = lambda step, loss, name=name: log(name, step, loss, correct=reader.correct)  # noqa: E731
        enough = lambda name=name: reader.correct >= ENOUGH.get(name, 2.0)  # noqa: E731
        reader.correct = 0.5
        stages.teach(name, partial(learn, parameters, STEPS[name], losses_of, rate, report, enough))


def teach_base(reader: Reader, lessons: Lessons, log: Log) -> None:
    """Trains the base embedder with in-batch InfoNCE over whole user turns. The vision tower is frozen."""

    def losses_of(_: int) -> list[Tensor]:
        queries, candidates = zip(*lessons.matches(64), strict=True)
        q, c = (
            F.normalize(reader.last_hidden(list(streams)), dim=-1)
            for streams in (queries, candidates)
        )
        return [F.cross_entropy(q @ c.T / 0.1, torch.arange(len(q)))]

    parameters = reader.model.model.language_model.parameters()
    learn(
        parameters,
        STEPS["embed"],
        losses_of,
        cosine(3e-3),
        lambda step, loss: log("embed", step, loss),
    )


@dataclass(frozen=True)
class Stages:
    """Stores the weights after each stage, and skips completed stages, so interrupted training can be resumed."""

    folder: Path
    model: Any
    lessons: Lessons
    log: Log

    def teach(self, name: str, stage: Callable[[], None]) -> None:
        """Runs one stage, or loads its result. In both cases the model and the log have the state after the stage."""
        path = self.folder / f"{name}.pt"
        if path.exists():
            kept = torch.load(path, weights_only=True)
            self.model.load_state_dict(kept["weights"])
            self.log.lines += kept["log"]
            return
        before = len(self.log.lines)
        self.lessons.begin(name)
        stage()
        with publishing(path) as draft:
            torch.save({"weights": self.model.state_dict(), "log": self.log.lines[before:]}, draft)


def main(folder: Path, family: str = OWN_FAMILY) -> None:
    """Trains both models, or a judge of another family, and writes them with the log."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stages").mkdir(exist_ok=True)
    log = Log()
    tiny = BUILDERS[family](SHAPE, SEED)
    queries_begin_as_keys(tiny.model)
    album = Album.of(WORLD, scenes=SCENES, seed=SEED, part="taught")
    reader = Reader(tiny, album.pictures, side=len(WORLD.rows))
    lessons = Lessons(album, tiny.tokenizer, SEED, tiny.picture)
    stages = Stages(folder / "stages", tiny.model, lessons, log)
    stages.teach("see", lambda: see(reader, album, tiny.tokenizer, log))
    reader.freeze_vision()
    stages.teach("caption", lambda: teach_captions(reader, lessons, log))

    # The base embedder and the judge both start from the caption model. The studies need no other family's base.
    if family == OWN_FAMILY:
        captions = copied(tiny.model)
        stages.teach("embed", lambda: teach_base(reader, lessons, log))
        write(folder / "base", tiny)
        tiny.model.load_state_dict(captions)

    def keep(step: int) -> None:
        if step in KEPT and family == OWN_FAMILY:
            write(folder / f"judge-{step}", tiny)

    teach_judge(stages, reader, lessons, log, keep)
    write(folder / "judge", tiny)
    publish_text(
        folder / "pretraining.json",
        json.dumps({"seed": SEED, "steps": STEPS, "log": log.lines}, indent=1),
    )


def teach_captions(reader: Reader, lessons: Lessons, log: Log) -> None:
    """Trains the language model to describe an image. The vision tower is frozen."""
    parameters = reader.model.model.language_model.parameters()
    losses_of = lambda _: reader.losses(lessons.captioning(24))  # noqa: E731
    learn(
        parameters,
        STEPS["caption"],
        losses_of,
        cosine(2e-3, 0.1),
        lambda step, loss: log("caption", step, loss),
    )


def copied(model: Any) -> dict[str, Tensor]:
    """Returns a copy of the current weights."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def write(folder: Path, tiny: TinyModel) -> None:
    """Writes the model in float16, and leaves the model in memory unchanged."""
    weights = copied(tiny.model)
    tiny.model.half()
    tiny.save(folder)
    tiny.model.float().load_state_dict(weights)


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Numbers near 0 would make a CPU several times slower. This setting holds for the whole process.
    torch.set_flush_denormal(True)
    chosen = sys.argv[2] if len(sys.argv) > 2 else OWN_FAMILY
    if chosen not in BUILDERS:
        sys.exit(f"{chosen[:60]}: is not a family. Choose from {', '.join(BUILDERS)}")
    main(Path(sys.argv[1]), chosen)
