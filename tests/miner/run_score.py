"""Runs a scoring job in a process of its own, so that a test can kill it."""

import sys

from miner.score import score
from miner.settings import ScoreSettings

if __name__ == "__main__":
    score(ScoreSettings.model_validate_json(sys.argv[1]), lambda progress: None)
