"""Measures the peak memory of each command for growing inputs. The peak should not grow with the input.

    .venv/bin/python -m bench.memory [--only score] [--share 0.01] [--scratch /data]

Each size of each case is generated, measured and deleted before the next size, in separate processes. The start is the
peak memory of the same command for eight rows: Python and its libraries. The table contains the peak above the start,
of the command and its children, in MB.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.memory.cases import CASES
from bench.memory.measuring import table


def embed(folder: Path) -> None:
    """Runs `train embed` with random vectors, because a real model takes hours for a million rows."""
    import numpy as np

    from trainer.embedding import embed
    from trainer.embedding.base import Identity
    from trainer.embedding.settings import EmbedSettings

    class Scripted:
        """A system that returns random vectors."""

        identity = Identity(model="made up", weights="0", encoding="none")
        width = 512

        def __init__(self, _: Any):
            self._numbers = np.random.default_rng(1)

        def check_texts(self, _: Any) -> None:
            """Accepts all texts."""

        def prepare(self, content: Any) -> Any:
            """Returns the content unchanged."""
            return content

        def embed(self, prepared: Any) -> Any:
            """Returns random vectors."""
            return self._numbers.normal(size=(len(prepared), self.width))

    embed.OurModel = Scripted  # type: ignore[assignment,misc]
    embed.embed_corpus(
        EmbedSettings(corpus=folder / "corpus", out=folder / "vectors"), lambda *_: None
    )


def serve() -> None:
    """Starts the service, prints its URL, and stops it when the input ends."""
    from bench.made_up import serving

    with serving(start_s=300) as url:
        print(url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", action="append", default=[], help="run only cases with this text in their names"
    )
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of each size, for a shorter run"
    )
    parser.add_argument(
        "--scratch", type=Path, default=Path(tempfile.gettempdir()), help="folder with 20 GB free"
    )
    parser.add_argument("--make", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--embed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
    elif options.embed:
        embed(options.scratch)
    elif options.make:
        next(case for case in CASES if case.name == options.make).make(
            options.scratch, options.size
        )
    else:
        for line in table(options.only, options.scratch, options.share):
            print(line, flush=True)
