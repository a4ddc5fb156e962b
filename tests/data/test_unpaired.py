"""Which files an unpaired item is made of, where it is cut, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from reblurkit.data import BlurryFolder, UnpairedFolder, write_image
from reblurkit.data.sampling import Draw
from reblurkit.errors import ArgumentError, DatasetNotFoundError, PairingError, ShapeError
from reblurkit.plugins import UnpairedDataModule

GREYS = {"trainA": 10, "trainB": 20, "trainC": 30, "trainD": 40, "testA": 50}


def flat(path, grey, size=(40, 48)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), grey, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    """Every file has a grey level of its own: 10, 11, ... in trainA, 20, 21, ... in trainB and so on."""
    for folder, grey in GREYS.items():
        for index in range(5):
            flat(tmp_path / folder / f"{index}.png", grey + index)
    return tmp_path


def greys(data, key, epochs=4):
    """Grey levels of the key's images over some epochs, in order."""
    return [
        int((data[Draw(item, epoch)][key].mean() * 255).round()) for epoch in range(epochs) for item in range(len(data))
    ]


def test_blurry_images_come_in_turn_and_the_others_at_random(root):
    data = UnpairedFolder(root, crop=32)
    assert greys(data, "blurry") == [10, 11, 12, 13, 14] * 4
    for key, first in (("sharp", 20), ("known_blurry", 30), ("known_sharp", 40)):
        found = greys(data, key)
        assert set(found) == set(range(first, first + 5))
        assert found != sorted(found)
    known = zip(greys(data, "known_blurry"), greys(data, "known_sharp"), strict=True)
    assert all(sharp - blurry == 10 for blurry, sharp in known), "known images stay pairs"
    assert data[3]["name"] == "3"
    assert {tuple(image.shape) for key, image in data[0].items() if key != "name"} == {(3, 32, 32)}


def test_the_longer_set_makes_the_epoch(root):
    for index in range(5, 8):
        flat(root / "trainB" / f"{index}.png", 20 + index)
    data = UnpairedFolder(root, crop=32)
    assert len(data) == 8
    assert greys(data, "blurry", 1) == [10, 11, 12, 13, 14, 10, 11, 12]
    with pytest.raises(IndexError):
        data[8]


def test_ratio_makes_a_paired_set_unpaired(root):
    data = UnpairedFolder(root, crop=32, ratio=0.6)
    assert set(greys(data, "blurry")) == {10, 11, 12}
    assert set(greys(data, "sharp")) == {23, 24}
    with pytest.raises(ArgumentError, match="leaves no image"):
        UnpairedFolder(root, crop=32, ratio=0.05)


def test_crops_are_of_the_images_and_the_same_in_known_pairs(tmp_path):
    images = {folder: torch.randint(256, (3, 24, 30)) / 255 for folder in ("trainA", "trainB", "trainC")}
    images["trainD"] = 1 - images["trainC"]
    for folder, image in images.items():
        write_image(image, tmp_path / folder / "1.png")
    data = UnpairedFolder(tmp_path, crop=16)
    flips = set()
    for epoch in range(16):
        item = data[Draw(0, epoch)]
        torch.testing.assert_close(item["known_sharp"], 1 - item["known_blurry"], rtol=0, atol=1e-6)
        places = images["trainC"].unfold(1, 16, 1).unfold(2, 16, 1).movedim(0, 2)
        assert (places == item["known_blurry"]).all((2, 3, 4)).any(), "known crops are not flipped"
        for key, folder in (("blurry", "trainA"), ("sharp", "trainB")):
            places = images[folder].unfold(1, 16, 1).unfold(2, 16, 1).movedim(0, 2)
            found = [(places == crop).all((2, 3, 4)).any().item() for crop in (item[key], item[key].flip(-1))]
            assert sum(found) == 1
            flips.add(found[1])
    assert flips == {True, False}


def test_an_item_is_a_function_of_seed_epoch_and_index(root):
    one, same, other = (UnpairedFolder(root, crop=32, seed=seed) for seed in (1, 1, 2))
    assert greys(one, "sharp") == greys(same, "sharp") != greys(other, "sharp")


