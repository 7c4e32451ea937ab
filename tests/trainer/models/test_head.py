"""The last layer in float32: scores without a grid, exact values and gradients, and no second copy in memory."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch.autograd.graph import saved_tensors_hooks

from trainer.models import head
from trainer.models.backbone import open_backbone
from trainer.models.head import float32_logits
from unijudge.content import Content

PAIRS = 2000


def logits_of_a_judge(dtype):
    """Hidden states whose logits for Yes and No are around 20, as those of a judge: (pairs, 64) and (100, 64)."""
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(PAIRS, 64, generator=random) + 1
    weight = torch.randn(100, 64, generator=random) * 0.05
    weight[:2] += 20 / 64
    return hidden.to(dtype), weight.to(dtype)


def distinct_log_odds(logits):
    return len((logits[:, 0] - logits[:, 1]).unique())


def test_log_odds_in_bfloat16_are_a_grid_and_those_of_a_float32_head_are_not():
    hidden, weight = logits_of_a_judge(torch.bfloat16)
    low = F.linear(hidden, weight)
    assert low[:, :2].float().mean() > 16
    assert distinct_log_odds(low.float()) < 100
    assert distinct_log_odds(float32_logits(hidden, weight)) > 0.98 * PAIRS


def test_values_and_gradients_are_those_of_the_plain_product(monkeypatch):
    """The product is computed in parts of 33 rows, so the last part is shorter."""
    monkeypatch.setattr(head, "ROWS_AT_ONCE", 33)
    found = []
    for product in (
        float32_logits,
        lambda hidden, weight: F.linear(hidden.float(), weight.float()),
    ):
        hidden, weight = (one[:50].requires_grad_() for one in logits_of_a_judge(torch.bfloat16))
        logits = product(hidden, weight)
        logits.logsumexp(-1).sum().backward()
        found.append((logits.detach(), hidden.grad, weight.grad))
    (logits, *gradients), (plain, *plain_gradients) = found
    assert logits.dtype == torch.float32
    assert (logits - plain).abs().max() < 1e-5
    for gradient, expected in zip(gradients, plain_gradients, strict=True):
        assert gradient.dtype == torch.bfloat16
        torch.testing.assert_close(gradient, expected, rtol=2**-7, atol=1e-6)


def test_a_float32_head_is_unchanged():
    hidden, weight = logits_of_a_judge(torch.float32)
    assert torch.equal(float32_logits(hidden, weight), F.linear(hidden, weight))


def test_no_copy_of_the_head_is_kept_for_the_backward_pass():
    hidden, weight = logits_of_a_judge(torch.bfloat16)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        float32_logits(hidden.requires_grad_(), weight)
    copied = 4 * weight.numel()
    assert copied not in kept.values()
    assert sum(kept.values()) <= hidden.nbytes + weight.nbytes


def test_a_models_logits_are_its_heads_in_float32(model):
    """In float32, the logits equal those of the model.

    In bfloat16, they come from the same hidden states, without the last rounding.
    """
    words = [Content(text=f"{word} square") for word in ("red", "green", "blue")]
    for dtype in ("float32", "bfloat16"):
        backbone = open_backbone(model.model_copy(update={"dtype": dtype}))
        streams = [backbone.read(content) for content in words]
        with torch.inference_mode():
            logits = backbone.next_token_logits(streams)
            hidden = backbone.last_hidden(streams)
        weight = backbone.model.lm_head.weight
        assert logits.dtype == torch.float32
        torch.testing.assert_close(
            logits, F.linear(hidden.float(), weight.float()), rtol=0, atol=1e-6
        )
        rounded = backbone.model.lm_head(hidden).float()
        assert torch.equal(logits, rounded) == (dtype == "float32")
