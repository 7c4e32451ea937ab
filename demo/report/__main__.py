"""Writes the report of the demo: report.html and two images.

python -m demo.report FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any

from demo.commands import STUDENTS
from demo.report.figures import draw_mined, draw_students
from demo.report.results import BETA, Truth, mined
from demo.report.rows import mined_strips, rankings
from demo.report.story import sentences, table
from demo.teaching.lessons import FIND_IMAGE
from demo.world import KINDS
from unijudge.formats.labelled_scores import read_labelled
from unijudge.judging.verdicts import Verdict
from unijudge.pages.charts import curves, histogram
from unijudge.pages.pages import page, picture
from unijudge.storage.files import publish_text

SHOWN = ("Scenes_t2i", "Scenes_i2t", "Digits_i2i")


def main(out: Path) -> None:
    """Writes the page and the images, and prints the table and the findings."""
    results = json.loads((out / "results.json").read_text())
    strips = mined_strips(out, SHOWN)
    html = page(
        Path(__file__).parent / "report.html.jinja",
        results=results,
        story=sentences(results),
        tasks=[task for task in results["rerank"] if task != "mean"],
        quality_chart=_quality(out),
        margin_chart=_margins(out),
        curve_charts=_curves(out),
        strips=strips,
        rankings=rankings(out, "Scenes_t2i"),
        beta=BETA,
        find_image=FIND_IMAGE,
        picture=picture,
        seconds=sum(stage["seconds"] for stage in results["stages"].values()),
    )
    publish_text(out / "report.html", html)
    draw_mined(out / "mined.png", strips[:2])
    draw_students(out / "students.png", results["students"], results["rerank"])
    print(
        "\n"
        + "\n".join([*table(results), "", *(f"* {sentence}" for sentence in sentences(results))])
    )
    print(f"\nThe report is {out / 'report.html'}, and its numbers are in {out / 'results.json'}")


def _quality(out: Path) -> Any:
    series: dict[str, list[float]] = {"matches": [], "hard negatives": [], "random": []}
    names = dict.fromkeys(KINDS, "hard negatives") | {"random": "random"}
    for row in read_labelled(out / "judge" / "scores.parquet"):
        name = "matches" if row.match else names.get(row.kind or "")
        answer = row.answer
        if name and isinstance(answer, Verdict):
            series[name].append(answer.score)
    return histogram(series, low=0.0, high=1.0, x_label="judge score", mark=(0.5, "undecided"))


def _margins(out: Path) -> Any:
    found = list(mined(Truth.of_seed(out, 0), out / "train-0"))
    series = {
        "real negatives": [candidate.margin for candidate in found if not candidate.right],
        "false negatives": [candidate.margin for candidate in found if candidate.right],
    }
    label = "judge score of the candidate minus judge score of the positive"
    return histogram(
        series,
        low=-1.0,
        high=1.0,
        x_label=label,
        mark=(-BETA, f"−β = −{BETA:g}: candidates to the right are dropped"),
    )


def _curves(out: Path) -> dict[str, Any]:
    contrastive = {
        name: _losses(out, f"{name}-0") for name in STUDENTS if name.startswith("infonce")
    }
    labelled = {name: _losses(out, f"{name}-0") for name in ("hard_labels", "soft_labels")}
    return {
        "Students, InfoNCE over the whole batch": curves(
            contrastive, x_label="step", y_label="loss", smooth=True
        ),
        "Students, loss over own candidates only": curves(
            labelled, x_label="step", y_label="loss", smooth=True
        ),
        "Reranker, both terms of the loss": curves(
            {term: _losses(out, "reranker", term) for term in ("pairwise", "listwise")},
            x_label="step",
            y_label="nats",
            smooth=True,
        ),
    }


def _losses(out: Path, run: str, term: str = "loss") -> list[tuple[float, float]]:
    lines = [
        json.loads(line) for line in (out / "runs" / run / "metrics.jsonl").read_text().splitlines()
    ]
    return [(float(line["step"]), float(line[term])) for line in lines]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
