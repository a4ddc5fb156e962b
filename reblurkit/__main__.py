"""``python -m reblurkit``: the command line."""

import os
import sys
from contextlib import suppress

if __name__ == "__main__":
    with suppress(FileNotFoundError):  # a folder that has been deleted is told of below
        if not sys.flags.safe_path and sys.path[0] == os.getcwd():
            del sys.path[0]  # `python -m` puts it first, and a downloaded file there would pass for a library
    from reblurkit.cli import main

    sys.exit(main())
