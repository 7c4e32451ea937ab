"""The command line as `python -m unijudge`, for launchers of several processes."""

import sys

from unijudge.cli import main

if __name__ == "__main__":
    sys.argv[0] = "unijudge"
    main()
