"""The common package of the three programs: formats, the judge's prompt, the client, the command line.

Files that this package writes are complete, and files that it reads are checked. An import of this package loads no
engine (torch, transformers, vllm, ray or faiss). This package does not judge, retrieve or train.

The names that a client of the judge needs are exported here: `from unijudge import Content, JudgeClient, judge_now`. A
name is loaded only when it is used. Import all other names from the modules that define them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unijudge.client.client import JudgeClient, judge_now
    from unijudge.content import Content
    from unijudge.judging.verdicts import PairError, Verdict

__all__ = ["Content", "JudgeClient", "PairError", "Verdict", "judge_now"]

_WHERE = {
    "Content": "unijudge.content",
    "JudgeClient": "unijudge.client.client",
    "PairError": "unijudge.judging.verdicts",
    "Verdict": "unijudge.judging.verdicts",
    "judge_now": "unijudge.client.client",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'unijudge' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
