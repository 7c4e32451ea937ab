"""Takes the pictures of docs/images from pages that the quickstart and the demo wrote. Needs Chromium.

python docs/screenshots.py
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parent / "images"


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
)


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
    """Takes all pictures whose page exists."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("chromium: not found. Install it, for example with apt install chromium")
    IMAGES.mkdir(exist_ok=True)
    for shot in SHOTS:
        if not shot.page.exists():
            sys.exit(f"{shot.page}: does not exist. Run `make quickstart` and `make demo` first")
        take(chromium, shot)


if __name__ == "__main__":
    main()
