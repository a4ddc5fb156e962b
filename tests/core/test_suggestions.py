"""Near words and files."""

from __future__ import annotations

import pytest

from reblurkit.core.suggestions import near_path
from reblurkit.data import PairedFolder, VideoFolder
from reblurkit.data.patterns import image_files
from reblurkit.errors import ReblurkitError
from reblurkit.metrics import NIQE
from reblurkit.models import ReblurNet, load_weights


def test_the_first_name_that_is_not_there_is_replaced(tmp_path):
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "best.ckpt").touch()
    assert near_path(tmp_path / "run" / "first" / "best.ckpt") == f"; did you mean {tmp_path}/runs/first/best.ckpt?"
    assert near_path(tmp_path / "run" / "frst" / "best.ckpt") == f"; did you mean {tmp_path}/runs?"
    assert near_path(tmp_path / "runs" / "frst" / "bst.ckpt") == f"; did you mean {tmp_path}/runs/first?"
    for path in ("runs", "else", "runs/first/best.ckpt", "runs/first/best.ckpt/deeper", "x" * 5000, "a\0b"):
        assert near_path(tmp_path / path) == ""


def test_only_what_is_there_is_proposed(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "photos").symlink_to(tmp_path / "gone")
    for path in ("photos", "photo", "photos/a.png"):
        assert near_path(tmp_path / path) == ""
    assert near_path(tmp_path / "dta" / ("x" * 300)) == f"; did you mean {tmp_path}/data?"


def test_a_suffix_makes_no_short_name_near_to_another(tmp_path):
    for name in ("one.png", "wide.png"):
        (tmp_path / name).touch()
    assert near_path(tmp_path / "nope.png") == ""
    assert near_path(tmp_path / "wid.png") == f"; did you mean {tmp_path}/wide.png?"
    assert near_path(tmp_path / "wide.jpg") == f"; did you mean {tmp_path}/wide.png?"


def test_a_folder_of_very_many_names_is_not_compared(tmp_path):
    for number in range(2001):
        (tmp_path / f"frame_{number}.png").touch()
    assert near_path(tmp_path / "frame_5000.png") == ""


@pytest.mark.parametrize(
    ("reads", "name"),
    [
        (PairedFolder, "photos"),
        (VideoFolder, "photos"),
        (image_files, "photos"),
        (NIQE, "model.npz"),
        (NIQE, "model.mat"),
        (lambda path: load_weights(ReblurNet(), path), "model.pth"),
    ],
)
def test_whatever_reads_files_names_near_ones(tmp_path, reads, name):
    (tmp_path / name).mkdir()
    wrong = tmp_path / name.replace("o", "oo", 1)
    with pytest.raises(ReblurkitError, match=rf"{wrong}.*; did you mean {tmp_path / name}\?$"):
        reads(wrong)
