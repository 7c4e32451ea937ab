"""Takes the pictures of docs/images from pages that the quickstart and the demo wrote. Needs Chromium.

    python docs/screenshots.py [NAME.png ...]

The table of `train benchmark` comes from a run of its own: no published benchmark is here, so the 60 scenes of the
quickstart take the place of the images of Flickr30K.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup
from PIL import Image

from unijudge.pages.pages import page

HERE = Path(__file__).parent
IMAGES = HERE / "images"
QUICKSTART = HERE.parent / "demo" / "quickstart"
BENCHMARK = Path("build/benchmark")


@dataclass(frozen=True)
class Shot:
    """A part of a page."""

    page: Path
    name: str
    width: int
    top: int
    """The first row of pixels that is kept: above it, the page of `mine inspect` has paths of this machine."""
    bottom: int


SHOTS = (
    Shot(Path("build/quickstart/mined.html"), "inspect.png", 1280, 775, 1480),
    Shot(Path("build/demo/runs/soft_labels-0/report.html"), "training.png", 1100, 0, 950),
    Shot(BENCHMARK / "table.html", "benchmark.png", 1190, 45, 960),
)


def write_scenes(folder: Path) -> None:
    """Writes the pictures and captions of the quickstart as Flickr30K is published."""
    images = []
    for line in (QUICKSTART / "pairs.jsonl").read_text(encoding="utf-8").splitlines():
        pair = json.loads(line)
        _, _, caption = pair["query_text"].partition("caption: ")
        sentences = [{"raw": caption}]
        images.append({"filename": pair["positive_image"], "split": "test", "sentences": sentences})
    shutil.copytree(QUICKSTART / "images", folder / "flickr30k-images", dirs_exist_ok=True)
    table = json.dumps({"dataset": "flickr30k", "images": images})
    (folder / "dataset_flickr30k.json").write_text(table, encoding="utf-8")


def write_table() -> None:
    """Measures the demo's base embedder on the scenes, and writes the table as a page."""
    write_scenes(BENCHMARK / "data" / "flickr30k")
    subprocess.run(
        [
            sys.executable, "-m", "unijudge", "train", "benchmark", f"root={BENCHMARK / 'data'}",
            f"out={BENCHMARK / 'out'}", "name=demo-base", "model.name=demo/models/base", "model.device=cpu",
            "model.min_pixels=3136", "model.max_pixels=3136", "allow_partial=true",
        ],
        check=True, timeout=600,
    )  # fmt: skip
    text = (BENCHMARK / "out" / "table.md").read_text(encoding="utf-8")
    body = Markup(MarkdownIt("commonmark").enable("table").render(text))  # noqa: S704  our own file
    html = page(HERE / "table.html.jinja", title="train benchmark", body=body)
    (BENCHMARK / "table.html").write_text(html, encoding="utf-8")


def take(chromium: str, shot: Shot) -> None:
    """Writes one picture."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.png"
        subprocess.run(
            [
                chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--window-size={shot.width},{shot.bottom}", "--virtual-time-budget=3000",
                f"--screenshot={whole}", shot.page.resolve().as_uri(),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        with Image.open(whole) as image:
            part = image.convert("RGB").crop((0, shot.top, shot.width, shot.bottom))
            part.quantize(128).save(IMAGES / shot.name, optimize=True)
    print(IMAGES / shot.name)


def main() -> None:
    """Takes the named pictures, or all."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("chromium: not found. Install it, for example with apt install chromium")
    IMAGES.mkdir(exist_ok=True)
    for shot in SHOTS:
        if sys.argv[1:] and shot.name not in sys.argv[1:]:
            continue
        if shot.page == BENCHMARK / "table.html":
            write_table()
        if not shot.page.exists():
            sys.exit(f"{shot.page}: does not exist. Run `make quickstart` and `make demo` first")
        take(chromium, shot)


if __name__ == "__main__":
    main()
