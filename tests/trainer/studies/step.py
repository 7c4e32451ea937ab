"""A step of a study for tests: python -m tests.trainer.studies.step world|run OUT …. The step takes `NAP` seconds."""

import json
import os
import sys
import time
from pathlib import Path

UNLUCKY = ("8", "0", "1")
"""k, way and seed of the run that fails while the file `luck` is missing."""


def main(kind: str, out: Path, *rest: str) -> None:
    out.mkdir(parents=True)
    time.sleep(float(os.environ.get("NAP", "0")))
    if kind == "world":
        (out / "world.txt").write_text(rest[0])
        return
    world, k, way, seed = rest
    if (k, way, seed) == UNLUCKY and not Path("luck").exists():
        sys.exit("no luck today")
    assert (Path(world) / "world.txt").read_text() == seed
    (out / "metrics.json").write_text(
        json.dumps({"all": {"score": int(k) / 10 + int(way) + int(seed) / 100}})
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
