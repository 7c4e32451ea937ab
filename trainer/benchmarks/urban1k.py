"""Urban1K: 1,000 street scenes with one long caption each, both directions (Long-CLIP; Urban200K in UniME's code).

Data: BeichenZhang/Urban1k on the Hugging Face hub, unpacked into the folders image/ and caption/.
"""

from trainer.benchmarks.spec import BenchmarkSet

SETS = (
    BenchmarkSet(
        name="urban1k",
        layout="urban1k",
        source="Urban1k",
        files="Urban1k/caption/*.txt",
        images=("Urban1k/image",),
        queries={"urban1k_t2i": 1000, "urban1k_i2t": 1000},
    ),
)
