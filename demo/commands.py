"""The commands of the demo, one per line, as a user would type them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.world import WORLD

JUDGE, BASE = Path("demo/models/judge"), Path("demo/models/base")
PIXELS = f"model.min_pixels={WORLD.pixels**2} model.max_pixels={WORLD.pixels**2} model.device=cpu"
SELECTIONS = {
    "random": "preset=random",
    "topk_unfiltered": "preset=topk",
    "unime_v2": "",
}
"""Ways to choose negatives from the same scores: name → settings. Without settings: the method of the paper."""
STUDENTS = {
    "infonce_random": ("random", "loss.name=infonce loss.in_batch_weight=1"),
    "infonce_unfiltered": ("topk_unfiltered", "loss.name=infonce loss.in_batch_weight=1"),
    "infonce_mined": ("unime_v2", "loss.name=infonce loss.in_batch_weight=1"),
    "hard_labels": ("unime_v2", "loss.name=infonce"),
    "soft_labels": ("unime_v2", "loss.name=symmetric_kl"),
}
"""The students: name → their selection, and the settings of their loss."""


@dataclass(frozen=True)
class Size:
    """The sizes of data and training."""

    train_scenes: int = 4000
    train_queries: int = 600
    eval_scenes: int = 2000
    fresh_pairs: int = 2400
    student_steps: int = 240
    reranker_steps: int = 160
    replicas: int = 2


QUICK = Size(
    train_scenes=60,
    train_queries=40,
    eval_scenes=40,
    fresh_pairs=200,
    student_steps=4,
    reranker_steps=4,
    replicas=1,
)
"""Sizes for the test of the demo itself: every step runs, and no model learns anything."""


@dataclass(frozen=True)
class Demo:
    """The commands as text. `out` is the folder of the demo."""

    out: Path
    size: Size
    seeds: int

    def make_data(self) -> Iterator[str]:
        """Yields the commands that create a training world for each seed, and one world for evaluation."""
        for seed in range(self.seeds):
            yield f"python -m demo.data {self.out}/data/train-{seed} --part train --scenes {self.size.train_scenes} \
--queries {self.size.train_queries} --seed {seed}"
        yield f"python -m demo.data {self.out}/data/eval --part eval --scenes {self.size.eval_scenes}"

    def import_all(self) -> Iterator[str]:
        """Yields the imports. Evaluation imports all true pairs, so that every right answer counts."""
        for seed in range(self.seeds):
            data = f"{self.out}/data/train-{seed}"
            yield f"unijudge mine import mmeb {data}/mmeb {self.out}/train-{seed}/corpus --images {data}/images \
--items {data}/items.jsonl"
        data = f"{self.out}/data/eval"
        yield f"unijudge mine import pairs {data}/truth.jsonl {self.out}/eval/corpus --images {data}/images \
--items {data}/items.jsonl"

    def embed_base(self) -> list[list[str]]:
        """Returns the commands that embed every corpus with the base embedder, and evaluate it."""
        train = [[self._embed(f"train-{seed}", "vectors")] for seed in range(self.seeds)]
        return [*train, [self._embed("eval", "base"), self._evaluate("base")]]

    def judge_all(self, service: str) -> Iterator[tuple[str, str]]:
        """Yields (stage, command): the judge's quality, its scores, and the base's best items in the judge's order."""
        yield "judge", f"python -m demo.pairs {self.out}/data/pairs {self.size.fresh_pairs}"
        yield (
            "judge",
            f"unijudge judge bench {self.out}/data/pairs/pairs.jsonl --service {service} --out {self.out}/judge",
        )
        for seed in range(self.seeds):
            yield (
                "score",
                f"unijudge mine score {self._mined(seed)} out={self.out}/train-{seed}/scores \
service={service} pool=subset shard_size=64",
            )
        yield "rerank", self.rerank(service, "judge")

    def select_all(self) -> Iterator[str]:
        """Yields the commands that select negatives in three ways, from the same scores."""
        for seed in range(self.seeds):
            for name, settings in SELECTIONS.items():
                folder = f"{self.out}/train-{seed}"
                yield f"unijudge mine select {self._mined(seed)} scores={folder}/scores {settings} \
out={folder}/{name}"

    def train_all(self) -> list[list[str]]:
        """Returns the commands that train the reranker, and train and evaluate each student."""
        reranker = (
            f"unijudge train reranker model.name={JUDGE} {PIXELS} {self._rows(0, 'unime_v2')} \
max_steps={self.size.reranker_steps} warmup_steps=12 batch_size=16 learning_rate=3e-4 \
lora.rank=16 lora.alpha=32 loss.hardest=4 out={self.out}/runs/reranker"
        )
        return [
            [reranker],
            *(self._student(name, seed) for seed in range(self.seeds) for name in STUDENTS),
        ]

    def rerank(self, service: str, name: str) -> str:
        """Returns the command that reranks the base's ten best items of each query with a service."""
        return (
            f"unijudge train rerank corpus={self.out}/eval/corpus evaluation={self.out}/eval/base-metrics \
service={service} max_in_flight=48 out={self.out}/eval/rerank-{name}"
        )

    def _student(self, name: str, seed: int) -> list[str]:
        rows, loss = STUDENTS[name]
        run_name = f"{name}-{seed}"
        train = (
            f"unijudge train embedder model.name={BASE} {PIXELS} {self._rows(seed, rows)} {loss} \
max_steps={self.size.student_steps} warmup_steps=8 batch_size=20 learning_rate=1e-3 \
lora.alpha=32 seed={seed} out={self.out}/runs/{run_name}"
        )
        adapter = f"model.adapter={self.out}/runs/{run_name}/adapter"
        return [train, self._embed("eval", run_name, adapter), self._evaluate(run_name)]

    def _embed(self, corpus: str, out: str, more: str = "") -> str:
        return f"unijudge train embed model.name={BASE} {PIXELS} {more} batch_size=64 \
corpus={self.out}/{corpus}/corpus out={self.out}/{corpus}/{out}"

    def _evaluate(self, name: str) -> str:
        folder = f"{self.out}/eval"
        return f"unijudge train evaluate corpus={folder}/corpus vectors={folder}/{name} \
out={folder}/{name}-metrics"

    def _mined(self, seed: int) -> str:
        return f"corpus={self.out}/train-{seed}/corpus vectors={self.out}/train-{seed}/vectors"

    def _rows(self, seed: int, name: str) -> str:
        return f"corpus={self.out}/train-{seed}/corpus triples={self.out}/train-{seed}/{name}"
