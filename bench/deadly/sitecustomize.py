"""Lets a candidate kill its scripted judge. Python imports this module at start if its folder is in PYTHONPATH.

A replica that judges a candidate whose text ends in the word `UNIJUDGE_BENCH_LETHAL` is killed with SIGKILL, as by a
fault in an engine or by the system's OOM killer. For each death, the text of the query is added to the file
`UNIJUDGE_BENCH_DEATHS`, as one line.
"""

import os
import signal
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType, SimpleNamespace
from typing import Any

MODULE = "judge_service.backends.scripted"


def _find_spec(
    name: str, path: list[str] | None, target: ModuleType | None = None
) -> ModuleSpec | None:
    """Finds the module of the scripted judge, and changes the judge when the module is loaded."""
    spec = PathFinder.find_spec(name, path, target) if name == MODULE else None
    if spec is None or spec.loader is None:
        return None
    run = spec.loader.exec_module

    def run_and_change(module: ModuleType) -> None:
        run(module)
        answer = module.ScriptedJudge._answer

        def answer_or_die(judge: Any, query: Any, candidate: Any) -> Any:
            if (candidate.text or "").endswith(os.environ["UNIJUDGE_BENCH_LETHAL"]):
                with open(os.environ["UNIJUDGE_BENCH_DEATHS"], "a") as deaths:  # noqa: PTH123  as little code as possible
                    deaths.write(f"{query.text}\n")
                os.kill(os.getpid(), signal.SIGKILL)
            return answer(judge, query, candidate)

        module.ScriptedJudge._answer = answer_or_die

    spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
    return spec


sys.meta_path.insert(0, SimpleNamespace(find_spec=_find_spec))  # type: ignore[arg-type]
