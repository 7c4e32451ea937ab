"""MMEB: 36 sets in four tasks, each with 1,000 queries with closed candidate lists.

20 sets are in the training distribution. Source of the sets and tasks: Jiang et al., "VLM2Vec", arXiv 2410.05160,
table 1. Data: TIGER-Lab/MMEB-eval on the Hugging Face hub, a folder for each set, next to the images in folders or zip
files. The averages are plain means over sets, as in the authors' `eval_MMEB.py`. The number of candidates is shown but
not checked, since candidate lists repeat labels.
"""

from trainer.benchmarks.spec import Average, BenchmarkSet

QUERIES_IN_SET = 1000
TASKS = {
    "Classification": (
        ("ImageNet-1K", "N24News", "HatefulMemes", "VOC2007", "SUN397"),
        ("Place365", "ImageNet-A", "ImageNet-R", "ObjectNet", "Country211"),
    ),
    "VQA": (
        ("OK-VQA", "A-OKVQA", "DocVQA", "InfographicsVQA", "ChartQA", "Visual7W"),
        ("ScienceQA", "VizWiz", "GQA", "TextVQA"),
    ),
    "Retrieval": (
        (
            "VisDial",
            "CIRR",
            "VisualNews_t2i",
            "VisualNews_i2t",
            "MSCOCO_t2i",
            "MSCOCO_i2t",
            "NIGHTS",
            "WebQA",
        ),
        ("FashionIQ", "Wiki-SS-NQ", "OVEN", "EDIS"),
    ),
    "Grounding": (("MSCOCO",), ("RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing")),
}
"""Task → (sets in the training distribution, sets out of the training distribution)."""
IMAGE_FILES = ("MMEB-eval/*.zip", "MMEB-eval/*/*.zip", "MMEB-eval/*/**/*[gG]")
"""The patterns of image files. The last pattern matches jpg, JPEG and png files in any folder, since images.zip unpacks
into the folders of the sets."""

IND = tuple(name for inside, _ in TASKS.values() for name in inside)
OOD = tuple(name for _, outside in TASKS.values() for name in outside)

SETS = tuple(
    BenchmarkSet(
        name=f"mmeb/{name}",
        layout="mmeb-eval",
        source="MMEB-eval",
        files=f"MMEB-eval/{name}/test-*.parquet",
        images=IMAGE_FILES,
        queries={name: QUERIES_IN_SET},
        options=("--subset", name),
        named_from="MMEB-eval",
        instructed=False,
    )
    for inside, outside in TASKS.values()
    for name in (*inside, *outside)
)

AVERAGES = (
    *(Average(task, (*inside, *outside)) for task, (inside, outside) in TASKS.items()),
    Average("IND", IND),
    Average("OOD", OOD),
    Average("Overall", (*IND, *OOD)),
)
