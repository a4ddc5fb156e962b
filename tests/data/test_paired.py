from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from reblurkit.data import DemoPhotos, PairedFolder
from reblurkit.data.augmentation import augment_pair, flip_and_turn, random_crop
from reblurkit.data.sampling import Draw
from reblurkit.errors import ArgumentError, DatasetNotFoundError, ImageFileError, PairingError, ShapeError


def save(path, size=(20, 24), value=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    level = np.random.default_rng(0).integers(0, 256, (*size, 3)) if value is None else np.full((*size, 3), value)
    Image.fromarray(level.astype(np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path):
    for split in ("train", "test"):
        for index in range(3):
            save(tmp_path / split / "blur" / f"{index}.png", value=10 * index)
            save(tmp_path / split / "sharp" / f"{index}.png", value=10 * index + 1)
    return tmp_path


def names(dataset):
    return [dataset[index]["name"] for index in range(len(dataset))]


def test_plain_folders(folders):
    dataset = PairedFolder(folders)
    assert names(dataset) == ["train/blur/0", "train/blur/1", "train/blur/2"]
    item = dataset[1]
    assert item["blurry"].shape == item["sharp"].shape == (3, 20, 24)
    assert (item["blurry"] * 255).unique().tolist() == pytest.approx([10])
    assert (item["sharp"] * 255).unique().tolist() == pytest.approx([11])


def test_plain_folders_may_be_nested_and_suffixes_may_differ(tmp_path):
    for scene in ("a", "b/c"):
        save(tmp_path / "train" / "blur" / scene / "1.jpg")
        save(tmp_path / "train" / "sharp" / scene / "1.png")
    (tmp_path / "train" / "blur" / "notes.txt").touch()
    save(tmp_path / "train" / "blur" / ".hidden.png")
    assert names(PairedFolder(tmp_path)) == ["train/blur/a/1", "train/blur/b/c/1"]


def test_undivided_folders_and_other_names(tmp_path):
    save(tmp_path / "input" / "x.png")
    save(tmp_path / "target" / "x.png")
    assert names(PairedFolder(tmp_path, split=None, blur="input", sharp="target")) == ["input/x"]
    assert names(PairedFolder(tmp_path, blur="input/*", sharp="target/*")) == ["input/x"]


def test_patterns_pair_by_what_their_wildcards_stand_for(tmp_path):
    for index in (1, 2):
        save(tmp_path / f"blur_{index}.png", value=index)
        save(tmp_path / f"sharp_{index}.png", value=index)
    dataset = PairedFolder(tmp_path, blur="blur_*.png", sharp="sharp_*.png")
    assert names(dataset) == ["blur_1", "blur_2"]
    assert all(torch.equal(dataset[i]["blurry"], dataset[i]["sharp"]) for i in range(2))


@pytest.mark.parametrize("blur", ["blur_gamma", "blur"])
def test_gopro_layout(tmp_path, blur):
    for split in ("train", "test"):
        for sequence in ("GOPR0372_07_00", "GOPR0374_11_00"):
            for kind, value in {"blur": 1, "blur_gamma": 2, "sharp": 3}.items():
                save(tmp_path / split / sequence / kind / "000047.png", value=value)
    dataset = PairedFolder(tmp_path, "gopro", blur=None if blur == "blur_gamma" else blur)
    assert names(dataset)[0] == f"train/GOPR0372_07_00/{blur}/000047"
    assert dataset[0]["blurry"].max() * 255 == pytest.approx({"blur": 1, "blur_gamma": 2}[blur])
    assert len(PairedFolder(tmp_path, "gopro", split="val")) == 2


def test_crop_and_augmentation_are_a_function_of_seed_epoch_and_index(tmp_path):
    for kind in ("blur", "sharp"):
        save(tmp_path / "train" / kind / "0.png", (40, 40))
    dataset = PairedFolder(tmp_path, crop=16, augment=True, seed=3)
    again = PairedFolder(tmp_path, crop=16, augment=True, seed=3)
    torch.rand(7)  # the global random state has no say
    assert torch.equal(dataset[Draw(0, 5)]["blurry"], again[Draw(0, 5)]["blurry"])
    assert torch.equal(dataset[0]["blurry"], again[Draw(0, 0)]["blurry"])
    assert not torch.equal(dataset[Draw(0, 5)]["sharp"], dataset[Draw(0, 6)]["sharp"])
    other = PairedFolder(tmp_path, crop=16, augment=True, seed=4)
    assert not torch.equal(dataset[0]["sharp"], other[0]["sharp"])


def test_all_symmetries_of_the_square_occur_equally_often():
    image = torch.arange(9.0).view(1, 3, 3)
    generator = torch.Generator().manual_seed(0)
    seen = Counter(tuple(flip_and_turn(image, generator).flatten().tolist()) for _ in range(1600))
    assert len(seen) == 8
    assert min(seen.values()) > 150


def test_augmentation_treats_both_images_alike_but_for_noise_on_the_blurry_one():
    photo = DemoPhotos("test")[0]["sharp"][:, :64, :64]
    differences = []
    for seed in range(20):
        blurry, sharp = augment_pair(torch.stack([photo, photo]), torch.Generator().manual_seed(seed))
        assert sharp.min() >= 0
        assert blurry.max() <= 1
        differences.append((blurry - sharp).std().item() * 255)
    # |N(0, 2)| has the mean 1.6
    assert 0.8 < np.mean(differences) < 2.4
    assert max(differences) > 2 * np.median(differences) > 0


def test_crops_stay_inside(folders):
    image = torch.arange(30.0).view(1, 5, 6)
    crops = {tuple(random_crop(image, 5, torch.Generator().manual_seed(s)).flatten().tolist()) for s in range(30)}
    assert crops == {tuple(image[..., :5].flatten().tolist()), tuple(image[..., 1:].flatten().tolist())}
    with pytest.raises(ShapeError, match="5 x 6 pixels is smaller than the crop of 7 x 7"):
        random_crop(image, 7, torch.Generator())


def test_missing_and_empty_folders(tmp_path, folders):
    with pytest.raises(DatasetNotFoundError, match=r"no data set folder .*nope"):
        PairedFolder(tmp_path / "nope")
    with pytest.raises(DatasetNotFoundError, match="it is a file"):
        PairedFolder(folders / "train" / "blur" / "0.png")
    with pytest.raises(DatasetNotFoundError, match=r"match 'val/blur/\*\*/\*' in .* holds: test, train"):
        PairedFolder(folders, split="val")
    with pytest.raises(ArgumentError, match="unknown layout 'goprp'; known layouts: folders, input-target, gopro"):
        PairedFolder(folders, "goprp")
    with pytest.raises(ArgumentError, match="`crop` must be at least 1 pixel"):
        PairedFolder(folders, augment=True)


def test_unpaired_names(folders):
    (folders / "train" / "sharp" / "1.png").unlink()
    save(folders / "train" / "sharp" / "one.png")
    with pytest.raises(PairingError, match=r"1 of 3 images of .* have no partner \(1.png\), 1 of 3 .* \(one.png\)"):
        PairedFolder(folders)


def test_links_to_folders_are_followed_also_in_circles(tmp_path):
    for kind in ("blur", "sharp"):
        save(tmp_path / "elsewhere" / kind / "1.png")
        (tmp_path / "set" / "train" / kind).mkdir(parents=True)
        (tmp_path / "set" / "train" / kind / "scene").symlink_to(tmp_path / "elsewhere" / kind)
        (tmp_path / "set" / "train" / kind / "circle").symlink_to(tmp_path / "set" / "train" / kind)
    assert names(PairedFolder(tmp_path / "set")) == ["train/blur/scene/1"]


def test_folders_outside_the_root_and_a_folder_with_itself(folders):
    with pytest.raises(ArgumentError, match="lie below its root"):
        PairedFolder(folders, split="../x")
    with pytest.raises(ArgumentError, match="lie below its root"):
        PairedFolder(folders, blur="/etc/*")
    with pytest.raises(PairingError, match="blurry and sharp images are the same files"):
        PairedFolder(folders, blur="sharp")


def test_ambiguous_names(folders):
    save(folders / "train" / "blur" / "1.jpg")
    with pytest.raises(PairingError, match="have the same name"):
        PairedFolder(folders)


def test_sizes_are_checked_when_the_set_is_built(folders):
    with pytest.raises(ShapeError, match="24 x 20 pixels, fewer than the crop of 32 x 32"):
        PairedFolder(folders, crop=32)
    save(folders / "train" / "sharp" / "1.png", (20, 25))
    with pytest.raises(ShapeError, match=r"1\.png must have the same size, but have 24 x 20 and 25 x 20 pixels"):
        PairedFolder(folders)
    (folders / "train" / "sharp" / "1.png").write_bytes(b"")
    with pytest.raises(ImageFileError, match="the file is empty"):
        PairedFolder(folders)


def test_demo_photos_are_split_by_photo():
    train, test = DemoPhotos("train", crop=32, crops_per_photo=2), DemoPhotos("test")
    assert len(train) == 2 * len(train.names)
    assert not set(train.names) & set(test.names)
    assert train[0]["blurry"].shape == (3, 32, 32)
    assert torch.equal(
        train[Draw(3, 1)]["blurry"], DemoPhotos("train", crop=32, crops_per_photo=2)[Draw(3, 1)]["blurry"]
    )
    assert not torch.equal(train[Draw(3, 1)]["blurry"], train[Draw(3, 2)]["blurry"])
    assert torch.equal(test[0]["blurry"], DemoPhotos("test")[0]["blurry"])
    with pytest.raises(IndexError):
        test[2]
