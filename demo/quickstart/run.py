"""Runs the commands of docs/quickstart.md, each as it stands there.

    python -m demo.quickstart.run

The output goes to build/quickstart, which is emptied first. The service is started, waited for, and stopped at the end.
"""

import contextlib
import re
import shutil
import time
from pathlib import Path

from demo.processes import run, started

PAGE = Path("docs/quickstart.md")
OUT = Path("build/quickstart")
URL = "http://127.0.0.1:8899"


def commands(page: str) -> list[str]:
    r"""The commands of a page, in order: every line of its bash blocks that is no comment.

    Example:
        >>> commands("```bash\n# first\nunijudge describe a\n```")
        ['unijudge describe a']
    """
    blocks = re.findall(r"```bash\n(.+?)```", page, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def main() -> None:
    """Runs all commands, and says how long they took."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    begun = time.monotonic()
    with contextlib.ExitStack() as services:
        for command in commands(PAGE.read_text(encoding="utf-8")):
            if command.endswith(" &"):
                services.enter_context(started(command.removesuffix(" &"), URL, OUT / "judge.log"))
            else:
                run(command)
    print(
        f"\n{OUT / 'mined.html'}: open this page in a browser. {time.monotonic() - begun:.0f} s in all."
    )


if __name__ == "__main__":
    main()
