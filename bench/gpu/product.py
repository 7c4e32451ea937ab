"""Measures the rate of one large matrix product, which is the upper limit for a model on this device."""

import time

REPEATS = 20


def product_rate(device: str, size: int) -> float:
    """Returns the rate of products of square matrices in bfloat16, in FLOP/s.

    Args:
        device: `cpu` or `cuda`.
        size: Rows and columns.
    """
    import torch

    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))

    def finished() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    for _ in range(3):  # warm-up: the first products select and load a kernel
        left @ right
    begun = finished()
    for _ in range(REPEATS):
        left @ right
    return REPEATS * 2 * size**3 / (finished() - begun)


def device_name(device: str) -> str:
    """Returns the name of the GPU, or `CPU`."""
    import torch

    return str(torch.cuda.get_device_name()) if device == "cuda" else "CPU"
