"""What the three programs agree on: formats, the judge's prompt, the client, the command line.

It promises that a file it wrote is complete, that a file it reads is what it claims to be, and that importing it loads
no engine (no torch, transformers, vllm, ray or faiss). It does not judge, retrieve or train.

What a client of the judge needs stands here: `from unijudge import Content, JudgeClient, judge_now`. `import unijudge`
loads nothing; each name is loaded when it is asked for. All other names come from the module that defines them.
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
