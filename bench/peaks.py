"""The peak rates of GPUs, as published by their makers, to compute the share of a peak that is useful work."""

import re

BFLOAT16_PEAKS = {
    # NVIDIA A100 Tensor Core GPU datasheet, 2021: 312, for all form factors. A800: the same chip with slower NVLink.
    "A100": 312e12,
    "A800": 312e12,
    # NVIDIA H100 Tensor Core GPU datasheet, 2023 (SXM 1,979, PCIe 1,513) and H100 NVL (1,671), all with sparsity.
    "H100 PCIe": 756.5e12,
    "H100 NVL": 835.5e12,
    "H100": 989.5e12,
    # NVIDIA H200 datasheet, 2024: SXM 1,979, NVL 1,671, both with sparsity.
    "H200 NVL": 835.5e12,
    "H200": 989.5e12,
    # NVIDIA L4 datasheet, 2023: 242 with sparsity. NVIDIA L40S datasheet, 2023: 362 without.
    "L4": 121e12,
    "L40S": 362e12,
    # NVIDIA DGX B200 datasheet, 2024: FP8 72 PFLOP/s with sparsity for eight GPUs; bfloat16 is half, dense a quarter.
    "B200": 2250e12,
}
"""Name of the GPU → FLOP/s of dense products in bfloat16. A datasheet value with sparsity is twice as high."""


def peak_of(name: str) -> float | None:
    """Returns the peak of a GPU in bfloat16, in FLOP/s; None for an unknown GPU and for a part of a GPU (MIG).

    Example:
        >>> peak_of("NVIDIA H100 80GB HBM3"), peak_of("NVIDIA H100 PCIe"), peak_of("NVIDIA L40S")
        (989500000000000.0, 756500000000000.0, 362000000000000.0)
        >>> peak_of("NVIDIA L40"), peak_of("NVIDIA A100-SXM4-80GB MIG 3g.40gb")
        (None, None)
    """
    if "MIG" in name:
        return None
    known = [chip for chip in BFLOAT16_PEAKS if re.search(rf"\b{chip}\b", name)]
    return BFLOAT16_PEAKS[max(known, key=len)] if known else None
