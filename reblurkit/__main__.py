"""``python -m reblurkit``: the command line."""

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[0] == os.getcwd():
        del sys.path[0]  # `python -m` puts the current folder first, where a downloaded file would pass for a library
    from reblurkit.cli import main

    sys.exit(main())
