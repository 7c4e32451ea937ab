"""The wall clock may jump, so the service and its client do not measure durations with it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
CLIENT = [
    str(path.relative_to(ROOT)) for path in sorted((ROOT / "unijudge" / "client").glob("*.py"))
]
WITH_REASON = {
    "judge_service/compatible/routes.py",  # `created` in an answer is a date
    "judge_service/front/blobs.py",  # dates of files use this clock; after a jump, images stay longer or are sent again
    "judge_service/service.py",  # notices that the clock was set back
}


def wall_clocks(source):
    """The lines that read the wall clock in seconds."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"time.time", "time.time_ns"}:
            lines.append(node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            lines += [node.lineno for name in node.names if name.name in {"time", "time_ns"}]
    return lines


def test_durations_are_monotonic():
    paths = [*(ROOT / "judge_service").rglob("*.py"), *(ROOT / name for name in CLIENT)]
    found = {str(path.relative_to(ROOT)) for path in paths if wall_clocks(path.read_text())}
    assert found == WITH_REASON


def test_the_clock_rule_detects_a_violation():
    assert wall_clocks("import time\nbegun = time.time()\nend = time.monotonic()\n") == [2]
    assert wall_clocks("from time import monotonic, time_ns\n") == [1]
