"""Nothing is computed twice, and results equal those of the model itself."""

from collections import Counter

import pytest
import torch
from cachetools import LRUCache
from hypothesis import given
from hypothesis import strategies as st

import trainer.models.length_buckets
import unijudge.images.image_processing
from tests.contents import CONTENTS
from tests.families import MAKERS
from tests.pictures import pattern
from trainer.data.collate import collate
from trainer.data.dataset import Examples
from trainer.losses.settings import LossSettings
from trainer.models.backbone import open_backbone
from trainer.models.embedder import embed, stream_of
from trainer.models.length_buckets import MOST_PADDING, buckets
from trainer.models.lora import add_lora
from trainer.models.settings import LoraSettings
from trainer.training.embedder import loss_of
from unijudge.content import Content


def opened(model, **changes):
    return open_backbone(model.model_copy(update=changes))


def trained(backbone):
    """A LoRA with random weights, because one half of a fresh LoRA has no gradient."""
    add_lora(backbone, LoraSettings(rank=2, alpha=2))
    torch.manual_seed(0)
    for _, parameter in weights(backbone):
        torch.nn.init.normal_(parameter, std=0.1)
    return backbone


def weights(backbone):
    return [(name, one) for name, one in backbone.model.named_parameters() if one.requires_grad]


def plain(backbone, streams):
    """Returns the model's own forward pass: one batch, padded to its longest row, with every picture as often as it
    occurs.
    """
    arrays = backbone.inputs.token_arrays(streams) | backbone.inputs.picture_arrays(streams)
    inputs = {name: torch.from_numpy(array) for name, array in arrays.items()}
    hidden = backbone.model.get_base_model().model(**inputs, use_cache=False).last_hidden_state
    return hidden[torch.arange(len(streams)), inputs["attention_mask"].sum(1) - 1]


def gradients(backbone, hidden):
    """Returns the gradients of a function of the hidden states, in which every number matters."""
    backbone.model.zero_grad()
    (hidden * torch.sin(torch.arange(hidden.numel()).reshape(hidden.shape))).sum().backward()
    return torch.cat([one.grad.flatten() for _, one in weights(backbone)])


def work(backbone):
    """Counts, from this call on, the patches of the vision tower and the rows of the language model."""
    base, seen = backbone.model, Counter()
    base = base.get_base_model() if hasattr(base, "get_base_model") else base
    tower = next(
        part for name, part in base.model.named_children() if name in ("visual", "vision_tower")
    )
    tower.register_forward_pre_hook(lambda *_: seen.update(looks=1))
    base.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(rows=len(kwargs["inputs_embeds"]), passes=1),
        with_kwargs=True,
    )
    return seen


@pytest.mark.parametrize("family", ["qwen2_5_vl", *MAKERS])
def test_every_family_gives_the_states_of_its_own_forward_pass(
    family, model, tmp_path, monkeypatch
):
    """Compares hidden states and gradients, also with cached features, for texts, pictures and both, in many groups."""
    if family in MAKERS:
        MAKERS[family](tmp_path)
        model = model.model_copy(update={"name": str(tmp_path)})
    monkeypatch.setattr(trainer.models.length_buckets, "MOST_PADDING", 20)
    backbone = trained(opened(model, max_pixels=112 * 112))
    streams = [stream_of(backbone, content) for content in [*CONTENTS, CONTENTS[0], CONTENTS[-1]]]
    with torch.inference_mode():
        backbone.last_hidden(streams[:8])
    expected = plain(backbone, streams)
    theirs = gradients(backbone, expected)
    assert theirs.abs().max() > 0
    seen = work(backbone)
    for warm in (False, True):
        seen.clear()
        hidden = backbone.last_hidden(streams)
        assert (hidden - expected).abs().max() <= 1e-5 * expected.abs().max()
        ours = gradients(backbone, hidden)
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
        assert seen["rows"] == len(CONTENTS)
        assert seen["passes"] > 2
        assert (seen["looks"] == 0) == warm


