"""Every backend equals the dense definition: output and all gradients."""

from __future__ import annotations

import pytest
import torch

from tests.blur.problems import MODELS, SHAPES, assert_same, poison_fresh_buffers, problem, with_gradients

BACKENDS = ["torch", "numba"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("whole", [False, True], ids=["fractional", "whole"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_definition_in_double_precision(model, backend, shape, whole):
    blur, definition = MODELS[model]
    inputs, grad = problem(*shape, whole=whole)
    expected = with_gradients(definition, inputs, grad)
    assert_same(with_gradients(blur, inputs, grad, backend=backend), expected, 1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("exposure", [0.37, 1.6])
def test_exposure_scales_the_motion_and_its_gradient(model, backend, exposure):
    blur, definition = MODELS[model]
    inputs, grad = problem(1, 3, 12, 10, 14.0)
    expected = with_gradients(definition, inputs, grad, exposure=exposure)
    assert_same(with_gradients(blur, inputs, grad, exposure=exposure, backend=backend), expected, 1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("max_flow", [1, 4, 5, 32])
def test_other_ranges_of_the_table(backend, max_flow):
    blur, definition = MODELS["table"]
    inputs, grad = problem(1, 2, 9, 11, max_flow + 2.0)
    expected = with_gradients(definition, inputs, grad, max_flow=max_flow)
    assert_same(with_gradients(blur, inputs, grad, max_flow=max_flow, backend=backend), expected, 1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", MODELS)
def test_one_motion_for_all_pixels(model, backend):
    # All pixels share a cell, which must not fit into one chunk of work.
    blur, definition = MODELS[model]
    image, grad = torch.rand(1, 1, 80, 90, dtype=torch.float64), torch.randn(1, 1, 80, 90, dtype=torch.float64)
    motion = torch.tensor([3.3, -2.6], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 80, 90)
    inputs = [image.requires_grad_(), motion.clone().requires_grad_(), (-motion).clone().requires_grad_()]
    keywords = {"max_flow": 4} if model == "table" else {}
    expected = with_gradients(definition, inputs, grad, **keywords)
    assert_same(with_gradients(blur, inputs, grad, backend=backend, **keywords), expected, 1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", MODELS)
def test_strided_inputs_and_upstream_gradients(model, backend):
    blur, definition = MODELS[model]
    image = torch.rand(2, 13, 10, 3, dtype=torch.float64).permute(0, 3, 1, 2).requires_grad_()
    flow = (8 * torch.randn(1, 2, 26, 10, dtype=torch.float64))[:, :, ::2].expand(2, 2, 13, 10)
    inputs = [image, flow.clone().requires_grad_(), flow.transpose(0, 1).flip(-1).requires_grad_()]
    grad = torch.randn(2, 3, 10, 13, dtype=torch.float64).transpose(2, 3)
    expected = with_gradients(definition, inputs, grad)
    assert_same(with_gradients(blur, inputs, grad, backend=backend), expected, 1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_lower_precision_is_computed_in_single(model, backend, dtype):
    blur, definition = MODELS[model]
    inputs, grad = problem(1, 3, 14, 15, 12.0, dtype=dtype)
    doubled = [value.detach().double().requires_grad_() for value in inputs]
    expected = with_gradients(definition, doubled, grad)
    results = with_gradients(blur, inputs, grad, backend=backend)
    assert all(result.dtype == dtype for result in results)
    # Computed exactly, then rounded once to the type: half a unit in the last place of the largest value.
    assert_same(results, expected, max(2e-6, torch.finfo(dtype).eps))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", MODELS)
def test_types_may_differ(model, backend):
    blur, definition = MODELS[model]
    inputs, grad = problem(1, 3, 8, 9, 6.0)
    mixed = [value.detach().to(dtype).requires_grad_() for value, dtype in zip(
        inputs, (torch.float16, torch.float32, torch.bfloat16), strict=True)]  # fmt: skip
    results = with_gradients(blur, mixed, grad, backend=backend)
    assert [result.dtype for result in results] == [torch.float16, torch.float16, torch.float32, torch.bfloat16]
    doubled = [value.detach().double().requires_grad_() for value in mixed]
    assert_same(results, with_gradients(definition, doubled, grad), 2e-2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("wanted", [[0], [1], [2], [0, 1], [1, 2]], ids=str)
def test_only_the_gradients_asked_for(model, backend, wanted):
    blur, _ = MODELS[model]
    inputs, grad = problem(1, 3, 8, 9, 6.0)
    full = with_gradients(blur, inputs, grad, backend=backend)
    partial = [value.detach().requires_grad_(number in wanted) for number, value in enumerate(inputs)]
    blur(*partial, backend=backend).backward(grad)
    for number, value in enumerate(partial):
        assert (value.grad is not None) == (number in wanted)
        if value.grad is not None:
            torch.testing.assert_close(value.grad, full[number + 1])


@pytest.mark.parametrize("model", MODELS)
def test_numba_adds_up_the_image_gradient_in_one_order(model):
    blur, _ = MODELS[model]
    inputs, grad = problem(2, 3, 70, 41, 14.0, dtype=torch.float32)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 2, 1):
        torch.set_num_threads(count)
        results.append(with_gradients(blur, inputs, grad, backend="numba"))
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", MODELS)
def test_fresh_buffers_are_written_in_full(model, backend, monkeypatch):
    """Whatever uninitialised memory holds, nothing of it comes through."""
    blur, definition = MODELS[model]
    inputs, grad = problem(1, 5, 9, 14, 20.0)
    expected = with_gradients(definition, inputs, grad)
    poison_fresh_buffers(monkeypatch)
    assert_same(with_gradients(blur, inputs, grad, backend=backend), expected, 1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", MODELS)
def test_gradcheck_between_whole_flows(model, backend):
    blur, _ = MODELS[model]
    image = torch.rand(1, 2, 4, 5, dtype=torch.float64)
    # Away from the kinks: whole components, whole positions on the shorter axis, diagonals.
    flows = [torch.tensor(value, dtype=torch.float64).view(1, 2, 1, 1) for value in ((3.37, 1.21), (-2.43, -4.79))]
    wiggle = 0.02 * torch.rand(1, 2, 4, 5, dtype=torch.float64)
    inputs = [image, *(flow + wiggle for flow in flows)]
    assert torch.autograd.gradcheck(
        lambda *values: blur(*values, exposure=0.9, backend=backend), [value.requires_grad_() for value in inputs]
    )
