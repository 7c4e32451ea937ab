"""Runs `unijudge` on a machine whose memory runs out in one process: SHORT_RANK, in the pass SHORT_PASS of its
decoder.
"""

import os

from tests.trainer.short_of_memory import run_out_in_pass
from unijudge.cli import main

if __name__ == "__main__":
    if os.environ["RANK"] == os.environ["SHORT_RANK"]:
        run_out_in_pass(int(os.environ["SHORT_PASS"]))
    main()
