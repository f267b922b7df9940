"""`python -m lstmx`: the command line, for where the `lstmx` script is not on the path."""

import sys

from lstmx.cli import main

if __name__ == "__main__":
    sys.exit(main())