def test_a_batch_runs_distinct_inputs_and_each_picture_once(model, corpus, triples, monkeypatch):
    """Rows share their negatives, a query is also a candidate, and the next step has the same pictures."""
    examples = Examples(corpus, triples, negatives=7)
    batch = collate([examples[0], examples[1], examples[0]])
    batch.queries[2] = batch.candidates[0]
    opens, decode = Counter(), unijudge.images.image_processing.open_image
    monkeypatch.setattr(
        unijudge.images.image_processing,
        "open_image",
        lambda data, *most: opens.update([data]) or decode(data, *most),
    )
    backbone = trained(opened(model))
    seen = work(backbone)
    for _ in range(2):
        loss_of(backbone, LossSettings(), batch)
    assert seen["rows"] == 2 * (
        len({(one.text, one.image) for one in [*batch.queries, *batch.candidates]})
    )
    assert seen["looks"] == len(
        {one.image for one in [*batch.queries, *batch.candidates] if one.image}
    )
    assert set(opens.values()) == {1}


def test_the_cache_keeps_the_last_used_features_within_its_bytes(model):
    backbone = opened(model)
    pictures = [pattern(seed, (56, 56)) for seed in range(3)]
    with torch.inference_mode():
        one = backbone.vision.features(backbone.model.model, pictures[:1])[pictures[0]]
    room = 2 * one.nbytes
    backbone = opened(model)
    backbone.vision._kept = LRUCache(room, getsizeof=lambda features: features.nbytes)
    seen = work(backbone)
    looks = []
    for place in (0, 1, 0, 2, 0, 1):
        backbone.vision.features(backbone.model.model, pictures[place : place + 1])
        looks.append(seen["looks"])
        assert backbone.vision._kept.currsize == len(backbone.vision._kept) * one.nbytes <= room
    assert looks == [1, 2, 2, 3, 3, 4], "2 took the place of 1, which was not used since"


@pytest.mark.parametrize("family", ["qwen2_5_vl", *MAKERS])
def test_image_features_do_not_depend_on_other_images(family, model, tmp_path):
    """The features are equal to the last bit.

    Otherwise the cache, which decides which images are together, would change results.
    """
    if family in MAKERS:
        MAKERS[family](tmp_path)
        model = model.model_copy(update={"name": str(tmp_path)})
    pictures = [
        pattern(seed, shape)
        for seed, shape in enumerate([(60, 60), (200, 60), (30, 90), (100, 100)])
    ]
    with torch.inference_mode():
        backbone = opened(model, vision_cache_mb=0, max_pixels=112 * 112)
        together = backbone.vision.features(backbone.model.model, pictures)
        for company in ([1], [3, 1], [0, 1, 2]):
            found = backbone.vision.features(
                backbone.model.model, [pictures[place] for place in company]
            )
            assert all(
                torch.equal(found[pictures[place]], together[pictures[place]]) for place in company
            )


def test_without_a_cache_every_step_runs_the_vision_tower(model):
    backbone = opened(model, vision_cache_mb=0)
    seen = work(backbone)
    for _ in range(2):
        embed(backbone, [Content(image=pattern(1, (56, 56)))])
    assert seen["looks"] == 2


def test_a_vision_tower_that_is_trained_is_never_kept(model):
    import peft

    backbone = opened(model)
    content = Content(image=pattern(1, (56, 56)))
    embed(backbone, [content])
    backbone.model = peft.get_peft_model(
        backbone.model, peft.LoraConfig(target_modules=r".*visual.*\.qkv")
    )
    seen = work(backbone)
    for _ in range(2):
        embed(backbone, [content]).sum().backward()
        assert all(one.grad is not None for _, one in weights(backbone))
    assert seen["looks"] == 2


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 2000))
def test_buckets_hold_everything_once_and_little_padding(lengths, most_tokens):
    groups = buckets(lengths, most_tokens)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[place] for place in group)
        assert len(group) == 1 or longest * len(group) <= most_tokens
        assert longest * len(group) - sum(lengths[place] for place in group) <= MOST_PADDING
    ordered = [lengths[place] for group in groups for place in group]
    assert ordered == sorted(lengths, reverse=True)
