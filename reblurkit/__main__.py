"""``python -m reblurkit``: the command line."""

import sys

from reblurkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
