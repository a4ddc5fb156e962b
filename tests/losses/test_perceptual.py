"""Perceptual losses against torchvision's own layers, and their weights from files and from a server."""

from __future__ import annotations

import copy
import hashlib

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

from reblurkit.core.downloads import RemoteFile
from reblurkit.errors import ArgumentError, ChecksumError, DownloadError, ShapeError, TruncationError, WeightsError
from reblurkit.losses import MultiScalePerceptualLoss, VGGLoss
from reblurkit.models import VGGFeatures
from reblurkit.models.vgg import VGG_WEIGHTS

TORCHVISION = {"vgg19": models.vgg19, "vgg16": models.vgg16}
DEEPEST = {"vgg19": 35, "vgg16": 29}  # layers up to the default ones


@pytest.fixture(scope="module")
def backbones():
    """Seeded random VGGs; the classifiers play no part."""
    found = {}
    for name, build in TORCHVISION.items():
        with torch.device("meta"):
            features = build(init_weights=False).features
        torch.manual_seed(1)
        features = features[: DEEPEST[name]].to_empty(device="cpu")
        for layer in features:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=(2 / layer.weight[0].numel()) ** 0.5)
                nn.init.normal_(layer.bias, std=0.1)
        found[name] = features.requires_grad_(False)
    return found


@pytest.fixture(scope="module")
def weights(backbones, tmp_path_factory):
    """Their files, named as torchvision names tensors, up to the fourth block or whole."""
    folder = tmp_path_factory.mktemp("weights")

    def path(name, layers=23):
        file = folder / f"{name}-{layers}.pth"
        if not file.exists():
            state = {f"features.{key}": value for key, value in backbones[name][:layers].state_dict().items()}
            torch.save(state, file)
        return file

    return path


def normalized(image):
    return (image - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]


@pytest.mark.parametrize(("name", "layer", "stop"), [("vgg19", "conv5_4", 35), ("vgg16", "conv5_3", 29)])
def test_the_default_is_the_last_convolution_before_its_activation(backbones, weights, name, layer, stop):
    deblurred, sharp = torch.rand(2, 2, 3, 32, 40)
    loss = VGGLoss(name, weights=weights(name, 99))
    network = backbones[name][:stop]
    expected = (network(normalized(deblurred)) - network(normalized(sharp))).abs().mean()
    torch.testing.assert_close(loss(deblurred, sharp), expected)
    assert expected > 0.01
    assert loss(sharp, sharp) == 0
    torch.testing.assert_close(
        VGGLoss(name, layers=[layer], weights=weights(name, 99))(deblurred, sharp), expected, rtol=0, atol=0
    )


def test_deblurgans_loss(backbones, weights):
    deblurred, sharp = torch.rand(2, 2, 3, 16, 24)
    loss = VGGLoss(layers=["conv3_3"], weights=weights("vgg19"), distance=nn.MSELoss())
    network = backbones["vgg19"][:15]
    expected = F.mse_loss(network(normalized(deblurred)), network(normalized(sharp)))
    torch.testing.assert_close(loss(deblurred, sharp), expected)


def test_layers_and_their_weights(backbones, weights):
    deblurred, sharp = torch.rand(2, 1, 3, 16, 16)
    loss = VGGLoss(layers=["relu2_1", "pool1"], layer_weights=[0.5, 2], weights=weights("vgg19"), normalize=False)
    network = backbones["vgg19"]
    expected = 0.5 * (network[:7](deblurred) - network[:7](sharp)).abs().mean()
    expected += 2 * (network[:5](deblurred) - network[:5](sharp)).abs().mean()
    torch.testing.assert_close(loss(deblurred, sharp), expected)


