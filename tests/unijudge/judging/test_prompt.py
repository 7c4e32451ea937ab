"""The presets of the judge's prompt: their text, their tokens, their fingerprints, and words that replace a default."""

import pytest
from pydantic import ValidationError

from demo.tiny_model import make_tokenizer
from judge_service.settings import ServiceSettings
from trainer.training.settings import RerankerSettings
from unijudge.content import Content
from unijudge.judging.prompt import Prompt
from unijudge.modeling.chat_encoder import ChatEncoder
from unijudge.settings import load_settings, overrides_of

QUERY = Content("a red fox", b"picture")
CANDIDATE = Content("a fox in the snow")
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"

# As the chat template of each model writes a pair. The picture stands before the text of its side.
UNIME_V2 = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "I will provide you with a query and a candidate. Please evaluate whether the candidate meets the requirements of "
    "the query. If it does, respond with 'Yes'; if it doesn't, respond with 'No'."
    f"Query:{PICTURE}a red foxCandidate:a fox in the snow<|im_end|>\n<|im_start|>assistant\n"
)
QWEN3_VL_RERANKER = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: Given a search query, retrieve relevant candidates that answer the query."
    f"<Query>:{PICTURE}a red fox\n<Document>:a fox in the snow<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.mark.parametrize(
    ("preset", "written"), [("unime-v2", UNIME_V2), ("qwen3-vl-reranker", QWEN3_VL_RERANKER)]
)
def test_a_preset_has_the_tokens_of_its_model(preset, written):
    """The tokens equal those of the whole string, except the picture, which keeps its bytes until it is scaled."""
    tokenizer = make_tokenizer()
    prompt = Prompt(preset=preset)
    encoder = ChatEncoder(tokenizer, "<|image_pad|>")
    stream = encoder.stream(prompt.parts(QUERY, CANDIDATE), prompt.system)
    picture = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    ids = [picture if isinstance(entry, bytes) else entry for entry in stream]
    assert tokenizer.decode(ids) == written
    assert ids == tokenizer(written)["input_ids"]


def test_a_preset_has_its_own_labels_and_another_identity():
    """The fingerprint of the default preset is pinned in tests/judge_service/replica/test_empty.py."""
    reranker = Prompt(preset="qwen3-vl-reranker")
    assert (reranker.yes, reranker.no) == ("yes", "no")
    same_words = Prompt(instruction=reranker.instruction, yes="yes", no="no")
    assert len({reranker.fingerprint, same_words.fingerprint, Prompt().fingerprint}) == 3


def test_a_word_replaces_the_default_of_a_preset():
    """A setting of the user wins, also through the command line and back."""
    words = [
        "prompt.preset=qwen3-vl-reranker",
        "prompt.instruction=Find the same animal.",
        "prompt.yes=Yes",
    ]
    settings = load_settings(ServiceSettings, None, words)
    assert settings.prompt.parts(QUERY, CANDIDATE)[0] == "<Instruct>: Find the same animal."
    assert (settings.prompt.yes, settings.prompt.no) == ("Yes", "no")
    assert load_settings(ServiceSettings, None, overrides_of(settings)) == settings


def test_the_candidate_may_come_first_in_each_preset():
    """The text between the sides stays between the sides."""
    turned = Prompt(preset="qwen3-vl-reranker", order="candidate_first")
    assert turned.parts(QUERY, CANDIDATE)[1:] == [
        "<Document>:", "a fox in the snow", "\n<Query>:", b"picture", "a red fox",
    ]  # fmt: skip


def test_a_reranker_is_trained_with_the_layout_of_its_lists():
    with pytest.raises(ValidationError, match="is for judging only"):
        RerankerSettings(
            corpus="c", triples="t", out="o", prompt=Prompt(preset="qwen3-vl-reranker")
        )
