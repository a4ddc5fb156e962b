from __future__ import annotations

import pytest
import torch

from reblurkit.data import PhotoFolder, read_image
from reblurkit.errors import DatasetNotFoundError, ShapeError
from tests.data.test_cache import photo


def test_photos_of_all_folders_in_order(tmp_path):
    for name, size in (("b.jpg", (20, 30)), ("a/x.png", (9, 12)), ("a/y.bmp", (30, 20))):
        photo(tmp_path / name, size=size)
    (tmp_path / "notes.txt").touch()
    photos = PhotoFolder(tmp_path)
    assert [photos.name(index) for index in range(len(photos))] == ["a/x", "a/y", "b"]
    for index, file in enumerate(photos.files):
        assert torch.equal(photos[index]["sharp"], read_image(file))
    part = photos.subset([2, 0])
    assert [item["name"] for item in part] == ["b", "a/x"]
    assert len(photos) == 3


def test_bad_folders(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"no folder .*none"):
        PhotoFolder(tmp_path / "none")
    with pytest.raises(DatasetNotFoundError, match="no images in the folder"):
        PhotoFolder(tmp_path)
    photo(tmp_path / "a.png", size=(9, 12))
    PhotoFolder(tmp_path).check_size(9)
    with pytest.raises(ShapeError, match=r"a\.png has 12 x 9 pixels, fewer than the crop of 10 x 10; choose a smaller"):
        PhotoFolder(tmp_path).check_size(10)
