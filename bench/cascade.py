"""Measures a cascade in the demo's world: the savings of a small judge, and its loss against the full selection.

    .venv/bin/python bench/cascade.py [--scenes 200]

The large judge is the judge of the demo. The small judge is the same model without the last of its four layers. It
computes the same number of tokens with fewer FLOPs. Two cheaper ways to judge do not work. With a quarter of the pixels
an image has only one token, and the judge guesses. A shorter prompt saves only tokens that the candidates of a query
share anyway. Tokens and FLOPs come from `mine estimate`, which counts them on a sample of 40 queries. Every pair is
scored, and no score is reused.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, which contains a miner.py

from demo.commands import JUDGE, Demo, Size
from demo.processes import run, serving
from demo.report.results import Truth
from miner.estimate.estimate import estimate_cost
from miner.selection.select import select
from miner.selection.settings import Preset, SelectSettings
from miner.settings import ScoreSettings
from unijudge.formats.triples import read_triples

WIDTHS, LAYERS = (0.1, 0.2, 0.3, 0.5), 3


@dataclass(frozen=True)
class Cost:
    """The pairs, tokens and FLOPs of scoring jobs."""

    pairs: int = 0
    tokens: float = 0.0
    flops: float = 0.0


@dataclass(frozen=True)
class Line:
    """One selection: its costs, its agreement with the full selection, and its false negatives."""

    name: str
    small: Cost
    large: Cost
    same: list[float]
    """Shares of the full selection: rows, rows with the same negatives, negatives."""
    false: int
    chosen: int

    def price(self, full: Cost) -> float:
        """Returns the FLOPs of both judges, as a share of the full run."""
        return (self.small.flops + self.large.flops) / full.flops


def make_small(folder: Path) -> None:
    """Writes the judge with only the first layers of its language model."""
    from safetensors.torch import load_file, save_file

    config = json.loads((shutil.copytree(JUDGE, folder) / "config.json").read_text())
    text = config["text_config"]
    left_out = tuple(f"model.layers.{layer}." for layer in range(LAYERS, text["num_hidden_layers"]))
    text["num_hidden_layers"], text["layer_types"] = LAYERS, text["layer_types"][:LAYERS]
    (folder / "config.json").write_text(json.dumps(config))
    kept = {
        k: v
        for k, v in load_file(JUDGE / "model.safetensors").items()
        if not k.startswith(left_out)
    }
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def score(world: Path, service: str, name: str, band: dict[str, object] | None = None) -> Cost:
    """Estimates a job, then runs it as the demo does. With a band, the job is the second step of a cascade."""
    words: dict[str, object] = {
        "service": service,
        "pool": "subset",
        "shard_size": 64,
        "out": world / name,
    }
    words |= {"corpus": world / "corpus", "vectors": world / "vectors"}
    bill = estimate_cost(ScoreSettings(**words, cascade=band or {}), probe_pairs=50)
    words |= {f"band.{key}": value for key, value in (band or {}).items()}
    run("unijudge mine score " + " ".join(f"{key}={value}" for key, value in words.items()))
    pairs, probe = bill.tally.to_ask(bill.tally.k), bill.probe
    assert probe.computed_tokens and probe.flops  # noqa: PT018, S101  this judge counts
    return Cost(pairs, pairs * probe.computed_tokens, pairs * probe.flops.prefix_cached)


def choose(
    truth: Truth,
    name: str,
    small: Cost,
    large: Cost,
    scores: list[Path],
    preset: Preset = "unime-v2",
) -> Line:
    """Selects negatives, and compares them with the full selection, which must run first."""
    world, folder = scores[0].parent, scores[0].parent / f"chosen, {name}"
    compare = None if name == "full run" else world / "chosen, full run"
    settings = SelectSettings(
        corpus=world / "corpus", scores=tuple(scores), out=folder, compare=compare, preset=preset
    )
    same = [share for what, share in select(settings).items() if what.startswith("compared")]
    rows, query = read_triples(folder, truth.corpus.fingerprint), truth.query
    chosen = [
        truth.is_right(query(row.query_id), one)
        for row in rows
        for one in row.negatives
        if not one.duplicate
    ]
    return Line(name, small, large, same or [1.0] * 3, sum(chosen), len(chosen))


def show(lines: list[Line], full: Cost) -> None:
    """Prints the table. Costs are shares of the full run."""
    heads = "selection,pairs sent to the large judge,tokens,FLOPs,rows,rows with the same negatives,negatives"
    print(f"\n| {heads.replace(',', ' | ')} | false negatives |\n" + "|---" * 8 + "|")
    for line in lines:
        costs = [
            line.large.pairs / full.pairs,
            (line.small.tokens + line.large.tokens) / full.tokens,
            line.price(full),
        ]
        shown = " | ".join(f"{share:.1%}" for share in [*costs, *line.same])
        print(f"| {line.name} | {shown} | {line.false} of {line.chosen:,} |")


def finding(full: Line, cascades: list[Line], alone: Line, blind: Line) -> str:
    """Returns a conclusion in sentences, made from the numbers."""
    limits = ", ".join(
        f"{1 - line.large.flops / full.large.flops:.0%} ({line.name})" for line in cascades
    )
    sentences = [
        f"The small judge costs {alone.price(full.large):.0%} of the large judge.",
        f"A cascade saves FLOPs if this share is below {limits}.",
    ]
    cheaper = [line for line in cascades if line.price(full.large) < 1]
    if not cheaper:
        return " ".join([*sentences, "No cascade saves FLOPs here."])

    best = max(cheaper, key=lambda line: line.same[2])
    saved, lost = 1 - best.price(full.large), 1 - best.same[2]
    sentences += [
        f"The best of these, {best.name}, saves {saved:.0%} of the FLOPs and loses {lost:.0%} of the negatives.",
        f"The small judge alone loses {1 - alone.same[2]:.0%}, and no judge loses {1 - blind.same[2]:.0%}.",
        f"False negatives: {best.false} (small judge {alone.false}, no judge {blind.false}, full run {full.false}).",
    ]
    if saved > lost and best.same[2] > max(alone.same[2], blind.same[2]):
        sentences.append("The cascade helps.")
    else:
        sentences.append(
            "The cascade does not help: it must lose less than it saves, and less than both alternatives."
        )
    return " ".join(sentences)


def main(scenes: int) -> None:
    """Creates the world, scores it with both judges and in bands, and selects negatives."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        out, world, nothing = Path(scratch), Path(scratch) / "train-0", Cost()
        demo = Demo(out, Size(train_scenes=scenes), seeds=1)
        for command in (next(demo.make_data()), next(demo.import_all()), demo.embed_base()[0][0]):
            run(command)
        make_small(out / "small")
        with serving(out / "small", "auto", out / "small.log") as service:
            small = score(world, service, "small")
        with serving(JUDGE, "auto", out / "large.log") as service:
            large = score(world, service, "large")
            bands = {
                w: score(world, service, f"{w}", {"scores": world / "small", "width": w})
                for w in WIDTHS
            }
        truth, first = Truth(out, 0), world / "small"
        full = choose(truth, "full run", nothing, large, [world / "large"])
        cascades = [
            choose(truth, f"width {w}", small, cost, [first, world / f"{w}"])
            for w, cost in bands.items()
        ]
        alone = choose(truth, "small judge alone", small, nothing, [first])
        blind = choose(truth, "no judge", nothing, nothing, [first], "cyclic")
    print(f"\n{scenes} scenes, {large.pairs:,} pairs; {time.monotonic() - begun:.0f} s")
    for name, cost in (("small", small), ("large", large)):
        print(
            f"{name} judge: {cost.tokens / cost.pairs:.1f} tokens, {cost.flops / cost.pairs:.3g} FLOPs per pair"
        )
    show([full, *reversed(cascades), alone, blind], large)
    print("\n" + finding(full, cascades, alone, blind))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=200)
    main(parser.parse_args().scenes)
