"""Flow at the edges of what is defined: whole numbers, the range, NaN and infinity; bad input."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch

from reblurkit.blur import flow_kernel_blur, flow_kernel_mask, flow_line_blur, flow_warp_blur
from reblurkit.blur.backends import choose
from reblurkit.blur.reference import dense_flow_kernel_blur, dense_flow_line_blur
from reblurkit.errors import ArgumentError, BackendError, ShapeError

MODELS = {
    "definition": dense_flow_kernel_blur,
    "torch": lambda *inputs, **keywords: flow_kernel_blur(*inputs, backend="torch", **keywords),
    "numba": lambda *inputs, **keywords: flow_kernel_blur(*inputs, backend="numba", **keywords),
    "definition, line": dense_flow_line_blur,
    "torch, line": lambda *inputs, **keywords: flow_line_blur(*inputs, backend="torch", **keywords),
    "numba, line": lambda *inputs, **keywords: flow_line_blur(*inputs, backend="numba", **keywords),
    "warp": flow_warp_blur,
}
TABLES = [name for name in MODELS if "line" not in name and name != "warp"]


@pytest.mark.parametrize("model", MODELS)
def test_zero_flow_is_the_identity(model):
    image, zero = torch.rand(2, 3, 7, 9), torch.zeros(2, 2, 7, 9)
    torch.testing.assert_close(MODELS[model](image, zero, zero), image, rtol=0, atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_constant_images_stay_constant(model):
    flows = [30 * torch.randn(1, 2, 12, 13) for _ in range(2)]
    blurred = MODELS[model](torch.full((1, 3, 12, 13), 0.7), *flows)
    torch.testing.assert_close(blurred, torch.full_like(blurred, 0.7), rtol=0, atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_mass_is_preserved(model):
    # The gradient of the sum is how often every pixel is used: in all, once per blurred pixel.
    image = torch.rand(1, 1, 12, 13, dtype=torch.float64, requires_grad=True)
    flows = [8 * torch.randn(1, 2, 12, 13, dtype=torch.float64) for _ in range(2)]
    MODELS[model](image, *flows).sum().backward()
    assert image.grad.sum().item() == pytest.approx(12 * 13, rel=1e-12)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("model", MODELS)
def test_a_flow_that_is_not_finite_makes_nan_of_its_pixel_only(model, bad):
    image = torch.rand(1, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    flows = [(4 * torch.randn(1, 2, 6, 7, dtype=torch.float64)).requires_grad_() for _ in range(2)]
    broken = [flow.detach().clone().requires_grad_() for flow in flows]
    with torch.no_grad():
        broken[0][0, 1, 2, 3] = bad
    expected, blurred = MODELS[model](image, *flows), MODELS[model](image, *broken)
    assert blurred[..., 2, 3].isnan().all()
    good = torch.ones(6, 7, dtype=torch.bool)
    good[2, 3] = False
    assert torch.equal(blurred[..., good], expected[..., good])

    # The pixel takes part in no gradient, whatever comes from above.
    upstream = torch.randn_like(image)
    gradients = torch.autograd.grad(expected, (image, *flows), upstream * good)
    for value in (0.0, torch.nan):
        upstream[..., 2, 3] = value
        kept = torch.autograd.grad(blurred, (image, *broken), upstream, retain_graph=True)
        for one, other in zip(kept, gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("model", [name for name in MODELS if "line" in name])
def test_a_motion_without_end_is_not_drawn(model):
    image, flow = torch.rand(1, 1, 1, 3), torch.zeros(1, 2, 1, 3)
    flow[0, 0, 0, 1] = 1e30
    assert MODELS[model](image, flow, -flow).isnan().flatten().tolist() == [False, True, False]


@pytest.mark.parametrize("model", TABLES)
def test_the_tables_gradient_ends_at_its_range(model):
    image = torch.rand(1, 1, 40, 40, dtype=torch.float64)
    u = torch.tensor([15.9, 16.0, 16.1, -15.9, -16.0, -16.1], dtype=torch.float64)
    flow = torch.full((1, 2, 40, 40), 2.5, dtype=torch.float64)
    flow[0, 0, 20, 10:16] = u
    flow.requires_grad_()
    MODELS[model](image, flow, torch.zeros_like(flow)).sum().backward()
    passes = (flow.grad[0, 0, 20, 10:16] != 0).tolist()
    assert passes == [True, False, False, True, False, False]
    assert (flow.grad[0, 1, 20, 10:16] != 0).all(), "the other component stays in range"
    scaled = flow.detach().requires_grad_()
    MODELS[model](image, scaled, torch.zeros_like(flow), exposure=0.5).sum().backward()
    assert (scaled.grad[0, 0, 20, 10:16] != 0).all()


@pytest.mark.parametrize("model", [name for name in MODELS if name != "warp"])
def test_at_zero_flow_the_gradient_is_the_one_to_the_right_and_below(model):
    image = torch.rand(1, 1, 3, 3, dtype=torch.float64)
    zero = torch.zeros(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    MODELS[model](image, zero, zero.detach()).sum().backward()
    right = (image[0, 0, 1, 2] - image[0, 0, 1, 1]) / 4
    assert zero.grad[0, 0, 1, 1].item() == pytest.approx(right.item(), rel=1e-12)


def test_the_mask_is_where_segments_stay_in_range_and_image():
    flow = torch.zeros(1, 2, 3, 40)
    flow[:, 0] = 5
    flow[0, 0, 0, 20] = 17
    flow[0, 1, 1, 20] = torch.nan
    mask = flow_kernel_mask(flow, torch.zeros_like(flow))
    assert mask.shape == (1, 1, 3, 40)
    assert mask[0, 0, 2].tolist() == [True] * 35 + [False] * 5
    assert not mask[0, 0, 0, 20]
    assert not mask[0, 0, 1, 20]
    assert flow_kernel_mask(flow, -flow, exposure=0.5)[0, 0, 0, 20]
    assert torch.equal(flow_kernel_mask(flow.half(), flow.half()), flow_kernel_mask(flow, flow))


BAD = [
    ({"image": torch.rand(3, 8, 8)}, ShapeError, "batch of images"),
    ({"image": torch.rand(1, 3, 0, 8)}, ShapeError, "at least one pixel"),
    ({"image": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, ArgumentError, "divide 8-bit"),
    ({"flow_next": torch.rand(1, 3, 8, 8)}, ShapeError, "`flow_next` must be .1, 2, 8, 8."),
    ({"flow_prev": torch.rand(1, 2, 8, 9)}, ShapeError, "`flow_prev` must be"),
    ({"flow_prev": torch.rand(2, 8, 8)}, ShapeError, "`flow_prev` must be"),
    ({"flow_next": torch.zeros(1, 2, 8, 8, dtype=torch.int64)}, ArgumentError, "call .float"),
    ({"flow_next": torch.rand(1, 2, 8, 8, device="meta")}, ArgumentError, "on one device"),
    ({"exposure": 0.0}, ArgumentError, "`exposure` must be"),
    ({"exposure": -1.0}, ArgumentError, "`exposure` must be"),
    ({"exposure": float("nan")}, ArgumentError, "`exposure` must be"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
@pytest.mark.parametrize("model", MODELS)
def test_bad_input_is_named(model, change, error, message):
    arguments = {"image": torch.rand(1, 3, 8, 8)} | dict.fromkeys(("flow_next", "flow_prev"), torch.rand(1, 2, 8, 8))
    arguments |= change
    values = [arguments.pop(name) for name in ("image", "flow_next", "flow_prev")]
    with pytest.raises(error, match=message) as caught:
        MODELS[model](*values, **arguments)
    assert "\n" not in str(caught.value)


def test_a_backend_asked_for_by_name_works_or_raises(monkeypatch):
    image, flow = torch.rand(1, 3, 8, 8), torch.rand(1, 2, 8, 8)
    with pytest.raises(ArgumentError, match="`backend` must be one of"):
        flow_kernel_blur(image, flow, flow, backend="cuda")
    with pytest.raises(BackendError, match="works on CUDA tensors"):
        flow_kernel_blur(image, flow, flow, backend="triton")
    with pytest.raises(BackendError, match="works on CPU tensors"):
        choose("numba", torch.device("cuda"))
    monkeypatch.setattr("reblurkit.blur.backends.choice._installed", lambda package: False)
    with pytest.raises(BackendError, match=r"pip install 'reblurkit\[cpu\]'"):
        flow_line_blur(image, flow, flow, backend="numba")
    assert choose("auto", torch.device("cpu")) == choose("auto", torch.device("cuda")) == "torch"
    monkeypatch.setattr("reblurkit.blur.backends.choice._installed", lambda package: True)
    assert choose("auto", torch.device("cpu")) == "numba"
    assert choose("auto", torch.device("cuda")) == "triton"
    assert choose("auto", torch.device("mps")) == "torch"


def test_numba_is_installed_for_these_tests():
    assert importlib.util.find_spec("numba") is not None


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("model", [flow_kernel_blur, flow_line_blur])
def test_autocast_changes_no_number(model, backend):
    tensors = [torch.rand(1, 3, 9, 8), *(6 * torch.randn(2, 1, 2, 9, 8))]
    plain, cast = ([tensor.clone().requires_grad_() for tensor in tensors] for _ in range(2))
    expected = model(*plain, backend=backend)
    expected.sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        blurred = model(*cast, backend=backend)
        blurred.sum().backward()
    assert torch.equal(blurred, expected)
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(cast, plain, strict=True))


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_motion_that_rounds_to_the_limit_reaches_the_border(backend):
    image, flow = torch.rand(1, 1, 64, 1, requires_grad=True), torch.zeros(1, 2, 64, 1)
    flow[0, 1, 0] = 98304.0
    flow_line_blur(image, flow, flow, exposure=32768.0005 / 98304, backend=backend)[0, 0, 0, 0].backward()
    assert image.grad.flatten().argmax() == 63


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.78])
@pytest.mark.parametrize("channels", [1, 3])
def test_long_motions_lose_no_mass_in_single_precision(angle, channels):
    # Five million nodes fall on the border's pixels.
    image = torch.rand(1, channels, 32, 32, requires_grad=True)
    flow = 5000 * torch.tensor([math.cos(angle), math.sin(angle)]).view(1, 2, 1, 1).expand(1, 2, 32, 32)
    flow_line_blur(image, flow, -flow, backend="torch").sum().backward()
    assert image.grad.dtype == torch.float32
    assert image.grad.double().sum().item() == pytest.approx(channels * 32 * 32, rel=1e-5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("model", MODELS)
def test_an_image_that_is_not_finite_stays_within_reach(model, bad):
    reach = 4
    image = torch.rand(2, 2, 30, 29, dtype=torch.float64)
    flows = [reach * (2 * torch.rand(2, 2, 30, 29, dtype=torch.float64) - 1) for _ in range(2)]
    options = {"max_flow": reach} if model in TABLES else {}
    plain = [value.clone().requires_grad_() for value in (image, *flows)]
    image[0, 1, 14, 15] = bad
    broken = [value.clone().requires_grad_() for value in (image, *flows)]
    expected, blurred = MODELS[model](*plain, **options), MODELS[model](*broken, **options)
    assert not blurred[0, 1].isfinite().all()
    # One pixel more than the motion: the node after its end weighs 0 or more.
    far = torch.ones(2, 2, 30, 29, dtype=torch.bool)
    far[0, 1, 14 - reach - 1 : 14 + reach + 2, 15 - reach - 1 : 15 + reach + 2] = False
    assert torch.equal(blurred[far], expected[far])

    # The image's gradient asks for no image; that of the flows is spoilt at the pixels that look at the bad one.
    weight = torch.rand_like(image)
    kept = torch.autograd.grad(blurred, broken, weight)
    gradients = torch.autograd.grad(expected, plain, weight)
    assert torch.equal(kept[0], gradients[0])
    apart = far.all(dim=1, keepdim=True).expand(-1, 2, -1, -1)
    for one, other in zip(kept[1:], gradients[1:], strict=True):
        torch.testing.assert_close(one[apart], other[apart], rtol=1e-12, atol=1e-13)
