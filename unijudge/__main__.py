"""`python -m unijudge`: the command line, as launchers of several processes start it."""

import sys

from unijudge.cli import main

if __name__ == "__main__":
    sys.argv[0] = "unijudge"
    main()