@pytest.mark.parametrize("name", TORCHVISION)
def test_names_are_those_of_torchvisions_layers(backbones, weights, name):
    names = list(VGGFeatures(name, ["relu4_2"], weights(name)).stages._modules)
    kinds = {"conv": nn.Conv2d, "relu": nn.ReLU, "pool": nn.MaxPool2d}
    blocks = 1
    for each, layer in zip(names, backbones[name], strict=False):
        assert isinstance(layer, kinds[each[:4]])
        assert each[4] == str(blocks)
        blocks += each.startswith("pool")
    image = torch.rand(1, 3, 16, 16)
    maps = VGGFeatures(name, names[::-1], weights(name))(image)
    for index, found in enumerate(maps[::-1]):
        torch.testing.assert_close(found, backbones[name][: index + 1](image), rtol=0, atol=0)


def test_gradients_reach_the_deblurred_image_only(weights):
    deblurred, sharp = (torch.rand(1, 3, 8, 8, requires_grad=True) for _ in range(2))
    loss = VGGLoss(layers=["relu2_2"], weights=weights("vgg19"))
    value = loss(deblurred, sharp)
    value.backward()
    assert deblurred.grad.abs().sum() > 0
    assert sharp.grad is None
    assert all(parameter.grad is None for parameter in loss._features.network.parameters())


@pytest.mark.filterwarnings("ignore:.*gradcheck.*")
def test_the_gradient_is_that_of_finite_differences(weights):
    deblurred, sharp = torch.rand(2, 1, 3, 6, 6, dtype=torch.float64)
    loss = VGGLoss(layers=["conv2_1"], weights=weights("vgg19"), distance=nn.MSELoss())
    assert torch.autograd.gradcheck(lambda image: loss(image, sharp), deblurred.requires_grad_())
    # and afterwards single precision is single again
    assert loss(deblurred.detach().float(), sharp.float()).dtype == torch.float32


def test_of_several_scales_the_last_is_used(weights):
    deblurred, sharp = torch.rand(2, 1, 3, 16, 16)
    loss = VGGLoss(layers=["conv1_2"], weights=weights("vgg19"))
    assert loss([deblurred[..., ::2, ::2], deblurred], sharp) == loss(deblurred, sharp)


def test_the_extractor_is_out_of_sight(weights):
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Conv2d(3, 3, 1)
            self.criterion = VGGLoss(layers=["conv1_2"], weights=weights("vgg19"))

    module, image = Module(), torch.rand(1, 3, 8, 8)
    value = module.criterion(image, image.flip(-1))
    module.bfloat16()
    assert len(list(module.parameters())) == 2
    assert list(module.state_dict()) == ["network.weight", "network.bias"]
    assert module.criterion(image, image.flip(-1)) == value > 0
    assert copy.deepcopy(module).criterion(image, image.flip(-1)) == value
    assert "vgg19" in repr(module)


def test_it_follows_the_images_to_their_device(weights):
    loss, image = VGGLoss(layers=["conv1_2"], weights=weights("vgg19")), torch.rand(1, 3, 8, 8)
    loss(image, image)
    loss(image.to("meta"), image.to("meta"))  # a device that every machine has
    assert loss._features.network.stages[0].weight.device.type == "meta"


def test_autocast_is_near_single_precision(weights):
    deblurred, sharp = torch.rand(2, 1, 3, 16, 16)
    loss = VGGLoss(layers=["conv3_3"], weights=weights("vgg19"))
    plain = loss(deblurred, sharp)
    for dtype in (torch.float32, torch.bfloat16):
        leaf = deblurred.to(dtype, copy=True).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(leaf, sharp)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, plain, rtol=0.02, atol=0)
        value.backward()
        assert leaf.grad.isfinite().all()


def test_weights_that_a_test_loads_serve_in_training(weights):
    deblurred, sharp = torch.rand(2, 1, 3, 8, 8)
    loss = VGGLoss(layers=["conv1_2"], weights=weights("vgg19"))
    with torch.inference_mode():
        loss(deblurred.clone(), sharp.clone())
    loss(deblurred.requires_grad_(), sharp).backward()
    assert deblurred.grad is not None


