"""Files laid out as the authors publish theirs, into the networks here: same numbers out, wrong files refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from reblurkit.errors import WeightsError
from reblurkit.models import DBN, DMPHN, SRN, DeblurGAN, create_model, load_weights


def trained(network):
    """Weights that differ from what a new network begins with."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape))
    return network


def same(one, other):
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_dmphn_from_a_folder_of_legacy_files_saved_on_cuda(tmp_path, monkeypatch):
    source = trained(DMPHN((1, 2, 4), widths=(4, 6, 8)))
    monkeypatch.setattr("torch.serialization.location_tag", lambda storage: "cuda:0")
    for kind in ("encoder", "decoder"):
        for level in (1, 2, 3):
            prefix = f"{kind}s.{level - 1}."
            part = {key.removeprefix(prefix): v for key, v in source.state_dict().items() if key.startswith(prefix)}
            torch.save(part, tmp_path / f"{kind}_lv{level}.pkl", _use_new_zipfile_serialization=False)
    monkeypatch.undo()
    network = DMPHN((1, 2, 4), widths=(4, 6, 8))
    assert load_weights(network, tmp_path).complete
    same(network, source)
    (tmp_path / "decoder_lv3.pkl").unlink()
    with pytest.raises(WeightsError, match=r"missing \(decoders\.2\."):
        load_weights(DMPHN((1, 2, 4), widths=(4, 6, 8)), tmp_path)


def tensorflow_name(key):
    """The authors' name of a parameter of SRN, from the layer table."""
    layer, _, entry = key.rpartition(".")
    entry = {"weight": "weights", "bias": "biases"}[entry]
    if layer == "leave":
        return f"g_net/dec1_0/{entry}"
    if up := re.fullmatch(r"up(\d)", layer):
        return f"g_net/dec{up[1]}_4/{entry}"
    kind, level, place, block = re.fullmatch(r"(enc|dec)(\d)\.(\d)(?:\.body\.([02]))?", layer).groups()
    number = 3 - int(place) if kind == "dec" else 1 if place == "0" else int(place)
    inner = "" if block is None else f"conv{1 + int(block) // 2}/"
    return f"g_net/{kind}{level}_{number}/{inner}{entry}"


def test_srn_from_arrays_of_tensorflow(tmp_path):
    source = trained(SRN((4, 6, 8), tensorflow=True))
    arrays = {
        tensorflow_name(key): (value.permute(2, 3, 1, 0) if value.ndim == 4 else value).numpy()
        for key, value in source.state_dict().items()
    }
    np.savez(tmp_path / "srn.npz", **arrays, **{"g_net/enc1_1/weights/Adam": np.zeros(3, np.float32)})
    network = SRN((4, 6, 8), tensorflow=True)
    assert load_weights(network, tmp_path / "srn.npz").complete
    same(network, source)
    with pytest.raises(WeightsError, match=r"load them into SRN\(tensorflow=True\)"):
        load_weights(SRN((4, 6, 8)), tmp_path / "srn.npz")


def test_deblurgan_with_old_running_statistics_and_without_dropout(tmp_path):
    source = trained(DeblurGAN(width=4, blocks=2))
    state = {re.sub(r"(conv_block)\.6\.", r"\1.5.", key): value for key, value in source.state_dict().items()}
    state |= {"model.2.running_mean": torch.zeros(4), "model.2.running_var": torch.ones(4)}
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "latest_net_G.pth")
    network = DeblurGAN(width=4, blocks=2)
    load_weights(network, tmp_path / "latest_net_G.pth")
    same(network, source)

    broken = {key: value for key, value in state.items() if "conv_block.5" not in key}
    torch.save(broken, tmp_path / "broken.pth")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(
        WeightsError, match=r"one convolution in each residual block.* README links to, which are older"
    ):
        load_weights(network, tmp_path / "broken.pth")
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


def test_dbn_of_deblur_devil(tmp_path):
    source = trained(DBN(width=4, bias=False, sigmoid=False))
    state = {f"dbn_net.{key}": value for key, value in source.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "dbn.ckpt")
    network = DBN(width=4, bias=False, sigmoid=False)
    load_weights(network, tmp_path / "dbn.ckpt")
    same(network, source)


@pytest.mark.parametrize(
    ("name", "options", "wrap"),
    [
        ("nafnet-width32", {"width": 4, "encoder_blocks": (1, 1), "decoder_blocks": (1, 1)}, lambda s: {"params": s}),
        ("restormer", {"width": 8, "blocks": (1, 1, 1, 1), "refinement_blocks": 1}, lambda s: {"params": s}),
        ("mimo-unet", {"blocks": 1, "width": 4}, lambda s: {"model": s, "epoch": 3}),
        ("msresnet", {"width": 4, "blocks": 1}, lambda s: {"G": s, "D": {"layer.weight": torch.zeros(2)}}),
        ("flownet-s", {"width": 4}, lambda s: {"state_dict": s, "arch": "flownets", "div_flow": 20}),
        ("pwc-net", {"widths": (4, 4, 4, 4, 4, 4)}, lambda s: s),
        ("patchgan", {"width": 4}, lambda s: {f"module.{key}": value for key, value in s.items()}),
    ],
)
def test_wrapped_files(tmp_path, name, options, wrap):
    source = trained(create_model(name, **options))
    torch.save(wrap(dict(source.state_dict())), tmp_path / "weights.pth")
    network = create_model(name, **options)
    load_weights(network, tmp_path / "weights.pth")
    same(network, source)


def test_weights_of_another_network_are_named(tmp_path):
    torch.save({"params": create_model("nafnet-width32").state_dict()}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"looks like the weights of create_model\('nafnet-width32'\)"):
        load_weights(create_model("mimo-unet", width=4, blocks=1), tmp_path / "weights.pth")
