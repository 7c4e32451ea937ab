"""A study with very small steps."""

import json
from pathlib import Path
from typing import Any

from trainer.studies.engines import OneByOne
from trainer.studies.plan import Plan
from trainer.studies.process import Ended
from trainer.studies.run import StudyProgress, run_plan
from trainer.studies.study import Study

STEP = "python -m tests.trainer.studies.step"
ROOT = Path(__file__).parents[3]


class Counted(OneByOne):
    """An engine that records the names of the cells that it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def ended(self) -> Ended:
        ended = super().ended()
        self.ran.append(ended.name)
        return ended


def run(study: Study, out: Path, folder: Path = ROOT) -> tuple[StudyProgress, list[str], list[str]]:
    """Runs a study. Returns the progress, the names of the cells that ran, and the printed lines."""
    runner, lines = Counted(), list[str]()
    progress = run_plan(Plan.of(study, out), runner, folder, lines.append)
    return progress, runner.ran, lines


def small_study(**changes: Any) -> Study:
    """A study with three seeds, two ways and two numbers. A higher way is better."""
    values: dict[str, Any] = {
        "question": "Is the good way better?",
        "seeds": [0, 1, 2],
        "axes": {"k": [4, 8], "way": {"good": "1", "bad": "0"}},
        "steps": {
            "run": {"command": f"{STEP} run {{out}} {{world}} {{k}} {{way}} {{seed}}"},
            "world": {"command": f"{STEP} world {{out}} {{seed}}"},
        },
        "measures": {"score": {"steps": ["run"], "file": "metrics.json", "key": "all.score"}},
        "comparisons": {
            "better": {
                "axis": "way",
                "left": "bad",
                "right": "good",
                "claim": "The good way, against the bad one,",
                "paper": "helps",
            }
        },
    }
    return Study.model_validate(values | changes)


def write_study(path: Path, study: Study) -> Path:
    """Writes a study as a TOML file."""
    values = study.model_dump(mode="json")
    lines = [f"{name} = {json.dumps(values[name])}" for name in ("question", "seeds")]
    for table in ("axes", "steps", "measures", "comparisons"):
        for name, value in values[table].items():
            lines.append(f"{table}.{name} = {_inline(value)}")
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def _inline(value: Any) -> str:
    """A value as TOML. None is left out."""
    if isinstance(value, dict):
        pairs = [f"{name} = {_inline(inner)}" for name, inner in value.items() if inner is not None]
        return "{ " + ", ".join(pairs) + " }"
    return json.dumps(value)
