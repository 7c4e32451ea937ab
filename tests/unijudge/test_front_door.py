"""What a client of the judge needs is at hand under `unijudge`, and nothing is loaded before it is asked for."""

import subprocess
import sys

import pytest

import unijudge

ENGINES = ("torch", "transformers", "vllm", "ray", "faiss", "pyarrow", "numpy", "httpx2")


def test_importing_it_loads_nothing_and_a_name_no_engine():
    code = (
        "import sys, unijudge\n"
        f"print([name for name in {ENGINES} if name in sys.modules])\n"
        "from unijudge import Content, JudgeClient, PairError, Verdict, judge_now\n"
        "print([name for name in ('torch', 'transformers', 'vllm', 'ray', 'faiss') if name in sys.modules])\n"
        "print(Content(text='a').text, JudgeClient.__name__, judge_now.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]", "a JudgeClient judge_now"]


def test_every_name_is_where_it_is_said_to_be():
    for name in unijudge.__all__:
        assert getattr(unijudge, name).__name__ == name
        assert name in dir(unijudge)


def test_another_name_is_no_attribute():
    with pytest.raises(AttributeError, match="module 'unijudge' has no attribute 'Judge'"):
        unijudge.Judge  # noqa: B018
