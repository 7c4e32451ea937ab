"""The last layer in float32. In 16 bits, logits are rounded, so many pairs get equal scores."""

import asyncio
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from demo.commands import JUDGE
from demo.teaching.lessons import Album, Lessons
from demo.tiny_model import make_tokenizer
from demo.world import WORLD
from judge_service.backends import open_judge
from judge_service.settings import ModelSettings, ServiceSettings
from tests.contents import CONTENTS
from tests.pictures import png_of
from unijudge.content import Content
from unijudge.judging.verdicts import JudgeIdentity

ENGINES = [
    "transformers",
    pytest.param(
        "vllm",
        marks=pytest.mark.skipif(
            not importlib.util.find_spec("vllm"), reason="vLLM is not installed"
        ),
    ),
]


ROOT = Path(__file__).parents[3]
PAIRS = 240


def load(folder, backend, **model):
    settings = {
        "name": str(folder),
        "backend": backend,
        "min_pixels": 3136,
        "max_pixels": 12544,
        "max_tokens": 1024,
    }
    return open_judge(ServiceSettings(model=ModelSettings(**settings | model)))


def log_odds(judge, pairs):
    async def ask():
        return await asyncio.gather(
            *(judge.judge(query, [candidate]) for query, candidate in pairs)
        )

    return np.array([verdict.log_odds for (verdict,) in asyncio.run(ask())])


@pytest.fixture(scope="module")
def demo_pairs():
    """New pairs of the demo's world."""
    album = Album.of(WORLD, scenes=PAIRS // 2, seed=5, part="eval")

    def whole(content):
        return Content(
            content.text, png_of(album.pictures[int(content.image)]) if content.image else None
        )

    pairs = Lessons(album, make_tokenizer(), 5).pairs(PAIRS)
    return [(whole(pair.query), whole(pair.candidate)) for pair in pairs]


@pytest.fixture(scope="module")
def exact(demo_pairs):
    """The log-odds of the pairs in float32."""
    return log_odds(load(ROOT / JUDGE, "transformers"), demo_pairs)


@pytest.mark.parametrize("backend", ENGINES)
def test_a_float32_head_gives_distinct_scores_in_bfloat16(demo_pairs, exact, backend):
    """Counts the distinct scores of the demo's judge on the demo's pairs, with and without the float32 head."""
    ties, errors = {}, {}
    for head in ("model", "float32"):
        scores = log_odds(
            load(ROOT / JUDGE, backend, dtype="bfloat16", head_dtype=head), demo_pairs
        )
        ties[head] = len(scores) - len(set(scores))
        errors[head] = np.abs(scores - exact).mean()
        print(f"{backend}, bfloat16, head {head}: {len(scores)} pairs, {len(set(scores))} distinct log-odds, "
              f"{ties[head]} ties, mean difference to float32 {errors[head]:.3f}")  # fmt: skip
    assert ties["float32"] < ties["model"]
    assert errors["float32"] < errors["model"]


def test_the_head_multiplies_in_float32(tiny_model):
    judge = load(tiny_model, "transformers", dtype="bfloat16")
    hidden = torch.randn(3, judge._model.config.get_text_config().hidden_size).bfloat16()
    expected = hidden.double() @ judge._model.lm_head.weight.double().T
    assert judge._logits_BV(hidden).dtype == torch.float32
    assert torch.allclose(judge._logits_BV(hidden).double(), expected, rtol=1e-5, atol=1e-5)


def test_a_float32_model_does_not_change(tiny_model):
    pairs = [(query, candidate) for query in CONTENTS[:4] for candidate in CONTENTS]
    own, same = (
        log_odds(load(tiny_model, "transformers", head_dtype=head), pairs)
        for head in ("model", "float32")
    )
    assert (own == same).all()


@pytest.mark.parametrize(
    ("dtype", "head", "found"),
    [
        ("bfloat16", "float32", "float32"),
        ("bfloat16", "model", "bfloat16"),
        ("float32", "model", "float32"),
    ],
)
def test_the_identity_records_the_dtype_of_the_head(tiny_model, dtype, head, found):
    judge = load(tiny_model, "transformers", dtype=dtype, head_dtype=head)
    assert judge.identity.head_dtype == found


def test_packed_weights_are_part_of_the_identity(tiny_model):
    judge = load(tiny_model, "transformers")
    assert judge.identity.quantisation == "none"
    judge.inputs.model.config.quantization_config = {"quant_method": "awq", "bits": 4}
    assert judge.inputs.identity("vllm", "0").quantisation == "awq"


def test_a_judge_with_another_head_dtype_is_another_judge(identity):
    """Judges that differ only in this dtype are different judges. A manifest without the dtype is invalid."""
    assert identity.model_copy(update={"head_dtype": "bfloat16"}).digest != identity.digest
    fields = identity.model_dump(mode="json")
    del fields["head_dtype"]
    with pytest.raises(ValidationError, match="head_dtype"):
        JudgeIdentity.model_validate(fields)
