from __future__ import annotations

import runpy
from pathlib import Path

from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "reproduce" / "synthetic_blur.py"


def test_the_picture_of_the_page_on_data(tmp_path):
    runpy.run_path(str(SCRIPT))["main"](["--output", str(tmp_path / "new" / "synthetic.jpg")])
    with (
        Image.open(tmp_path / "new" / "synthetic.jpg") as ours,
        Image.open(SCRIPT.parents[2] / "docs" / "images" / "synthetic.jpg") as committed,
    ):
        assert ours.size == committed.size
