"""ShareGPT4V: the first 1,000 images of the caption file with one long caption each, both directions (as in Long-CLIP).

Data: Lin-Chen/ShareGPT4V on the Hugging Face hub. The folders of the images (sam/, coco/, llava/) or their zip files
are next to the caption file.
"""

from trainer.benchmarks.spec import BenchmarkSet

CAPTIONS_FILE = "sharegpt4v/share-captioner_coco_lcs_sam_1246k_1107.json"

SETS = (
    BenchmarkSet(
        name="sharegpt4v",
        layout="sharegpt4v",
        source=CAPTIONS_FILE,
        files=CAPTIONS_FILE,
        images=("sharegpt4v/sam", "sharegpt4v/coco", "sharegpt4v/llava", "sharegpt4v/*.zip"),
        queries={"sharegpt4v_t2i": 1000, "sharegpt4v_i2t": 1000},
        options=("--first", "1000"),
        named_from="sharegpt4v",
    ),
)
