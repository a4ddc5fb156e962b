"""Crops of sharp photos, what is planned for them, and that doing it depends on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from reblurkit.blur import CameraNoise, MotionBlur, RealisticBlur, ShakeBlur
from reblurkit.data import PhotoFolder
from reblurkit.data.sampling import Draw
from reblurkit.data.synthetic import SyntheticCrops, SyntheticPairs, SyntheticPhotos, synthesise
from reblurkit.errors import ArgumentError, ShapeError
from tests.data.test_cache import photo

BLURS = [MotionBlur(largest=3), ShakeBlur(7, 0.5)]


@pytest.fixture
def photos(tmp_path):
    for seed in range(3):
        photo(tmp_path / f"{seed}.png", seed, size=(40, 50))
    return PhotoFolder(tmp_path)


def crops(photos, **options):
    return SyntheticCrops(photos, BLURS, **{"crop": 12, "repeats": 4, "sharp_share": 0.25, "seed": 2} | options)


def every(data, epoch=0):
    return [data[Draw(index, epoch)] for index in range(len(data))]


def pairs(data, plans, noise):
    batch = synthesise(data.collate(plans), data.blurs, noise)
    return dict(zip(batch["name"], zip(batch["blurry"], batch["sharp"], strict=True), strict=True))


@pytest.mark.parametrize("noise", [None, CameraNoise(jpeg_share=0.5)])
def test_a_pair_does_not_depend_on_its_batch(photos, noise):
    data = crops(photos)
    plans = every(data)
    together = pairs(data, plans, noise)
    assert len(together) == len(data) == 12
    for size in (1, 5):
        for start in range(0, 12, size):
            for name, pair in pairs(data, plans[start : start + size][::-1], noise).items():
                for ours, expected in zip(pair, together[name], strict=True):
                    assert torch.equal(ours, expected)


def test_a_plan_is_a_function_of_seed_epoch_and_index(photos):
    def flat(plans):
        return [(plan["name"], plan["blur"], plan["seed"], plan["levels"].tolist()) for plan in plans]

    one, again = flat(every(crops(photos))), flat(every(crops(photos))[::-1])[::-1]
    assert one == again
    assert not any(a[2:] == b[2:] for a, b in zip(one, flat(every(crops(photos), 1)), strict=True))
    assert not any(a[2:] == b[2:] for a, b in zip(one, flat(every(crops(photos, seed=3))), strict=True))
    assert crops(photos)[5]["seed"] == crops(photos)[Draw(5, 0)]["seed"]


def test_names_tell_the_crops_of_a_photo_apart(photos):
    assert [plan["name"] for plan in every(crops(photos))][3:6] == ["0/3", "1/0", "1/1"]
    assert [plan["name"] for plan in every(crops(photos, repeats=1))] == ["0", "1", "2"]


@pytest.mark.parametrize("bits", [8, 16])
def test_soft_crops_are_enlarged_by_up_to_two_where_values_are_blurred(tmp_path, bits):
    step = 4 * 257 ** (bits == 16)
    ramp = np.broadcast_to(np.arange(60, dtype=f"uint{bits}") * step, (60, 60))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    blurs = [MotionBlur(largest=3), ShakeBlur(7, 0.5, linear=False)]
    options = {"crop": 12, "repeats": 400, "soft_share": 0.5, "sharp_share": 0.2, "augment": False}
    plans = every(SyntheticCrops(PhotoFolder(tmp_path), blurs, **options))
    levels = torch.stack([plan["levels"] for plan in plans])
    assert levels.shape[1:] == (3, 18, 18)
    assert levels.dtype == (torch.uint8 if bits == 8 else torch.uint16)
    slopes = (levels.int()[..., 9, 13] - levels.int()[..., 9, 4])[:, 0] / (9 * step)
    is_soft = slopes < 0.99
    assert not any(soft for soft, plan in zip(is_soft, plans, strict=True) if plan["blur"] == 0)
    assert 0.4 < sum(soft for soft, plan in zip(is_soft, plans, strict=True) if plan["blur"] == 1) / 160 < 0.6
    assert slopes.min() > 0.45
    assert 0.6 < slopes[is_soft].mean() < 0.8  # of 1 / (1 + u), whose mean is ln 2
    assert (slopes[~is_soft] == 1).all()


def test_blurs_that_do_not_say_whether_they_blur_light_leave_crops_as_they_are(photos):
    blurs = [RealisticBlur(), MotionBlur(largest=3, linear=False)]
    options = {"crop": 12, "repeats": 20}
    plans = [every(SyntheticCrops(photos, blurs, soft_share=share, **options)) for share in (0.0, 1.0)]
    same = [torch.equal(one["levels"], other["levels"]) for one, other in zip(*plans, strict=True)]
    assert same == [plan["blur"] == 0 for plan in plans[0]]


def test_a_share_of_soft_crops_needs_a_blur_of_values(photos):
    with pytest.raises(ArgumentError, match=r"`soft_share` 0.5 .* no blur does that: give one of them linear=F"):
        SyntheticCrops(photos, [MotionBlur(), RealisticBlur()], crop=12, soft_share=0.5)


@pytest.mark.parametrize("blur", [ShakeBlur(7, 0.5), MotionBlur(largest=3)])
def test_real_surroundings_blur_into_a_crop(photos, blur):
    """A crop of a photo blurred as a whole is the same; a motion is stretched over the crop and its margin."""
    data = SyntheticCrops(photos, [blur], crop=12, augment=False)
    for index, plan in enumerate(every(data)):
        batch = synthesise(data.collate([plan]), data.blurs, None)
        blurry, sharp = batch["blurry"][0], batch["sharp"][0]
        whole = photos[index]["sharp"]
        windows = whole.unfold(1, 12, 1).unfold(2, 12, 1).permute(1, 2, 0, 3, 4)
        ((row, column),) = (windows == sharp).flatten(2).all(2).nonzero().tolist()
        if isinstance(blur, ShakeBlur):
            expected = blur.blur(whole[None], plan["drawn"])[0]
        else:
            rows, columns = slice(row - 3, row + 15), slice(column - 3, column + 15)
            expected = whole.clone()
            expected[:, rows, columns] = blur.blur(whole[None, :, rows, columns], plan["drawn"])[0]
        assert torch.equal(blurry, expected[:, row : row + 12, column : column + 12])


def test_shares_of_the_blurs(photos):
    data = crops(photos, repeats=200)
    blurs = [plan["blur"] for plan in every(data)]
    assert [blurs.count(number) / len(data) for number in (None, 0, 1)] == pytest.approx([0.25, 0.375, 0.375], abs=0.06)
    plan = next(plan for plan in every(data) if plan["blur"] is None)
    batch = synthesise(data.collate([plan]), data.blurs, CameraNoise(jpeg_share=1))
    assert torch.equal(batch["blurry"], batch["sharp"])


def test_small_photos_go_on_as_their_mirror(tmp_path):
    photo(tmp_path / "a.png", size=(12, 13))
    data = crops(PhotoFolder(tmp_path), augment=False, repeats=1)
    levels = data[0]["levels"]
    assert levels.shape == (3, 18, 18)
    assert torch.equal(levels[:, :3].flip(1), levels[:, 3:6])
    with pytest.raises(ShapeError, match="13 x 12 pixels, fewer than the crop of 13 x 13"):
        crops(PhotoFolder(tmp_path), crop=13)


def test_photos_of_8_and_16_bits_share_a_batch(tmp_path):
    photo(tmp_path / "a.png", 0, (20, 20))
    photo(tmp_path / "b.png", 1, (20, 20), bits=16)
    data = crops(PhotoFolder(tmp_path), repeats=2)
    plans = every(data)
    assert {plan["levels"].dtype for plan in plans} == {torch.uint8, torch.uint16}
    together = pairs(data, plans, CameraNoise())
    for plan in plans:
        (pair,) = pairs(data, [plan], CameraNoise()).values()
        for ours, expected in zip(pair, together[plan["name"]], strict=True):
            assert torch.equal(ours, expected)


def test_gradients_are_neither_made_nor_switched(photos):
    data = crops(photos)
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            batch = synthesise(data.collate(every(data)), data.blurs, CameraNoise())
            assert torch.is_grad_enabled() is enabled
        assert not batch["blurry"].requires_grad


def test_the_global_random_state_stays(photos):
    data, state = crops(photos), torch.get_rng_state()
    synthesise(data.collate(every(data)), data.blurs, CameraNoise())
    assert torch.equal(torch.get_rng_state(), state)


def test_whole_photos_never_change(photos):
    data = SyntheticPairs(photos, BLURS, CameraNoise(), seed=1)
    assert len(data) == 3
    for index in (2, 0, 1):
        item, plan = data[index], SyntheticPhotos(photos, BLURS, seed=1)[index]
        assert item["name"] == photos.name(index)
        assert torch.equal(item["sharp"], photos[index]["sharp"])
        assert torch.equal(item["blurry"], data[index]["blurry"])
        assert plan["blur"] == index % 2
        assert (item["blurry"] - item["sharp"]).abs().mean() > 0.05


def test_wrong_input(photos):
    for blurs in ([], ShakeBlur(5), [torch.nn.Identity()]):
        with pytest.raises(ArgumentError, match=r"`blur` must be a list of random blurs, such as \[MotionBlur\(\)"):
            SyntheticCrops(photos, blurs, crop=8)
        with pytest.raises(ArgumentError, match="`blur` must be a list of random blurs"):
            SyntheticPhotos(photos, blurs)
    for options in ({"crop": 0}, {"repeats": 0}, {"sharp_share": 2}, {"soft_share": -1}):
        with pytest.raises(ArgumentError, match=r"at least 1, `sharp_share` and `soft_share` in \[0, 1\]"):
            crops(photos, **options)
