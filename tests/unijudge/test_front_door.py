"""`unijudge` exports what a client of the judge needs, and loads each name only when it is used."""

import subprocess
import sys

import pytest

import unijudge

ENGINES = ("torch", "transformers", "vllm", "ray", "faiss", "pyarrow", "numpy", "httpx2")


def test_the_import_loads_nothing_and_no_name_loads_an_engine():
    code = (
        "import sys, unijudge\n"
        f"print([name for name in {ENGINES} if name in sys.modules])\n"
        "from unijudge import Content, JudgeClient, PairError, Verdict, judge_now\n"
        "print([name for name in ('torch', 'transformers', 'vllm', 'ray', 'faiss') if name in sys.modules])\n"
        "print(Content(text='a').text, JudgeClient.__name__, judge_now.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]", "a JudgeClient judge_now"]


def test_every_exported_name_exists_in_its_module():
    for name in unijudge.__all__:
        assert getattr(unijudge, name).__name__ == name
        assert name in dir(unijudge)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'unijudge' has no attribute 'Judge'"):
        unijudge.Judge  # noqa: B018
