"""`python -m tests.fault.rigs [RIG …] [--count N] [--seed N] [--minutes M] [--json]`."""

import sys

from tests.fault.rigs.runner import main

if __name__ == "__main__":
    sys.exit(main())
