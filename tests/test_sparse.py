"""One idea in each line: lines that pack several ideas are found here."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = [
    path
    for name in ("unijudge", "judge_service", "miner", "trainer")
    for path in (ROOT / name).rglob("*.py")
]
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def places(test):
    """The places of expressions of one kind in the product, as path:line."""
    found = []
    for path in PRODUCT:
        tree = ast.parse(path.read_text())
        found += [
            f"{path.relative_to(ROOT)}:{node.lineno}" for node in ast.walk(tree) if test(node)
        ]
    return found


def is_nested(node):
    inner = (one for one in ast.walk(node) if one is not node)
    return isinstance(node, COMPREHENSIONS) and any(
        isinstance(one, COMPREHENSIONS) for one in inner
    )


def is_a_long_choice(node):
    return isinstance(node, ast.IfExp) and node.end_lineno != node.lineno


@pytest.mark.parametrize("test", [is_nested, is_a_long_choice])
def test_no_line_of_the_product_packs_two_ideas(test):
    assert len(PRODUCT) > 200
    assert places(test) == []


def test_each_forbidden_pattern_is_detected():
    nested, plain, choice = ast.parse(
        "[[x for x in y] for y in z]\n[x for x in y]\n(1 if\n x else 2)"
    ).body
    assert [is_nested(one.value) for one in (nested, plain, choice)] == [True, False, False]
    assert [is_a_long_choice(one.value) for one in (nested, plain, choice)] == [False, False, True]
