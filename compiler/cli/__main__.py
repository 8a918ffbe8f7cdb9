"""`python -m hqc.cli`: the `hqc` command where no script is on the PATH."""

import sys

from hqc.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
