from __future__ import annotations

import runpy
from pathlib import Path

from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "reproduce" / "synthetic_blur.py"


def test_the_pictures_of_the_page_on_data(tmp_path):
    files = {"output": "synthetic.jpg", "cameras": "cameras.jpg"}
    options = [word for name, file in files.items() for word in (f"--{name}", str(tmp_path / "new" / file))]
    runpy.run_path(str(SCRIPT))["main"](options)
    for file in files.values():
        with (
            Image.open(tmp_path / "new" / file) as ours,
            Image.open(SCRIPT.parents[2] / "docs" / "images" / file) as committed,
        ):
            assert ours.size == committed.size