def test_resize_makes_the_shorter_side(tmp_path):
    ramp = torch.linspace(0.2, 0.8, 60).expand(3, 40, 60)
    for folder in ("trainA", "trainB"):
        write_image(ramp, tmp_path / folder / "1.png")
    crop = UnpairedFolder(tmp_path, crop=20, resize=20)[0]["blurry"]
    slope = (crop[..., 2:-1] - crop[..., 1:-2]).abs().mean() * 29  # 60 columns became 30
    torch.testing.assert_close(slope, torch.tensor(0.6), rtol=0.05, atol=0)


def test_plain_folders_without_known_pairs(tmp_path):
    flat(tmp_path / "mine" / "blurry" / "a.png", 1)
    flat(tmp_path / "elsewhere" / "b.png", 2)
    data = UnpairedFolder(tmp_path / "mine", blurry="blurry", sharp=str(tmp_path / "elsewhere"), crop=32)
    assert set(data[0]) == {"blurry", "sharp", "name"}


def test_bad_folders(root):
    with pytest.raises(DatasetNotFoundError, match="holds: testA, trainA"):
        UnpairedFolder(root, sharp="sharp")
    (root / "empty").mkdir()
    with pytest.raises(DatasetNotFoundError, match="no images in the folder"):
        UnpairedFolder(root, blurry="empty")
    for same in ("trainA", "./trainA", str(root / "trainA")):
        with pytest.raises(PairingError, match="blurry and sharp images are the same folder"):
            UnpairedFolder(root, sharp=same)
    (root / "link").symlink_to(root / "trainC")
    with pytest.raises(PairingError, match="known_blurry and known_sharp images are the same folder"):
        UnpairedFolder(root, known_sharp="link")
    with pytest.raises(DatasetNotFoundError, match="no folders of known blur"):
        UnpairedFolder(root, known_blurry="gopro_blur", known_sharp="gopro_sharp", crop=32)
    with pytest.raises(PairingError, match="blurry and sharp images, but there is"):
        UnpairedFolder(root, known_sharp=None, crop=32)
    (root / "trainD" / "4.png").unlink()
    with pytest.raises(PairingError, match=r"trainC holds 5 and .*trainD 4"):
        UnpairedFolder(root, crop=32)
    flat(root / "trainD" / "4.png", 0, (20, 20))
    with pytest.raises(ShapeError, match="must have the same size"):
        UnpairedFolder(root, crop=16)


def test_bad_numbers(root):
    with pytest.raises(ShapeError, match="fewer than the crop of 64 x 64"):
        UnpairedFolder(root, crop=64)
    for wrong in ({"crop": 0}, {"resize": 100}, {"ratio": 1.0}):
        with pytest.raises(ArgumentError, match="at least the crop"):
            UnpairedFolder(root, **wrong)


def test_the_modules_stages(root):
    data = UnpairedDataModule(root, crop=32, num_workers=0, test_sharp="trainD", test_blurry="trainC", batch_size=2)
    data.setup("fit")
    data.setup("test")
    assert next(iter(data.train_dataloader()))["known_sharp"].shape == (2, 3, 32, 32)
    (first, *_) = data.val_dataloader()
    assert set(first) == {"blurry", "name"}
    assert first["blurry"].shape == (1, 3, 40, 48)
    assert isinstance(data.dataset("val"), BlurryFolder)
    (first, *_) = data.test_dataloader()
    assert set(first) == {"blurry", "sharp", "name"}
    torch.testing.assert_close(first["sharp"] - first["blurry"], torch.full((1, 3, 40, 48), 10 / 255))


def test_names_that_differ_in_the_suffix_alone_keep_it(tmp_path):
    for name in ("a.png", "a.jpg", "deep/b.jpg"):
        write_image(torch.rand(3, 8, 9), tmp_path / name)
    photos = BlurryFolder(tmp_path)
    assert [photos[index]["name"] for index in range(3)] == ["a.jpg", "a", "deep/b"]
