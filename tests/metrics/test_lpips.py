"""LPIPS against the package, and its weights from files and from a server."""

from __future__ import annotations

import copy
import hashlib
import pickle

import lpips
import pytest
import torch
from torchvision import models

from reblurkit.core.downloads import RemoteFile
from reblurkit.errors import ArgumentError, ChecksumError, DownloadError, ShapeError, TruncationError, WeightsError
from reblurkit.metrics import LPIPS
from reblurkit.metrics.lpips import BACKBONES

TORCHVISION = {"alex": models.alexnet, "vgg": models.vgg16, "squeeze": models.squeezenet1_1}
SMALLEST = {"alex": 31, "vgg": 16, "squeeze": 17}

pytestmark = pytest.mark.filterwarnings("ignore:.*pretrained.*", "ignore:Arguments other than a weight enum.*")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of seeded random backbones as torchvision would save them, made when asked for.

    The classifiers, most of the bytes of AlexNet and VGG, play no part.
    """
    folder = tmp_path_factory.mktemp("weights")

    def path(net):
        file = folder / f"{net}.pth"
        if not file.exists():
            torch.manual_seed(1)
            state = TORCHVISION[net]().state_dict()
            torch.save({name: value for name, value in state.items() if name.startswith("features")}, file)
        return file

    return path


def package(net):
    """The package with the random backbone of the same seed."""
    torch.manual_seed(1)
    return lpips.LPIPS(net=net, pnet_rand=True, verbose=False)


@pytest.mark.parametrize("net", TORCHVISION)
def test_equals_the_package(weights, net):
    preds, target = torch.rand(2, 3, 3, 40, 56)
    ours = LPIPS(net, weights(net))
    ours.update(preds[:1], target[:1])
    ours.update(preds[1:], target[1:])
    with torch.no_grad():
        expected = package(net)(2 * preds - 1, 2 * target - 1).double().mean()
    assert ours.compute().item() == pytest.approx(expected.item(), abs=1e-6)
    assert expected > 0.01


@pytest.mark.parametrize("net", TORCHVISION)
def test_the_smallest_images(weights, net):
    size = SMALLEST[net]
    ours = LPIPS(net, weights(net))
    ours.update(torch.rand(1, 3, size, size), torch.rand(1, 3, size, size))
    assert ours.compute() > 0
    with pytest.raises(
        ShapeError, match=rf"at least {size} x {size} pixels, but came 3 channels of \({size - 1}, 50\)"
    ):
        ours.update(torch.rand(1, 3, size - 1, 50), torch.rand(1, 3, size - 1, 50))


def test_identical_images_are_at_0_and_values_are_clamped(weights):
    image, ours = torch.rand(1, 3, 32, 32), LPIPS(weights=weights("alex"))
    image[..., :5], image[..., 5:10] = 0, 1
    outside = image.clone()
    outside[..., :5], outside[..., 5:10] = -0.5, 1.5
    ours.update(image, outside)
    assert ours.compute() == 0


def test_autocast_changes_nothing(weights):
    preds, target = torch.rand(2, 1, 3, 40, 40)
    ours = LPIPS(weights=weights("alex"))
    plain = ours.per_image(preds, target)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours.per_image(preds, target), plain)


def test_the_backbone_stays_out_of_checkpoints_and_parameters(weights):
    ours = LPIPS(weights=weights("alex"))
    assert not ours.state_dict()
    assert not list(ours.parameters())
    pair = torch.rand(2, 1, 3, 40, 40)
    torch.testing.assert_close(copy.deepcopy(ours).per_image(*pair), ours.per_image(*pair))


def test_random_numbers_of_the_user_stay_as_they_are(weights):
    file = weights("alex")
    state = torch.get_rng_state()
    LPIPS(weights=file)
    assert torch.equal(torch.get_rng_state(), state)


def test_wrong_arguments(weights):
    with pytest.raises(ArgumentError, match="'alex', 'vgg', 'squeeze', but is 'vgg19'"):
        LPIPS("vgg19")
    with pytest.raises(ShapeError, match="3 channels"):
        LPIPS(weights=weights("alex")).update(torch.rand(1, 1, 40, 40), torch.rand(1, 1, 40, 40))


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


def test_wrong_files(weights, tmp_path):
    with pytest.raises(WeightsError, match=r"missing.pth cannot be read"):
        LPIPS(weights=tmp_path / "missing.pth")
    with pytest.raises(WeightsError, match=r"must hold torchvision's weights for LPIPS\('alex'\), but"):
        LPIPS("alex", weights("squeeze"))
    with pytest.raises(WeightsError, match=r"must hold torchvision's weights for LPIPS\('vgg'\), but"):
        LPIPS("vgg", weights("alex"))
    (tmp_path / "cut.pth").write_bytes(weights("alex").read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"cut.pth cannot be read"):
        LPIPS(weights=tmp_path / "cut.pth")
    for name, write in {"a.pth": torch.save, "b.pth": lambda it, path: path.write_bytes(pickle.dumps(it, 2))}.items():
        write({"features.0.weight": Evil()}, tmp_path / name)
        with pytest.raises(WeightsError, match=f"{name} cannot be read"):
            LPIPS(weights=tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="a dictionary of tensors, but holds list"):
        LPIPS(weights=tmp_path / "list.pth")


# --- downloads: squeeze, the smallest file


def test_weights_are_downloaded_once(weights, loopback, hub_cache, monkeypatch):
    content = weights("squeeze").read_bytes()
    file = RemoteFile(loopback.serve("squeezenet.pth", content), hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(BACKBONES, "squeeze", file)
    pair = torch.rand(2, 1, 3, 40, 40)
    expected = LPIPS("squeeze", weights("squeeze")).per_image(*pair)
    for _ in range(2):
        assert torch.equal(LPIPS("squeeze").per_image(*pair), expected)
    assert loopback.requests == ["/squeezenet.pth"]


@pytest.mark.parametrize(("send", "error"), [(None, ChecksumError), (1000, TruncationError)])
def test_broken_downloads(weights, loopback, hub_cache, monkeypatch, send, error):
    url = loopback.serve("squeezenet.pth", weights("squeeze").read_bytes(), send)
    monkeypatch.setitem(BACKBONES, "squeeze", RemoteFile(url, "0" * 64))
    with pytest.raises(error, match="pass `weights=` the path of a copy"):
        LPIPS("squeeze")
    assert not [path for path in hub_cache.rglob("*") if path.is_file()]


def test_no_network(closed_port, hub_cache, monkeypatch):
    url = f"http://127.0.0.1:{closed_port}/alexnet.pth"
    monkeypatch.setitem(BACKBONES, "alex", RemoteFile(url, "0" * 64))
    with pytest.raises(DownloadError, match=rf"{url} cannot be downloaded .*; put the file at .*alexnet.pth, or pass"):
        LPIPS()


@pytest.mark.parametrize("net", TORCHVISION)
def test_addresses_are_torchvisions(net):
    url = {"alex": models.AlexNet_Weights, "vgg": models.VGG16_Weights, "squeeze": models.SqueezeNet1_1_Weights}
    assert BACKBONES[net].url == url[net].IMAGENET1K_V1.url
    assert BACKBONES[net].sha256[:8] in BACKBONES[net].url
