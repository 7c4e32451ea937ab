"""GradCache gives the gradients of the whole batch, with dropout, while memory holds the hidden states of one chunk."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from trainer.data.collate import collate
from trainer.data.dataset import Examples
from trainer.losses.gradcache import embed_in_chunks
from trainer.losses.settings import LossSettings
from trainer.models.backbone import open_backbone
from trainer.models.lora import add_lora
from trainer.models.settings import LoraSettings
from trainer.training.embedder import loss_of
from trainer.training.settings import EmbedderSettings
from unijudge.content import Content
from unijudge.errors import SettingsError
from unijudge.settings import load_settings

IN_BATCH = LossSettings(name="infonce", in_batch_weight=1.0, student_temperature=0.1)
WORDS = [
    Content(text=f"{word} " * (3 + place))
    for place, word in enumerate(["red", "green", "blue", "white", "black"])
]


@pytest.fixture
def backbone(model):
    """A backbone in float64, whose adapter's updates are not zero."""
    backbone = open_backbone(model)
    torch.manual_seed(0)
    add_lora(backbone, LoraSettings(rank=2, dropout=0.1))
    backbone.model.double()
    with torch.no_grad():
        for name, parameter in backbone.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    return backbone


def gradients(backbone, loss):
    """Returns the gradients, with the same random numbers each time, and the number of bytes that were kept for the
    backward pass.
    """
    kept = []
    torch.manual_seed(1)
    with saved_tensors_hooks(
        lambda tensor: kept.append(tensor.nbytes) or tensor, lambda tensor: tensor
    ):
        value = loss()
    value.backward()
    trained = [parameter for parameter in backbone.model.parameters() if parameter.requires_grad]
    found = torch.cat([parameter.grad.ravel() for parameter in trained])
    backbone.model.zero_grad()
    return found, sum(kept)


def test_gradients_are_those_of_the_whole_batch(backbone, corpus, triples):
    examples = Examples(corpus, triples, negatives=3)
    batch = collate([examples[row] for row in range(4)])

    def loss(chunk):
        return sum(
            loss_of(backbone, IN_BATCH, batch, gradcache_chunk_size=chunk)[name]
            for name in ("infonce", "in_batch")
        )

    backbone.model.eval()  # without dropout
    whole, everything = gradients(backbone, lambda: loss(0))
    assert whole.abs().max() > 1e-3
    for chunk in (1, 3, 100):
        cached, kept = gradients(backbone, lambda chunk=chunk: loss(chunk))
        assert (whole - cached).abs().max() < 1e-6
        assert kept < everything / 20


def against_the_same_chunks_kept_whole(backbone, monkeypatch):
    """Returns the gradients through `embed_in_chunks` with and without checkpointing, with the same random numbers."""
    target = torch.randn(len(WORDS), backbone.width, generator=torch.Generator().manual_seed(2))
    backbone.model.train()

    def cached():
        return (embed_in_chunks(backbone, WORDS, 2) * target).sum()

    found = gradients(backbone, cached)[0]
    monkeypatch.setattr(
        "trainer.losses.gradcache.checkpoint", lambda function, *given, **_: function(*given)
    )
    expected = gradients(backbone, cached)[0]
    torch.manual_seed(3)
    cached().backward()
    other = torch.cat(
        [one.grad.ravel() for one in backbone.model.parameters() if one.requires_grad]
    )
    assert (expected - other).abs().max() > 1e-3, "dropout is at work"
    return expected, found


def test_dropout_draws_the_same_in_both_passes(backbone, monkeypatch):
    expected, found = against_the_same_chunks_kept_whole(backbone, monkeypatch)
    assert (expected - found).abs().max() < 1e-6


def test_dropout_draws_the_same_from_a_generator_that_checkpoint_does_not_know(
    backbone, monkeypatch
):
    """The generator of a GPU is like this: `torch.manual_seed` seeds it, but torch restores its state only if the
    arguments include tensors on this GPU.
    """
    device = torch.Generator()
    seed_all = torch.manual_seed

    def manual_seed(seed):
        device.manual_seed(seed)
        return seed_all(seed)

    def dropout(self, given):
        kept = torch.rand(given.shape, generator=device) >= self.p
        return given * kept / (1 - self.p) if self.training else given

    monkeypatch.setattr("torch.manual_seed", manual_seed)
    monkeypatch.setattr("torch.nn.Dropout.forward", dropout)
    expected, found = against_the_same_chunks_kept_whole(backbone, monkeypatch)
    assert (expected - found).abs().max() < 1e-6


def test_gradcache_is_refused_if_rows_do_not_interact():
    with pytest.raises(
        SettingsError,
        match=r"gradcache_chunk_size needs in-batch negatives .* rows do not interact",
    ):
        load_settings(
            EmbedderSettings, None, ["corpus=c", "triples=t", "out=o", "gradcache_chunk_size=8"]
        )
