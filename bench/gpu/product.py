"""How fast is one large product of matrices? What a model can reach at most on this device, as measured."""

import time

REPEATS = 20


def product_rate(device: str, size: int) -> float:
    """The rate of square products in bfloat16, in FLOP/s.

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

    for _ in range(3):  # the first products choose and load a kernel
        left @ right
    begun = finished()
    for _ in range(REPEATS):
        left @ right
    return REPEATS * 2 * size**3 / (finished() - begun)


def device_name(device: str) -> str:
    """The GPU's name; `CPU` for a CPU."""
    import torch

    return str(torch.cuda.get_device_name()) if device == "cuda" else "CPU"
