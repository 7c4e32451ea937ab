"""Flickr30K and COCO, Karpathy's test splits: 1,000 and 5,000 images, the first five captions of each, both ways.

Data: dataset_flickr30k.json and dataset_coco.json of karpathy/neuraltalk2; Flickr30K's images in one folder or its zip,
COCO's in the folder val2014 or its zip; its image names begin with val2014.
"""

from trainer.benchmarks.spec import BenchmarkSet


def _set(name: str, images: str, count: int, named_from: str | None = None) -> BenchmarkSet:
    return BenchmarkSet(
        name=name,
        layout="karpathy",
        source=f"{name}/dataset_{name}.json",
        files=f"{name}/dataset_{name}.json",
        images=(f"{name}/{images}", f"{name}/{images}.zip"),
        queries={f"{name}_t2i": 5 * count, f"{name}_i2t": count},
        options=("--split", "test", "--captions", "5"),
        named_from=named_from,
    )


SETS = (
    _set("flickr30k", "flickr30k-images", 1000),
    _set("coco", "val2014", 5000, named_from="coco"),
)
