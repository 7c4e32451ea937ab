"""A tiny root of benchmark data, in the layouts that its sources publish.

* MMEB-eval: a folder of Parquet files for each set, with qry_text, qry_img_path, tgt_text, tgt_img_path; the first
  target is right (the dataset card of TIGER-Lab/MMEB-eval).
* flickr30k, coco: Karpathy's dataset_flickr30k.json and dataset_coco.json, which alone has a filepath
  (karpathy/neuraltalk2).
* sharegpt4v: share-captioner_coco_lcs_sam_1246k_1107.json (Lin-Chen/ShareGPT4V; the loader of beichenzbc/Long-CLIP).
* Urban1k: image/N.jpg and caption/N.txt (the loader of beichenzbc/Long-CLIP).
* sugar-crepe: a JSON object for each kind (RAIVNLab/sugar-crepe), images of COCO's val2017.
"""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.pictures import png

COLORS = ["red", "green", "blue", "white"]
SUGARCREPE = [
    "replace_obj",
    "replace_att",
    "replace_rel",
    "swap_obj",
    "swap_att",
    "add_obj",
    "add_att",
]


def write_mmeb(root, name, rows):
    """A set whose queries show a colour. The right answer is the name of the colour, among all names."""
    folder = root / "MMEB-eval"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for color in COLORS:
        (folder / "images" / f"{color}.png").write_bytes(png(color))
    table = [
        {
            "qry_text": "<|image_1|>\nWhich colour?\n",
            "qry_img_path": f"images/{color}.png",
            "tgt_text": [color, *(other for other in COLORS if other != color)],
            "tgt_img_path": [""] * len(COLORS),
        }
        for color in (COLORS * rows)[:rows]
    ]
    (folder / name).mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table), folder / name / "test-00000-of-00001.parquet")


def jpeg(color):
    out = io.BytesIO()
    Image.new("RGB", (60, 60), color).save(out, "JPEG")
    return out.getvalue()


def write_karpathy(root, name, images, **more):
    """Two test images have six captions each, of which five are used. One image belongs to another split."""
    folder = root / name
    (folder / images).mkdir(parents=True)
    rows = []
    for color, split in [("red", "test"), ("green", "test"), ("blue", "val")]:
        (folder / images / f"{color}.png").write_bytes(png(color))
        sentences = [{"raw": f"{color} square number {number}"} for number in range(6)]
        rows.append({"filename": f"{color}.png", "split": split, "sentences": sentences, **more})
    (folder / f"dataset_{name}.json").write_text(json.dumps({"images": rows, "dataset": name}))


def write_long(root):
    """Two images for each set with long captions."""
    share, urban = root / "sharegpt4v", root / "Urban1k"
    for folder in (share / "sam" / "images", urban / "image", urban / "caption"):
        folder.mkdir(parents=True)
    rows = []
    for number, color in enumerate(COLORS[:2], start=1):
        (share / "sam" / "images" / f"sa_{number}.png").write_bytes(png(color))
        turns = [
            {"from": "human", "value": "<image>\nDescribe."},
            {"from": "gpt", "value": f"A square.\nIt is {color}."},
        ]
        rows.append(
            {"id": f"sa_{number}", "image": f"sam/images/sa_{number}.png", "conversations": turns}
        )
        (urban / "image" / f"{number}.jpg").write_bytes(jpeg(color))
        (urban / "caption" / f"{number}.txt").write_text(f"A {color} street.\nnot read\n")
    (share / "share-captioner_coco_lcs_sam_1246k_1107.json").write_text(json.dumps(rows))


def write_sugarcrepe(root, kinds=SUGARCREPE):
    """Two rows of each kind of negative."""
    (root / "sugar-crepe" / "data").mkdir(parents=True)
    (root / "coco" / "val2017").mkdir(parents=True)
    for color in COLORS:
        (root / "coco" / "val2017" / f"{color}.png").write_bytes(png(color))
    for kind in kinds:
        rows = {
            str(number): {
                "filename": f"{color}.png", "caption": f"a {color} square", "negative_caption": f"a {wrong} square"
            }
            for number, (color, wrong) in enumerate([("red", "blue"), ("green", "white")])
        }  # fmt: skip
        (root / "sugar-crepe" / "data" / f"{kind}.json").write_text(json.dumps(rows))


def write_all(root):
    """Writes every benchmark: one set of MMEB has the published number of queries, and all other sets are too small."""
    write_mmeb(root, "HatefulMemes", 1000)
    write_mmeb(root, "VOC2007", 3)
    write_karpathy(root, "flickr30k", "flickr30k-images")
    write_karpathy(root, "coco", "val2014", filepath="val2014")
    write_long(root)
    write_sugarcrepe(root)
    return root
