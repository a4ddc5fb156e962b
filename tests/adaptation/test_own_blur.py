"""Adaptation to a photo's own blur."""

from __future__ import annotations

import copy
import threading

import pytest
import torch

from reblurkit.adaptation import adapt_to_blur
from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.metrics import PSNR
from reblurkit.models import create_model, load_pretrained
from tests.blur.test_kernel_estimate import blurred, kernel_of, scene
from tests.conftest import BatchNormNet, DropoutNet, PlainNet


def psnr(image, sharp):
    metric = PSNR()
    metric.update(image, sharp)
    return float(metric.compute())


@pytest.fixture(scope="module")
def photo():
    sharp = scene(seed=2, side=256, shapes=300)
    return blurred(sharp, kernel_of(15, 2), noise=0.004), sharp


def test_the_network_in_the_box_gains_on_a_shaken_photo(photo):
    blurry, sharp = photo
    network = load_pretrained().network.eval()
    before = copy.deepcopy(network.state_dict())
    state = torch.get_rng_state()
    adapted = adapt_to_blur(network, blurry)
    assert bool(adapted.adapted)
    assert psnr(adapted.image, sharp) > psnr(adapted.plain, sharp) + 0.5
    assert adapted.losses[0, 1] < adapted.losses[0, 0]
    assert torch.equal(adapted.plain, network(blurry).clamp(0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_photo_without_one_blur_keeps_its_plain_image():
    sharp = scene(seed=6, side=320, shapes=400)
    line = torch.zeros(15, 15)
    line[7] = 1 / 15
    blurry = torch.cat([blurred(sharp, line)[..., :160], blurred(sharp, line.T)[..., 160:]], -1)
    adapted = adapt_to_blur(PlainNet(), blurry, steps=1, kernel_size=17, least_agreement=0.99)
    assert not adapted.adapted
    assert torch.equal(adapted.image, adapted.plain)
    assert adapted.losses[0, 0] == adapted.losses[0, 1]


def test_each_photo_of_a_batch_is_adapted_to_for_itself_also_in_inference_mode(photo):
    blurry = torch.cat([photo[0], photo[0].flip(-1)])
    options = {"steps": 2, "kernel_size": 15, "least_agreement": 0.0, "least_explained": 0.0}
    with torch.inference_mode():
        together = adapt_to_blur(PlainNet(), blurry.clone(), **options)
    assert together.image.shape == blurry.shape
    assert together.agreement.shape == together.adapted.shape == (2,)
    torch.manual_seed(0)
    network = PlainNet()
    batch = adapt_to_blur(network, blurry, **options)
    for index in range(2):
        alone = adapt_to_blur(network, blurry[[index]], **options)
        torch.testing.assert_close(batch.image[[index]], alone.image, rtol=0, atol=1e-6)


def test_a_kernel_that_explains_nothing_of_what_the_network_does_is_not_adapted_to():
    class Darkens(PlainNet):
        def forward(self, image):
            return 0.8 * image + 0 * super().forward(image)

    sharp = scene(seed=2, side=256, shapes=300)  # its kernel is a dot, and all quarters agree on that
    adapted = adapt_to_blur(Darkens(), sharp, steps=1, kernel_size=15)
    assert adapted.agreement > 0.8
    assert abs(float(adapted.explained)) < 0.2
    assert not adapted.adapted
    assert torch.equal(adapted.image, adapted.plain)


def test_a_small_photo_gets_small_kernels():
    adapted = adapt_to_blur(PlainNet(), scene(side=88, shapes=40), steps=1, least_agreement=0.0, least_explained=0.0)
    assert adapted.image.shape == (1, 3, 88, 88)


def test_a_rate_that_ruins_the_network_keeps_the_plain_image(photo):
    adapted = adapt_to_blur(
        PlainNet(), photo[0], steps=3, lr=1e30, kernel_size=15, least_agreement=0.0, least_explained=0.0
    )
    assert torch.equal(adapted.image, adapted.plain)
    assert not adapted.adapted
    assert adapted.losses.isfinite().tolist() == [[True, False]]


OPTIONS = {"steps": 1, "kernel_size": 9, "least_agreement": 0.0, "least_explained": 0.0}


@pytest.fixture(scope="module")
def small():
    return blurred(scene(side=96, shapes=60), kernel_of(7, 1))


class Wrapped(torch.nn.Module):
    """A network of the user's that does something else with what another makes."""

    def __init__(self, change):
        super().__init__()
        self.inner, self.change = PlainNet(), change

    def forward(self, image):
        return self.change(self.inner, image)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(small, precision):
    network = PlainNet()
    expected = adapt_to_blur(network, small, **OPTIONS)
    with torch.autocast("cpu", precision):
        adapted = adapt_to_blur(network, small, **OPTIONS)
    assert torch.equal(adapted.image, expected.image)
    assert not torch.equal(adapted.image, adapted.plain)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16, torch.float64])
def test_photo_and_network_may_have_other_precisions(small, precision):
    network = PlainNet()
    expected = adapt_to_blur(network, small, **OPTIONS)
    for adapted in (
        adapt_to_blur(network, small.to(precision), **OPTIONS),
        adapt_to_blur(copy.deepcopy(network).to(precision), small, **OPTIONS),
        adapt_to_blur(copy.deepcopy(network).to(precision), small.to(precision), **OPTIONS),
    ):
        torch.testing.assert_close(adapted.image.float(), expected.image, rtol=0, atol=0.02)
        assert bool(adapted.adapted)
        assert not torch.equal(adapted.image, adapted.plain)


