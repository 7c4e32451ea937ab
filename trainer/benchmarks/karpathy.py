"""Flickr30K and COCO in Karpathy's test splits: 1,000 and 5,000 images with their first five captions, both directions.

Data: dataset_flickr30k.json and dataset_coco.json of karpathy/neuraltalk2. The images of Flickr30K are in one folder or
a zip file, the images of COCO in the folder val2014 or a zip file. The image names of COCO begin with val2014.
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
