"""Simulates a full GPU: the decoder of a tiny Qwen2.5-VL raises the error of torch's allocator."""

import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

MESSAGE = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB"


def run_out_in_pass(number, error=None):
    """Raises the error from the given forward pass on. The first pass has the number 1."""
    plain, passes = Qwen2_5_VLTextModel.forward, []

    def forward(self, *given, **named):
        passes.append(1)
        if len(passes) >= number:
            raise error or torch.OutOfMemoryError(MESSAGE)
        return plain(self, *given, **named)

    Qwen2_5_VLTextModel.forward = forward
