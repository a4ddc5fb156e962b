"""What is kept of image files, when it is made anew, and that no data set's values depend on it."""

from __future__ import annotations

import errno
import multiprocessing
import os

import numpy as np
import pytest
import torch
from PIL import Image

from reblurkit.data import BlurryFolder, PairedFolder, PhotoFolder, UnpairedFolder, VideoFolder, cache, write_image
from reblurkit.data.cache import ImageCache
from reblurkit.data.images import ImageKind, read_levels
from reblurkit.data.sampling import Draw
from reblurkit.errors import ArgumentError, DatasetNotFoundError, ImageFileError


def photo(path, seed=0, size=(24, 30), bits=8):
    write_image(torch.rand(3, *size, generator=torch.Generator().manual_seed(seed)), path, ImageKind(bits))
    return path


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded, in order."""
    files = []

    def noting(path):
        files.append(path)
        return read_levels(path)

    monkeypatch.setattr(cache, "read_levels", noting)
    return files


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "grey.png", "turned.jpg", "deep.png"])
def test_kept_values_are_those_of_the_file(tmp_path, decoded, name):
    path = photo(tmp_path / name, bits=16 if name == "deep.png" else 8)
    if name == "grey.png":
        Image.open(path).convert("L").save(path)
    if name == "turned.jpg":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.open(path).save(path, exif=exif)
    kept = ImageCache(tmp_path / "cache")
    for _ in range(2):
        levels = kept.levels(path)
        assert isinstance(levels, np.memmap)
        assert not levels.flags.writeable
        assert levels.dtype == (np.uint16 if name == "deep.png" else np.uint8)
        np.testing.assert_array_equal(levels, read_levels(path))
    assert decoded == [path]


def test_a_changed_file_is_decoded_anew(tmp_path, decoded):
    path, kept = photo(tmp_path / "a.bmp", 0), ImageCache(tmp_path / "cache")
    before, status = kept.levels(path), path.stat()
    photo(path, 1)
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    after = kept.levels(path)
    assert len(decoded) == 2
    assert (after != before).any()
    np.testing.assert_array_equal(after, read_levels(path))
    with pytest.raises(DatasetNotFoundError, match=r"no image file .*none\.png"):
        kept.levels(tmp_path / "none.png")


def test_one_file_by_two_names_is_kept_once(tmp_path, decoded, monkeypatch):
    path, kept = photo(tmp_path / "a.png"), ImageCache(tmp_path / "cache")
    kept.levels(path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.png").symlink_to(path)
    kept.levels("a.png")
    kept.levels("link.png")
    assert len(decoded) == 1


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    path, kept = photo(tmp_path / "a.png"), ImageCache(tmp_path / "cache")

    def interrupted(file, levels):
        file.write_bytes(b"\x93NUMPY")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.np, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            kept.levels(path)
    assert list((tmp_path / "cache").iterdir()) == []
    np.testing.assert_array_equal(kept.levels(path), read_levels(path))


def _sums(folder):
    kept = ImageCache(folder / "cache")
    return [int(kept.levels(path).sum()) for path in sorted(folder.glob("*.png"))]


def test_many_processes_write_one_folder(tmp_path):
    paths = [photo(tmp_path / f"{seed}.png", seed) for seed in range(6)]
    with multiprocessing.get_context("fork").Pool(4) as pool:
        sums = pool.map(_sums, [tmp_path] * 4, chunksize=1)
    assert sums == [[int(read_levels(path).sum()) for path in paths]] * 4
    assert len(list((tmp_path / "cache").iterdir())) == 6


@pytest.mark.parametrize("bad", [b"", b"\x93NUMPY", b"no array", "half", "flat", "float"])
def test_a_bad_kept_file_is_replaced(tmp_path, decoded, bad):
    path, kept = photo(tmp_path / "a.png"), ImageCache(tmp_path / "cache")
    kept.levels(path)
    file = kept.path(path)
    if bad in ("flat", "float"):
        np.save(file, np.zeros(5, np.uint8) if bad == "flat" else np.zeros((24, 30, 3)))
    else:
        file.write_bytes(file.read_bytes()[:1000] if bad == "half" else bad)
    np.testing.assert_array_equal(kept.levels(path), read_levels(path))
    kept.levels(path)
    assert len(decoded) == 2


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path, monkeypatch):
    path, kept = photo(tmp_path / "a.png"), ImageCache(tmp_path / "cache")

    def refused(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(cache.np, "save", refused)
    with pytest.raises(ImageFileError) as told:
        kept.levels(path)
    assert str(told.value) == (
        f"cannot keep {path} in the cache {tmp_path / 'cache'}: Read-only file system; name a folder that can be "
        "written to, or none"
    )


def test_a_file_for_a_folder(tmp_path):
    path = photo(tmp_path / "a.png")
    with pytest.raises(ArgumentError, match=r"`cache` must be a folder, but .*a\.png is a file"):
        ImageCache(path)
    with pytest.raises(ImageFileError, match=r"cannot keep .*: Not a directory"):
        ImageCache(path / "below").levels(path)


def test_true_is_a_folder_in_the_cache_of_torch(tmp_path, hub_cache):
    kept = ImageCache(True)
    kept.levels(photo(tmp_path / "a.png"))
    assert kept.folder == hub_cache / "reblurkit" / "images"
    assert len(list(kept.folder.iterdir())) == 1


DATA = {
    "paired": lambda root, **options: PairedFolder(root / "pairs", crop=9, augment=True, **options),
    "paired, whole": lambda root, **options: PairedFolder(root / "pairs", **options),
    "unpaired": lambda root, **options: UnpairedFolder(root, crop=9, **options),
    "unpaired, resized": lambda root, **options: UnpairedFolder(root, crop=9, resize=12, **options),
    "video": lambda root, **options: VideoFolder(root / "trainA", crop=9, augment=True, **options),
    "video, averaged": lambda root, **options: VideoFolder(root / "trainA", frames=1, window=3, gamma=2.2, **options),
    "video with truth": lambda root, **options: VideoFolder(
        root / "pairs", "folders", split="train", crop=9, **options
    ),
    "photos": lambda root, **options: PhotoFolder(root / "trainA", **options),
    "blurry": lambda root, **options: BlurryFolder(root / "trainB", **options),
}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", DATA)
def test_every_data_set_is_the_same_with_a_cache(tmp_path, decoded, kind, bits):
    folders = ["pairs/train/blur", "pairs/train/sharp", "trainA", "trainB", "trainC", "trainD"]
    for number, folder in enumerate(folders):
        for index in range(4):
            photo(tmp_path / folder / f"{index}.png", 10 * number + index, bits=bits)
    plain, kept = DATA[kind](tmp_path), DATA[kind](tmp_path, cache=tmp_path / "cache")
    draws = [(index, Draw(index, epoch)) for epoch in range(2) for index in range(len(plain))]
    draws = [index if kind in ("photos", "blurry") else draw for index, draw in draws]
    expected = [plain[draw] for draw in draws]
    decoded.clear()
    for _ in range(2):
        for draw, item in zip(draws, expected, strict=True):
            ours = kept[draw]
            assert ours.keys() == item.keys()
            for key, value in item.items():
                assert torch.equal(ours[key], value) if isinstance(value, torch.Tensor) else ours[key] == value
    assert 0 < len(decoded) == len(set(decoded)) == len(list((tmp_path / "cache").iterdir()))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("kind", ["pipe", "archive", "huge", "objects", "text"])
def test_what_others_put_into_a_shared_cache_is_replaced(tmp_path, kind):
    path, kept = photo(tmp_path / "a.png"), ImageCache(tmp_path / "cache")
    there = kept.path(path)
    there.parent.mkdir()
    match kind:
        case "pipe":
            os.mkfifo(there)
        case "archive":
            with there.open("wb") as file:
                np.savez(file, a=np.zeros((1, 1, 3), np.uint8))
        case "huge":
            header = {"descr": "|u1", "fortran_order": False, "shape": (2**62, 2**62, 3)}
            with there.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
        case "objects":
            np.save(there, np.array([[[print]]], object), allow_pickle=True)
        case "text":
            there.write_text("x")
    np.testing.assert_array_equal(kept.levels(path), read_levels(path))
