"""The Triton kernels, run by Triton's interpreter on the CPU, equal the dense definition.

Triton reads the variable when the kernels are imported: hence a process of their own, ``nox -s interpret``.
"""

from __future__ import annotations

import os

import pytest
import torch

from reblurkit.blur import flow_kernel_blur
from tests.blur.problems import MODELS, assert_same, poison_fresh_buffers, problem, with_gradients

pytestmark = [
    pytest.mark.interpret,
    pytest.mark.skipif(
        os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1: run `nox -s interpret`"
    ),
]

# More than one tile in both directions, one pixel, one row, two groups of channels; flow beyond the table.
SHAPES = [(2, 3, 9, 17, 18.0), (1, 1, 1, 1, 3.0), (1, 2, 1, 13, 5.0), (1, 5, 5, 6, 20.0)]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Uninitialised memory holds NaN."""
    poison_fresh_buffers(monkeypatch)


@pytest.fixture(params=[False, True], ids=["atomic", "deterministic"])
def deterministic(request):
    torch.use_deterministic_algorithms(request.param)
    yield request.param
    torch.use_deterministic_algorithms(False)


def single_and_expected(model, inputs, grad, **keywords):
    single = [value.detach().float().requires_grad_() for value in inputs]
    doubled = [value.detach().double().requires_grad_() for value in single]
    return single, with_gradients(MODELS[model][1], doubled, grad.float(), **keywords)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_definition_in_single_precision(model, shape, deterministic):
    inputs, grad = problem(*shape)
    single, expected = single_and_expected(model, inputs, grad)
    assert_same(with_gradients(MODELS[model][0], single, grad.float(), backend="triton"), expected, 2e-6)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("whole", [False, True], ids=["fractional", "whole"])
def test_equals_the_definition_in_double_precision(model, whole):
    blur, definition = MODELS[model]
    inputs, grad = problem(1, 3, 7, 6, 7.0, whole=whole)
    expected = with_gradients(definition, inputs, grad, exposure=0.7)
    assert_same(with_gradients(blur, inputs, grad, exposure=0.7, backend="triton"), expected, 1e-13)


@pytest.mark.parametrize("model", MODELS)
def test_strided_inputs_and_upstream_gradients(model):
    image = torch.rand(1, 6, 5, 3).permute(0, 3, 1, 2)
    flow = (4 * torch.randn(1, 2, 12, 5))[:, :, ::2]
    inputs = [image, flow, flow.flip(-1).transpose(2, 3).contiguous().transpose(2, 3)]
    grad = torch.randn(1, 3, 5, 6).transpose(2, 3)
    inputs = [value.detach().requires_grad_() for value in inputs]
    _, expected = single_and_expected(model, inputs, grad)
    assert_same(with_gradients(MODELS[model][0], inputs, grad, backend="triton"), expected, 2e-6)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_single(model, dtype):
    inputs, grad = problem(1, 3, 6, 5, 5.0, dtype=dtype)
    _, expected = single_and_expected(model, inputs, grad)
    results = with_gradients(MODELS[model][0], inputs, grad, backend="triton")
    assert all(result.dtype == dtype for result in results)
    assert_same(results, expected, torch.finfo(dtype).eps)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_only_the_gradients_asked_for(model, wanted):
    inputs, grad = problem(1, 3, 5, 6, 4.0, dtype=torch.float32)
    _, expected = single_and_expected(model, inputs, grad)
    partial = [value.detach().requires_grad_(number == wanted) for number, value in enumerate(inputs)]
    MODELS[model][0](*partial, backend="triton").backward(grad)
    torch.testing.assert_close(partial[wanted].grad.double(), expected[wanted + 1], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_flow_that_is_not_finite_makes_nan_of_its_pixel_only(model, bad, deterministic):
    inputs, grad = problem(1, 3, 4, 5, 4.0, dtype=torch.float32)
    with torch.no_grad():
        inputs[1][0, 1, 2, 3] = bad
    grad[..., 2, 3] = torch.nan
    _, expected = single_and_expected(model, inputs, grad)
    results = with_gradients(MODELS[model][0], inputs, grad, backend="triton")
    assert torch.equal(results[0].isnan(), expected[0].isnan())
    assert results[0][..., 2, 3].isnan().all()
    assert_same([results[0].nan_to_num(), *results[1:]], [expected[0].nan_to_num(), *expected[1:]], 2e-6)


def test_the_tables_gradient_ends_at_its_range():
    inputs, grad = problem(1, 1, 4, 4, 3.0, dtype=torch.float32)
    with torch.no_grad():
        inputs[1][0, 0, 1] = torch.tensor([3.9, 4.0, -4.0, -4.1])
    results = with_gradients(flow_kernel_blur, inputs, grad, max_flow=4, backend="triton")
    assert (results[2][0, 0, 1] != 0).tolist() == [True, False, False, False]


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # NumPy's word for what a GPU does silently
def test_gradients_that_are_not_finite_show_in_the_deterministic_sum():
    inputs, grad = problem(1, 1, 3, 3, 2.0, dtype=torch.float32)
    grad[..., 1, 1] = torch.inf
    torch.use_deterministic_algorithms(True)
    try:
        results = with_gradients(flow_kernel_blur, inputs, grad, backend="triton")
    finally:
        torch.use_deterministic_algorithms(False)
    assert results[1].isnan().all()


@pytest.mark.parametrize("model", MODELS)
def test_vmap_of_gradients(model):
    # Nothing is kept for the backward pass: vmap meets an empty tensor.
    blur, definition = MODELS[model]
    images, flows = torch.rand(2, 1, 3, 4, 5, dtype=torch.float64), 4 * torch.randn(2, 1, 2, 4, 5, dtype=torch.float64)
    weight = torch.rand_like(images[0])

    def loss(image, flow):
        return (weight * blur(image, flow, -flow, backend="triton")).sum()

    leaves = [images.clone().requires_grad_(), flows.clone().requires_grad_()]
    total = sum((weight * definition(image, flow, -flow)).sum() for image, flow in zip(*leaves, strict=True))
    expected = torch.autograd.grad(total, leaves)
    for results in (
        torch.func.vmap(torch.func.grad(loss, (0, 1)))(images, flows),
        torch.autograd.grad(torch.func.vmap(loss)(*leaves).sum(), leaves),
    ):
        for one, other in zip(results, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
