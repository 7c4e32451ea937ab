"""The process of one case: measures the case, and writes its outcome to a file.

    python -m bench.gpu.case STEP CASE OPTIONS RESULT

OPTIONS is a file with the options as JSON. If the process crashes, the parent notices it.
"""

import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

from bench.gpu.lines import one_line
from bench.gpu.options import Options
from bench.gpu.step import Outcome, Skipped, Wrong
from bench.gpu.steps import STEPS
from unijudge.errors import UnijudgeError


def outcome_of(step_name: str, case_name: str, options: Options) -> Outcome:
    """Measures one case. If the case raises an error, the error becomes the cause of the outcome."""
    (step,) = (step for step in STEPS if step.name == step_name)
    try:
        return Outcome("ok", figures=step.cases[case_name].measure(options))
    except Skipped as reason:
        return Outcome("skipped", cause=one_line(str(reason)))
    except Wrong as fault:
        return Outcome("failed", cause=one_line(str(fault)), figures=fault.figures)
    except UnijudgeError as error:
        traceback.print_exc()
        return Outcome("failed", cause=one_line(str(error)))
    except (Exception, SystemExit) as error:  # noqa: BLE001  a case may fail in any library; the page shows the error
        traceback.print_exc()
        return Outcome("failed", cause=one_line(f"{type(error).__name__}: {error}"))


def main() -> None:
    """Measures the case that the arguments name."""
    step, case, options_file, result_file = sys.argv[1:]
    options = Options(**json.loads(Path(options_file).read_text(encoding="utf-8")))
    outcome = outcome_of(step, case, options)
    Path(result_file).write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # processes of an engine could block a normal exit; the parent ends all processes


if __name__ == "__main__":
    main()
