"""Turns contents into unit vectors: the normalised hidden state of the last token, with or without gradients."""

from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from trainer.models.backbone import Backbone
from trainer.models.lengths import shortened
from unijudge.content import Content
from unijudge.modeling.chat_encoder import Stream


def stream_of(backbone: Backbone, content: Content) -> Stream:
    """Returns the token stream of one content. With `on_long` = "truncate", a long text is cut to the model's limit.

    Raises:
        TooLong: The stream is longer than the model's limit, or the image alone is longer.
        DataError: The image cannot be decoded.
    """
    stream = backbone.read(content)
    if backbone.on_long == "truncate" and backbone.inputs.length(stream) > backbone.max_tokens:
        stream = backbone.read(shortened(content, backbone.max_tokens, backbone.length))
    backbone.check_length(stream)
    return stream


def embed(backbone: Backbone, contents: Sequence[Content]) -> Tensor:
    """Embeds contents, in order.

    Returns:
        (contents, width), float32, of unit length. Carries gradients if the model's parameters do.

    Raises:
        DataError: A content is too long, or its image cannot be decoded.

    Source:
        Last-token pooling: VLM2Vec (arXiv 2410.05160), UniME-V2 (arXiv 2510.13515).
    """
    return embed_streams(backbone, [stream_of(backbone, content) for content in contents])


def embed_streams(backbone: Backbone, streams: Sequence[Stream]) -> Tensor:
    """Embeds token streams in the way that `embed` embeds contents."""
    return F.normalize(backbone.last_hidden(streams).float(), dim=-1)
