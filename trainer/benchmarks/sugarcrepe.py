"""SugarCrepe: each image with its caption and a wrong caption. There are seven kinds of wrong captions in three groups.

The result of a query is right if its caption is strictly nearer than the wrong caption. Source of the sizes and groups:
Hsieh et al., "SugarCrepe", arXiv 2306.14610. Data: RAIVNLab/sugar-crepe on GitHub, and the images of COCO's val2017.
"""

from trainer.benchmarks.spec import Average, BenchmarkSet

SETS = (
    BenchmarkSet(
        name="sugarcrepe",
        layout="sugarcrepe",
        source="sugar-crepe/data",
        files="sugar-crepe/data/*.json",
        images=("coco/val2017", "coco/val2017.zip"),
        queries={
            "replace_obj": 1652,
            "replace_att": 788,
            "replace_rel": 1406,
            "swap_obj": 245,
            "swap_att": 666,
            "add_obj": 2062,
            "add_att": 692,
        },
    ),
)

AVERAGES = (
    Average("Replace", ("replace_obj", "replace_att", "replace_rel")),
    Average("Swap", ("swap_obj", "swap_att")),
    Average("Add", ("add_obj", "add_att")),
)
