"""The published properties of GPUs and models that this machine does not have."""

import tomllib
from functools import cache
from pathlib import Path

import transformers

from judge_service.backends.model_sizes import sizes_of
from judge_service.gpus import GIB, Gpu, Gpus
from judge_service.settings import ModelSettings, ServiceSettings

# The memory that the driver reports, in GiB.
CHIPS = {
    "A100 80": ("NVIDIA A100-SXM4-80GB", 79.25, (8, 0)),
    "H100 80": ("NVIDIA H100 80GB HBM3", 79.1, (9, 0)),
    "H200": ("NVIDIA H200", 139.8, (9, 0)),
    "L4": ("NVIDIA L4", 22.03, (8, 9)),
    "A10G": ("NVIDIA A10G", 22.06, (8, 6)),
    "RTX 4090": ("NVIDIA GeForce RTX 4090", 23.5, (8, 9)),
    "B200": ("NVIDIA B200", 178.4, (10, 0)),
    "T4": ("Tesla T4", 14.6, (7, 5)),
    "V100": ("Tesla V100-SXM2-16GB", 15.8, (7, 0)),
}
# width, layers, heads, heads of keys and values, feed-forward, vocabulary, the tower's feed-forward, tied embeddings.
QWEN25_VL = {
    "3B": (2048, 36, 16, 2, 11008, 151936, 3420, True),
    "7B": (3584, 28, 28, 4, 18944, 152064, 3420, False),
    "32B": (5120, 64, 40, 8, 27648, 152064, 3456, False),
    "72B": (8192, 80, 64, 8, 29568, 152064, 3456, False),
}


def gpu(chip, free=0.985):
    """One idle GPU. The driver uses a little of its memory."""
    name, memory_gib, capability = CHIPS[chip]
    return Gpu(name, int(memory_gib * GIB), int(free * memory_gib * GIB), capability)


def machine(chip, count=1, free=0.985):
    """A machine with some GPUs of one kind and a new driver."""
    return Gpus("13.0", "580.65.06", (gpu(chip, free),) * count, "")


def config(size):
    """The configuration of a Qwen2.5-VL, as `7B` or `7B AWQ`."""
    width, layers, heads, kv_heads, feed_forward, vocabulary, vision_feed_forward, tied = QWEN25_VL[
        size.split()[0]
    ]
    made = transformers.Qwen2_5_VLConfig(
        text_config={
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "intermediate_size": feed_forward,
            "vocab_size": vocabulary,
            "max_position_embeddings": 128000,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [16, 24, 24],
            },
            "tie_word_embeddings": tied,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": vision_feed_forward,
            "num_heads": 16,
            "out_hidden_size": width,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        tie_word_embeddings=tied,
    )
    if size.endswith("AWQ"):
        made.quantization_config = {"quant_method": "awq", "bits": 4, "group_size": 128}
    return made


@cache
def sizes(size):
    return sizes_of(config(size))


def settings(*, model=None, **service):
    """The shipped settings of a judge on one GPU, except the model's name and the given values."""
    shipped = tomllib.loads((Path(__file__).parents[2] / "deploy" / "judge.toml").read_text())
    named = shipped["model"] | {"name": "the-model"}
    return ServiceSettings(**shipped | service | {"model": ModelSettings(**named | (model or {}))})