# --- other extractors


def test_an_encoder_of_timm():
    encoder = timm.create_model("test_resnet", features_only=True, pretrained=False)
    before = copy.deepcopy(encoder.state_dict())
    loss = VGGLoss(encoder)
    deblurred, sharp = torch.rand(2, 2, 3, 64, 64)
    value = loss(deblurred, sharp)
    assert encoder.training, "the user's object stays as it was"
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    torch.testing.assert_close(encoder.state_dict(), before, rtol=0, atol=0)
    encoder.eval()
    with torch.no_grad():
        maps = zip(encoder(normalized(deblurred)), encoder(normalized(sharp)), strict=True)
        expected = sum((one - other).abs().mean() for one, other in maps)
    torch.testing.assert_close(value, expected)
    assert value > 0.1
    assert not list(loss.parameters())


class Dict(nn.Module):
    def forward(self, image):
        return {"map": image}


def test_wrong_options(weights):
    with pytest.raises(ArgumentError, match="must be one of 'vgg19', 'vgg16', but is 'vgg11'"):
        VGGLoss("vgg11")
    with pytest.raises(ArgumentError, match=r"vgg19 has no layer 'relu3_5'; block 3 has conv3_1 to conv3_4"):
        VGGLoss(layers=["relu3_5"])
    with pytest.raises(ArgumentError, match="at least one name, but is 'relu3_3'"):
        VGGLoss(layers="relu3_3")
    with pytest.raises(ArgumentError, match="2 layers need as many `layer_weights`, but there are 1"):
        VGGLoss(layers=["relu3_1", "relu3_2"], layer_weights=[1])
    with pytest.raises(ArgumentError, match="belong to VGG"):
        VGGLoss(nn.Identity(), layers=["relu3_1"])
    image = torch.rand(1, 3, 8, 8)
    with pytest.raises(ArgumentError, match="returned 1 maps, but there are 2 `layer_weights`"):
        VGGLoss(nn.Identity(), layer_weights=[1, 2])(image, image)
    with pytest.raises(ArgumentError, match="a list of tensors, but returned dict"):
        VGGLoss(Dict())(image, image)
    with pytest.raises(ShapeError, match="must have the same shape"):
        VGGLoss(nn.Identity())(image, image[..., 1:])
    with pytest.raises(ShapeError, match=r"conv3_1 of vgg19 need images .* at least 4 x 4 .* is \(1, 3, 3, 8\)"):
        VGGLoss(layers=["conv3_1"], weights=weights("vgg19"))(image[..., :3, :], image[..., :3, :])
    with pytest.raises(ArgumentError, match="'mean' or 'sum', but is 'none'"):
        MultiScalePerceptualLoss(reduction="none")
    with pytest.raises(ShapeError, match=r"but have the shapes \[\(2, 3, 8, 8\)\]"):
        MultiScalePerceptualLoss(nn.Identity())(image.expand(2, -1, -1, -1), image)


# --- Blur2Blur


def in_place_taps(network, image):
    """What Blur2Blur's program collects: its ReLUs work in place and overwrite the maps noted before them."""
    found = []
    for index, layer in enumerate(network[:25]):
        image = layer(image)
        if index in (7, 14, 17, 21, 24):
            found.append(image)
    return found


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_multi_scale_loss_is_that_of_the_authors_program(backbones, weights, reduction):
    image = torch.rand(1, 3, 64, 64)
    outputs = [torch.rand(1, 3, side, side, requires_grad=True) for side in (16, 32, 64)]
    loss = MultiScalePerceptualLoss(weights=weights("vgg16", 25), reduction=reduction)(outputs, image)
    network, expected = backbones["vgg16"], 0
    for output, factor in zip(outputs, (0.25, 0.5, 1), strict=True):
        target = F.interpolate(image, scale_factor=factor, mode="bilinear")
        maps = zip(in_place_taps(network, output.detach().clone()), in_place_taps(network, target), strict=True)
        for weight, (one, other) in zip((1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), maps, strict=True):
            expected += weight * F.l1_loss(one, other)
    torch.testing.assert_close(loss, expected / 3 if reduction == "mean" else expected)
    loss.backward()
    assert all(output.grad.abs().sum() > 0 for output in outputs)


