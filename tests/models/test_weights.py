"""Official layouts into networks: what fits, what does not, and that a refusal changes nothing."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
import torch
from skimage import data
from torch import nn

from reblurkit.core.downloads import RemoteFile
from reblurkit.errors import ArgumentError, ChecksumError, WeightsError
from reblurkit.models import ReblurNet, UNet, create_model, list_models, load_weights, save_weights, weights
from tests.conftest import BatchNormNet, PlainNet


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def is_same(model, state):
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def refuses(model, path, match, error=WeightsError, **options):
    """Loading fails with one line and leaves the model as it was."""
    before = snapshot(model)
    with pytest.raises(error, match=match) as raised:
        load_weights(model, path, **options)
    assert is_same(model, before)
    assert "\n" not in str(raised.value)


@pytest.fixture
def small_unet():
    return UNet(1, (4, 6, 8))


@pytest.fixture
def other_unet():
    torch.manual_seed(9)
    return UNet(1, (4, 6, 8))


@pytest.fixture
def save(tmp_path):
    def save(content, name="a.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def test_loads_into_any_dtype_and_keeps_the_model_as_it_is_otherwise(small_unet, other_unet, save):
    model = small_unet.double().eval().requires_grad_(False)
    report = load_weights(model, str(save({"params": other_unet.state_dict()})))
    assert report.complete
    assert report.loaded == len(list(model.parameters()))
    assert is_same(model, snapshot(other_unet.double()))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("prefix", ["network.", "module.module.", "network._orig_mod.", "net.module.inner."])
def test_the_submodule_that_fits_is_taken(small_unet, other_unet, save, prefix):
    state = {f"{prefix}{name}": value for name, value in other_unet.state_dict().items()}
    others = {f"reblur.{name}": value for name, value in ReblurNet(width=4).state_dict().items()}
    content = {"state_dict": state | others, "epoch": 1} if prefix != "module.module." else state
    assert load_weights(small_unet, save(content)).complete
    assert is_same(small_unet, snapshot(other_unet))


def test_both_networks_of_one_lightning_checkpoint(small_unet, other_unet, save):
    reblur = ReblurNet(width=4)
    module = nn.ModuleDict({"network": other_unet, "reblur": reblur})
    path = save({"state_dict": module.state_dict(), "pytorch-lightning_version": "2.6"})
    assert load_weights(small_unet, path).complete
    torch.manual_seed(3)
    fresh = ReblurNet(width=4)
    assert load_weights(fresh, path).complete
    assert is_same(small_unet, snapshot(other_unet))
    assert is_same(fresh, snapshot(reblur))


def test_several_submodules_that_fit(small_unet, other_unet, save):
    pair = nn.ModuleDict({"network": other_unet, "average": UNet(1, (4, 6, 8))})
    path = save({"state_dict": pair.state_dict()})
    refuses(small_unet, path, r"a.pth: several networks in it fit, 'network' and 'average'; choose one by `network=`")
    refuses(small_unet, path, r"it has nothing at 'nett'; it has: average, network", network="nett")
    load_weights(small_unet, path, network="network")
    assert is_same(small_unet, snapshot(other_unet))


def test_a_compiled_and_a_parallel_model(other_unet, save):
    path = save(other_unet.state_dict())
    for wrap in (torch.compile, nn.DataParallel, lambda network: nn.Sequential(torch.compile(network))):
        inner = UNet(1, (4, 6, 8))
        model = wrap(inner)
        if isinstance(model, nn.Sequential):
            path = save({f"0.{name}": value for name, value in other_unet.state_dict().items()})
        assert load_weights(model, path).complete
        assert is_same(inner, snapshot(other_unet))


# --- a folder of parts


def parts(levels=(1, 2)):
    def part():
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3)))

    return nn.ModuleDict({f"{kind}_lv{level}": part() for kind in ("encoder", "decoder") for level in levels})


def test_a_folder_of_parts(tmp_path):
    published, model = parts(), parts()
    for name, part in published.items():
        torch.save(part.state_dict(), tmp_path / f"{name}.pkl", _use_new_zipfile_serialization=False)
    (tmp_path / "README.md").write_text("no weights")
    report = load_weights(model, tmp_path)
    assert report.complete
    assert report.loaded == 16
    assert is_same(model, snapshot(published))
    refuses(parts((1, 2, 3)), tmp_path, r"missing \(encoder_lv3.0.weight, encoder_lv3.0.bias, encoder_lv3.1.0.weight")
    (tmp_path / "encoder_lv2.pkl").write_bytes(b"cut")
    refuses(model, tmp_path, "encoder_lv2.pkl cannot be read")


def test_an_empty_folder(tmp_path, small_unet):
    refuses(small_unet, tmp_path, "holds no file of weights")


def test_an_empty_path_is_not_the_current_folder(tmp_path, small_unet, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(small_unet.state_dict(), "unet.pt")
    with pytest.raises(ArgumentError, match="the path of the weights is empty"):
        load_weights(small_unet, "")


# --- what does not fit


def test_missing_unexpected_and_misshaped(small_unet, other_unet, save):
    state = other_unet.state_dict()
    del state["enter.bias"]
    state["leave.bias"] = torch.zeros(7)
    state |= {f"extra{index}": torch.zeros(1) for index in range(5)}
    path = save(state)
    message = (
        r"a.pth does not fit UNet: 14 tensors fit, 1 missing \(enter.bias\), 5 unexpected \(extra0, extra1, extra2, "
        r"...\), 1 of another shape \(leave.bias \(7,\) instead of \(3,\)\)$"
    )
    refuses(small_unet, path, message)
    before = snapshot(small_unet)
    report = load_weights(small_unet, path, strict=False)
    assert report.missing == ("enter.bias",)
    assert report.unexpected == tuple(f"extra{index}" for index in range(5))
    assert report.misshaped == {"leave.bias": ((7,), (3,))}
    assert report.loaded == 14
    assert not report.complete
    assert report.share == 14 / 21
    for name, value in small_unet.state_dict().items():
        source = before if name in ("enter.bias", "leave.bias") else state
        assert torch.equal(value, source[name]), name


def test_a_file_of_which_nothing_fits_is_refused_even_if_not_strict(small_unet, save):
    refuses(small_unet, save({"other.weight": torch.zeros(1)}), "0 tensors fit, 16 missing", strict=False)


@pytest.mark.parametrize("name", ["unet", "reblur-n2"])
def test_weights_of_another_registered_network_are_named(save, name):
    state = {f"module.{key}": value for key, value in create_model(name).state_dict().items()}
    model, random = PlainNet(), torch.get_rng_state()
    weights._without_memory.cache_clear()
    refuses(model, save({"state_dict": state}), f"; it looks like the weights of create_model\\('{name}'\\)$")
    assert torch.equal(torch.get_rng_state(), random)


def test_another_variant_of_the_same_network_is_named(save):
    path = save(create_model("reblur-n3").state_dict())
    refuses(ReblurNet(2), path, r"6 unexpected .*; it looks like the weights of create_model\('reblur-n3'\)$")
    # a model that is no worse guess itself gets no hint
    state = create_model("reblur-n3").state_dict()
    del state["layers.0.bias"]
    refuses(ReblurNet(3), save(state), r"1 missing \(layers.0.bias\)$")


def test_the_same_network_of_other_arguments_is_no_other_network(save):
    def run(width, reblur):
        networks = {"network": UNet(1, (width, 6, 8)), "reblur": reblur}
        return {
            f"{place}.{name}": value for place, each in networks.items() for name, value in each.state_dict().items()
        }

    message = r"1[0-9] tensors fit, [0-9] of another shape \(enter.weight \(5, 3, 5, 5\) instead of \(4, 3, 5, 5\), .*"
    message += r"\); UNet had other arguments when it was trained$"
    for reblur in (create_model("reblur-n1"), UNet(2, (4, 6, 9))):  # with all its names, and more that have its shapes
        refuses(UNet(1, (4, 6, 8)), save({"state_dict": run(5, reblur)}), message)
    refuses(PlainNet(), save({"state_dict": run(5, create_model("reblur-n1"))}), r"\)$")


def test_every_registered_model_recognises_its_own_weights(tmp_path):
    for name in list_models("reblur"):
        save_weights(create_model(name), tmp_path / f"{name}.safetensors")
        assert load_weights(create_model(name), tmp_path / f"{name}.safetensors").complete


def test_models_that_cannot_be_built_without_memory_give_no_hint(save, monkeypatch):
    def fails(name):
        raise NotImplementedError

    weights._without_memory.cache_clear()
    monkeypatch.setattr(weights, "create_model", fails)
    refuses(PlainNet(), save(UNet(1, (4, 6, 8)).state_dict()), r"\)$")
    weights._without_memory.cache_clear()


def test_a_model_without_memory(save):
    path = save(PlainNet().state_dict())
    with torch.device("meta"):
        model = PlainNet()
    with pytest.raises(ArgumentError, match="PlainNet has no memory yet"):
        load_weights(model, path)
    model = model.to_empty(device="cpu")
    assert load_weights(model, path).complete


# --- old files


def test_statistics_of_instance_norms_that_keep_none_are_left_out(save):
    def network(track):
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, track_running_stats=track), nn.Conv2d(4, 3, 3))

    old = network(True)
    path = save({"model": {f"module.{name}": value for name, value in old.state_dict().items()}})
    for model in (network(False), nn.DataParallel(network(False))):
        report = load_weights(model, path)
        assert report.complete
        assert report.loaded == 4
    assert load_weights(network(True), path).loaded == 7, "layers that keep them get them"
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity(), nn.Conv2d(4, 3, 3))
    refuses(plain, path, r"3 unexpected \(1.running_mean")


def test_batch_norm_before_it_counted(save):
    model, state = BatchNormNet(), BatchNormNet().state_dict()
    state["body.1.running_mean"] += 3
    del state["body.1.num_batches_tracked"]
    assert load_weights(model, save(state)).complete
    assert model.body[1].running_mean.mean() == 3


def test_tied_weights_that_were_written_once(tmp_path):
    import safetensors.torch

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.leave = nn.Linear(3, 3), nn.Linear(3, 3)
            self.leave.weight = self.enter.weight

    published, model = Tied(), Tied()
    safetensors.torch.save_model(published, tmp_path / "a.safetensors")
    assert len(safetensors.torch.load_file(tmp_path / "a.safetensors")) == 3
    assert load_weights(model, tmp_path / "a.safetensors").complete
    assert is_same(model, snapshot(published))


# --- the hook for other names


class Renamed(PlainNet):
    def convert_state_dict(self, state):
        if "old_layout" in state:
            raise WeightsError("this file is of the first version, whose blocks have one convolution; use the second")
        return {name.replace("theirs.", "body."): value for name, value in state.items()}


def test_a_model_may_convert_names(save):
    published = Renamed()
    state = {name.replace("body.", "module.theirs."): value for name, value in published.state_dict().items()}
    model = Renamed()
    assert load_weights(model, save({"state_dict": state})).complete
    assert is_same(model, snapshot(published))
    assert load_weights(model, save(PlainNet().state_dict())).complete


def test_a_model_may_refuse_a_file(save):
    refuses(Renamed(), save({"old_layout": torch.zeros(1)}), r"a.pth: this file is of the first version, .* second$")


# --- addresses


@pytest.mark.parametrize("form", [lambda url, sha: f"{url}#sha256={sha.upper()}", RemoteFile])
def test_addresses(loopback, hub_cache, tmp_path, form):
    published, model = PlainNet(), PlainNet()
    save_weights(published, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    address = form(loopback.serve("plain.safetensors", content), hashlib.sha256(content).hexdigest())
    for _ in range(2):
        assert load_weights(model, address).complete
    assert is_same(model, snapshot(published))
    assert loopback.requests == ["/plain.safetensors"]


def test_wrong_addresses(loopback, hub_cache):
    url = loopback.serve("plain.pth", b"something else")
    refuses(PlainNet(), f"{url}#sha256={'0' * 64}", "sent another file .* pass the path of a copy", ChecksumError)
    for address in (url, f"{url}#sha256=123", f"{url}#md5={'0' * 64}"):
        refuses(PlainNet(), address, "must end in #sha256=..., the checksum of the file, but is http", ArgumentError)


def test_a_published_network(shared_data):
    """DnCNN for grey images with noise of 25 / 255: 17 convolutions that predict the noise."""
    widths = [1, *[64] * 16, 1]
    layers = [layer for pair in pairwise(widths) for layer in (nn.Conv2d(*pair, 3, padding=1), nn.ReLU())][:-1]
    model, path = nn.ModuleDict({"model": nn.Sequential(*layers)}), shared_data / "weights" / "dncnn_25.pth"
    assert load_weights(model, path).loaded == 34
    clean = torch.as_tensor(data.camera()[100:164, 200:264] / 255.0, dtype=torch.float32)[None, None]
    noisy = clean + 25 / 255 * torch.randn(clean.shape)
    with torch.no_grad():
        denoised = noisy - model["model"](noisy)
    assert (denoised - clean).square().mean() < (noisy - clean).square().mean() / 5
    refuses(UNet(1, (4, 6, 8)), path, "does not fit UNet: 0 tensors fit, 16 missing .*, 34 unexpected")
