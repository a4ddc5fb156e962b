"""The Triton kernels on a real GPU."""

from __future__ import annotations

import pytest
import torch

from tests.blur.problems import MODELS, SHAPES, assert_same, problem, with_gradients

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def on_gpu(inputs):
    return [value.detach().cuda().requires_grad_() for value in inputs]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 3, 66, 70, 20.0)], ids=str)
@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_equals_the_definition_on_the_cpu(model, shape, backend):
    blur, definition = MODELS[model]
    inputs, grad = problem(*shape, dtype=torch.float32)
    expected = with_gradients(definition, [value.detach().double().requires_grad_() for value in inputs], grad)
    results = with_gradients(blur, on_gpu(inputs), grad.cuda(), backend=backend)
    assert_same([result.cpu() for result in results], expected, 2e-6)


@pytest.mark.parametrize("model", MODELS)
def test_equals_the_definition_in_double_precision(model):
    blur, definition = MODELS[model]
    inputs, grad = problem(2, 3, 18, 21, 18.0)
    expected = with_gradients(definition, inputs, grad)
    results = with_gradients(blur, on_gpu(inputs), grad.cuda(), backend="triton")
    assert_same([result.cpu() for result in results], expected, 1e-13)


@pytest.mark.parametrize("model", MODELS)
def test_the_deterministic_path_repeats_to_the_last_bit(model):
    blur, _ = MODELS[model]
    inputs, grad = problem(2, 3, 130, 140, 14.0, dtype=torch.float32)
    inputs, grad = on_gpu(inputs), grad.cuda()
    torch.use_deterministic_algorithms(True)
    try:
        first, *others = [with_gradients(blur, inputs, grad, backend="triton") for _ in range(5)]
    finally:
        torch.use_deterministic_algorithms(False)
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(first, other, strict=True))
    assert_same(with_gradients(blur, inputs, grad, backend="triton"), first, 2e-6)


@pytest.mark.parametrize("model", MODELS)
def test_compiles_without_a_graph_break(model):
    inputs, grad = problem(1, 3, 33, 34, 6.0, dtype=torch.float32)
    inputs, grad = on_gpu(inputs), grad.cuda()

    def function(*values):
        return (2 * MODELS[model][0](*values)).tanh()

    compiled = torch.compile(function, fullgraph=True)
    assert_same(with_gradients(compiled, inputs, grad), with_gradients(function, inputs, grad), 2e-6)


@pytest.mark.parametrize("model", MODELS)
def test_autocast_takes_mixed_types(model):
    convolution = torch.nn.Conv2d(3, 3, 3, padding=1).cuda()
    flow = 3 * torch.randn(1, 2, 9, 9, device="cuda")
    with torch.autocast("cuda", torch.float16):
        blurred = MODELS[model][0](convolution(torch.rand(1, 3, 9, 9, device="cuda")), flow, -flow)
    assert blurred.dtype == torch.float16
    blurred.float().sum().backward()
    assert torch.isfinite(convolution.weight.grad).all()


def test_no_offset_overflows_32_bits():
    # 4 x 4 x 12000 x 12000 numbers are 2.3e9: offsets of the batch need 64 bits.
    blur, _ = MODELS["line"]
    height = width = 12000
    if torch.cuda.mem_get_info()[0] < 40e9:
        pytest.skip("needs 40 GB of free memory")
    image = torch.rand(1, 1, height, width, device="cuda").expand(4, 4, -1, -1)
    flow = torch.full((1, 2, 1, 1), 1.5, device="cuda").expand(4, 2, height, width)
    blurred = blur(image, flow, -flow)
    patch = (slice(3, 4), slice(3, 4), slice(-40, None), slice(-40, None))
    expected = blur(image[patch], flow[3:4, :, -40:, -40:], -flow[3:4, :, -40:, -40:])
    torch.testing.assert_close(blurred[patch][..., 4:, 4:], expected[..., 4:, 4:])