@pytest.mark.parametrize(
    "network",
    [
        Wrapped(lambda inner, image: [inner(image)[..., ::2, ::2], inner(image)]),
        Wrapped(lambda inner, image: inner(image).half()),
        Wrapped(lambda inner, image: inner(image.mul_(0.5))),
        PlainNet().requires_grad_(False),
        torch.compile(PlainNet(), backend="eager"),
        BatchNormNet(),
        DropoutNet(),
    ],
    ids=["scales", "half", "in_place", "frozen", "compiled", "batch_norm", "dropout"],
)
def test_networks_of_all_kinds_adapt_and_stay_as_they_were(small, network):
    before, photo = copy.deepcopy(network.state_dict()), small.clone()
    modes = [module.training for module in network.modules()]
    trained = [parameter.requires_grad for parameter in network.parameters()]
    adapted = adapt_to_blur(network, photo, **OPTIONS)
    assert bool(adapted.adapted)
    assert not torch.equal(adapted.image, adapted.plain)
    assert torch.equal(photo, small)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert modes == [module.training for module in network.modules()]
    assert trained == [parameter.requires_grad for parameter in network.parameters()]


def test_a_network_that_holds_a_graph_is_copied(small):
    class Keeping(PlainNet):
        def forward(self, image):
            self.last = super().forward(image)
            return self.last

    network = Keeping()
    network(small)
    assert bool(adapt_to_blur(network, small, **OPTIONS).adapted)


def test_a_network_whose_parameters_are_partly_whole_numbers_adapts(small):
    network = PlainNet()
    network.levels = torch.nn.Parameter(torch.tensor([3]), requires_grad=False)
    assert bool(adapt_to_blur(network, small, **OPTIONS).adapted)


def test_a_network_that_makes_no_numbers_of_it_keeps_its_plain_image(small):
    adapted = adapt_to_blur(Wrapped(lambda inner, image: inner(image) / 0), small, **OPTIONS)
    assert not adapted.adapted
    assert not adapted.plain.isfinite().all()  # as the network makes it: infinity is not white


def locked():
    network = PlainNet()
    network.lock = threading.Lock()
    return network


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        ("net", ArgumentError, "must be an nn.Module"),
        (PlainNet, ArgumentError, "must be an nn.Module"),
        (torch.nn.Identity(), ArgumentError, "no parameters that could be adapted"),
        (PlainNet().to("meta"), ArgumentError, "on one device, but are on meta and cpu"),
        (create_model("dbn", width=4), ArgumentError, "takes 5 frames"),
        (locked(), ArgumentError, "that can be copied"),
        (Wrapped(lambda inner, image: inner(image).detach()), ArgumentError, "switch gradients off"),
        (Wrapped(lambda inner, image: {"sharp": inner(image)}), ArgumentError, "it returned dict"),
        (Wrapped(lambda inner, image: inner(image).byte()), ArgumentError, "made torch.uint8"),
        (Wrapped(lambda inner, image: inner(image)[:, :1]), ShapeError, r"but made \(1, 1, 96, 96\)"),
        (Wrapped(lambda inner, image: inner(image)[..., 1:]), ShapeError, "must keep the size of its input"),
    ],
)
def test_networks_that_cannot_adapt_are_told(small, network, error, message):
    with pytest.raises(error, match=message):
        adapt_to_blur(network, small, **OPTIONS)


@pytest.mark.parametrize(
    ("image", "options", "error", "message"),
    [
        (torch.rand(1, 3, 64, 64), {}, ShapeError, "at least 80 pixels a side"),
        (torch.rand(1, 3, 128, 128), {"kernel_size": 31}, ShapeError, "at least 248 pixels a side"),
        (torch.rand(1, 1, 128, 128), {}, ShapeError, "RGB photos"),
        (torch.rand(0, 3, 128, 128), {}, ShapeError, "one or more"),
        (torch.rand(1, 3, 20, 3000), {}, ShapeError, "kernels of 9 pixels"),
        (torch.full((1, 3, 128, 128), torch.nan), {}, ArgumentError, "must hold finite values"),
        (torch.rand(1, 3, 128, 128, device="meta"), {}, ArgumentError, "on the device meta"),
        (255 * torch.rand(1, 3, 128, 128), {}, ArgumentError, r"\[0, 1\]"),
        (torch.rand(1, 3, 128, 128), {"steps": 0}, ArgumentError, "`steps` must be a whole number"),
        (torch.rand(1, 3, 128, 128), {"lr": -1}, ArgumentError, "`lr` must be"),
        (torch.rand(1, 3, 128, 128), {"kernel_size": 8}, ArgumentError, "odd number of pixels"),
        (torch.rand(1, 3, 128, 128), {"kernel_size": "9"}, ArgumentError, "`kernel_size` must be an odd number"),
        (torch.rand(1, 3, 128, 128), {"seed": 0.5}, ArgumentError, "`seed` must be"),
        (torch.rand(1, 3, 128, 128), {"tile": "auto"}, ArgumentError, "`tile` must be"),
        (torch.rand(1, 3, 128, 128), {"least_agreement": 2}, ArgumentError, "`least_agreement`"),
    ],
)
def test_bad_input_gets_one_line(image, options, error, message):
    with pytest.raises(error, match=message):
        adapt_to_blur(PlainNet(), image, **options)
