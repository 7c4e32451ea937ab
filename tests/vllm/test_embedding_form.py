"""vLLM's server can read the requests to an embedding endpoint: checked with vLLM's own request classes."""

import pytest

from tests.pictures import png
from trainer.embedding.endpoint import turn_of
from unijudge.content import Content

pytest.importorskip("vllm")

COMMON = {"model": "m", "encoding_format": "float", "add_generation_prompt": True}


def test_vllm_reads_images_and_texts_as_chat_messages():
    from vllm.entrypoints.pooling.embed.protocol import EmbeddingChatRequest

    request = EmbeddingChatRequest(
        **COMMON, messages=[turn_of(Content(text="Which?", image=png()))]
    )
    (turn,) = request.messages
    image, text = turn["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert text["text"] == "Which?"
    assert request.add_generation_prompt
    assert "add_generation_prompt" not in (request.model_extra or {}), (
        "a field that the server knows, not an unknown one"
    )


def test_vllm_reads_texts_as_input():
    from vllm.entrypoints.pooling.embed.protocol import EmbeddingCompletionRequest

    assert EmbeddingCompletionRequest(**COMMON, input=["a", "b"]).input == ["a", "b"]
