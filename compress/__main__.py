"""`python -m compress ...` is `compress ...`, for an environment whose scripts are not on the PATH."""

import sys

from compress.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
