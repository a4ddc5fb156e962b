"""The networks in the box: files, card, and that they deblur."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from reblurkit.blur import ShakeBlur
from reblurkit.data import DemoPhotos
from reblurkit.errors import ArgumentError, WeightsError
from reblurkit.metrics import PSNR
from reblurkit.models import FoldedUNet, ReblurNet, list_pretrained, load_pretrained, save_pretrained
from reblurkit.models import pretrained as box

CARD = {
    "network": {"name": "folded-unet", "arguments": {"widths": [8, 8], "blocks": [1, 1]}},
    "reblur_net": {"name": "reblur-n1", "arguments": {"width": 4}},
}


@pytest.fixture
def pair():
    return FoldedUNet(widths=(8, 8), blocks=(1, 1)).eval(), ReblurNet(blocks=1, width=4).eval()


def test_what_is_written_is_read_back_in_half_precision(tmp_path, pair):
    save_pretrained(tmp_path, "mine", *pair, CARD)
    network, reblur_net, card = load_pretrained("mine", tmp_path)
    assert card == CARD
    assert not network.training
    for loaded, written in zip((network, reblur_net), pair, strict=True):
        for name, value in loaded.state_dict().items():
            assert value.dtype == torch.float32
            assert torch.equal(value, written.state_dict()[name].half().float())


def test_weights_beyond_half_precision_are_refused(tmp_path, pair):
    with torch.no_grad():
        pair[0].leave.bias[0] = 1e6
    with pytest.raises(WeightsError, match=r"network\.leave\.bias is not finite in half precision"):
        save_pretrained(tmp_path, "mine", *pair, CARD)
    assert not list(tmp_path.iterdir())


def test_damaged_files_are_told(tmp_path, pair):
    with pytest.raises(ArgumentError, match=r"no pretrained networks 'nothing'; there are: base"):
        load_pretrained("nothing")
    save_pretrained(tmp_path, "mine", *pair, CARD)
    weights = tmp_path / "mine.safetensors"
    whole = weights.read_bytes()
    state = {name: value.clone() for name, value in load_file(weights).items()}  # not mapped: the file is cut below
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="make no pair of networks"):
        load_pretrained("mine", tmp_path)
    state.pop("network.leave.bias")
    save_file(state, weights)
    with pytest.raises(WeightsError, match=r"leave\.bias"):
        load_pretrained("mine", tmp_path)
    weights.unlink()
    with pytest.raises(WeightsError):
        load_pretrained("mine", tmp_path)
    save_pretrained(tmp_path, "mine", *pair, {**CARD, "network": {"name": "os.system", "arguments": {}}})
    with pytest.raises((ArgumentError, WeightsError), match="unknown model"):
        load_pretrained("mine", tmp_path)


@pytest.mark.parametrize("name", list_pretrained())
def test_the_cards_in_the_box_say_what_they_must(name):
    card = load_pretrained(name).card
    for part in ("training data", "recipe", "commit", "hardware", "trained", "results", "limits"):
        assert card[part], part
    for licence, part in card["training data"].items():
        assert licence
        assert part["photos"] > 0
    assert (box._FOLDER / f"{name}.safetensors").stat().st_size <= 8e6
    json.dumps(card)


@pytest.mark.parametrize("name", list_pretrained())
def test_the_networks_in_the_box_deblur_photos_that_they_never_saw(name):
    network = load_pretrained(name).network
    gains, kept = [], []
    for photo in (DemoPhotos("test", blur=ShakeBlur(9, 0.3), seed=1)[i] for i in range(2)):
        blurry, sharp = photo["blurry"][None], photo["sharp"][None]
        with torch.inference_mode():
            deblurred, same = network(blurry).clamp(0, 1), network(sharp).clamp(0, 1)
        metrics = [PSNR(), PSNR(), PSNR()]
        for metric, image in zip(metrics, (deblurred, blurry, same), strict=True):
            metric.update(image, sharp)
        after, before, unchanged = (float(metric.compute()) for metric in metrics)
        gains.append(after - before)
        kept.append(unchanged)
    assert sum(gains) / len(gains) > 1
    assert sum(kept) / len(kept) > 40  # the mean: the card says which sharp photo changes more