def test_one_image_is_one_scale_and_weights_can_be_given(weights):
    image, output = torch.rand(2, 1, 3, 16, 16)
    options = {"layers": ["conv1_1"], "weights": weights("vgg16")}
    single = MultiScalePerceptualLoss(**options)(output, image)
    torch.testing.assert_close(MultiScalePerceptualLoss(**options, layer_weights=[3])([output], image), 3 * single)
    torch.testing.assert_close(VGGLoss("vgg16", **options, normalize=False)(output, image), single)


# --- files and downloads


def test_wrong_files(weights, tmp_path):
    image = torch.rand(1, 3, 16, 16)
    with pytest.raises(WeightsError, match=r"missing.pth cannot be read"):
        VGGLoss(weights=tmp_path / "missing.pth")(image, image)
    with pytest.raises(WeightsError, match=r"must hold torchvision's weights of vgg19, but"):
        VGGLoss(layers=["conv3_4"], weights=weights("vgg16"))(image, image)
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="a dictionary of tensors, but holds list"):
        VGGLoss(weights=tmp_path / "list.pth")(image, image)


def test_weights_are_downloaded_once_and_not_before_they_are_needed(weights, loopback, hub_cache, monkeypatch):
    content = weights("vgg19", 3).read_bytes()
    file = RemoteFile(loopback.serve("vgg19.pth", content), hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(VGG_WEIGHTS, "vgg19", file)
    pair = torch.rand(2, 1, 3, 8, 8)
    expected = VGGLoss(layers=["conv1_2"], weights=weights("vgg19"))(*pair)
    losses = [VGGLoss(layers=["conv1_2"]) for _ in range(2)]
    assert not loopback.requests
    for loss in losses:
        assert loss(*pair) == loss(*pair) == expected
    assert loopback.requests == ["/vgg19.pth"]


@pytest.mark.parametrize(("send", "error"), [(None, ChecksumError), (1000, TruncationError)])
def test_broken_downloads(weights, loopback, hub_cache, monkeypatch, send, error):
    url = loopback.serve("vgg16.pth", weights("vgg16", 3).read_bytes(), send)
    monkeypatch.setitem(VGG_WEIGHTS, "vgg16", RemoteFile(url, "0" * 64))
    image = torch.rand(1, 3, 8, 8)
    with pytest.raises(error, match="pass `weights=` the path of a copy"):
        VGGLoss("vgg16", layers=["conv1_2"])(image, image)
    assert not [path for path in hub_cache.rglob("*") if path.is_file()]


def test_no_network(closed_port, hub_cache, monkeypatch):
    url = f"http://127.0.0.1:{closed_port}/vgg19.pth"
    monkeypatch.setitem(VGG_WEIGHTS, "vgg19", RemoteFile(url, "0" * 64))
    image = torch.rand(1, 3, 16, 16)
    with pytest.raises(DownloadError, match=rf"{url} cannot be downloaded .*; put the file at .*vgg19.pth, or pass"):
        VGGLoss()(image, image)


@pytest.mark.parametrize(("name", "enum"), [("vgg19", models.VGG19_Weights), ("vgg16", models.VGG16_Weights)])
def test_addresses_are_torchvisions(name, enum):
    assert VGG_WEIGHTS[name].url == enum.IMAGENET1K_V1.url
    assert VGG_WEIGHTS[name].sha256[:8] in VGG_WEIGHTS[name].url
    assert len(VGG_WEIGHTS[name].sha256) == 64
