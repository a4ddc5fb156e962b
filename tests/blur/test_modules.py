"""Modules are their functions; both live with compilation, autocast, export of modules, and threads."""

from __future__ import annotations

import inspect
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from reblurkit import blur
from tests.blur.problems import problem, with_gradients

PAIRS = {
    blur.FlowKernelBlur: (blur.flow_kernel_blur, {"exposure": 0.6, "max_flow": 5, "backend": "torch"}),
    blur.FlowLineBlur: (blur.flow_line_blur, {"exposure": 0.6, "backend": "torch"}),
    blur.FlowWarpBlur: (blur.flow_warp_blur, {"exposure": 0.6, "samples": 3}),
}
MODELS = {"table": blur.flow_kernel_blur, "line": blur.flow_line_blur}


@pytest.mark.parametrize("module", PAIRS, ids=lambda module: module.__name__)
def test_a_module_is_its_function_for_every_argument(module):
    function, others = PAIRS[module]
    inputs, _ = problem(2, 3, 9, 8, 9.0)
    options = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    arguments = inspect.signature(module).parameters
    assert [(p.name, p.default) for p in options] == [(p.name, p.default) for p in arguments.values()]
    assert {p.name for p in options} == set(others)
    assert torch.equal(module()(*inputs), function(*inputs))
    for name, value in others.items():
        assert torch.equal(module(**{name: value})(*inputs), function(*inputs, **{name: value})), name
        if name != "backend":
            assert not torch.equal(function(*inputs, **{name: value}), function(*inputs)), name
        assert f"{name}={value!r}" in repr(module(**{name: value}))
    assert not list(module().parameters())


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("model", MODELS)
def test_compiles_without_a_graph_break(model, backend):
    inputs, grad = problem(1, 3, 12, 11, 6.0, dtype=torch.float32)

    def loss_inputs(image, flow_next, flow_prev):
        return MODELS[model](2 * image, flow_next, flow_prev, exposure=0.8, backend=backend).tanh()

    compiled = torch.compile(loss_inputs, fullgraph=True, backend="aot_eager")
    for one, other in zip(
        with_gradients(compiled, inputs, grad), with_gradients(loss_inputs, inputs, grad), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("model", MODELS)
def test_the_operator_keeps_torchs_rules(model):
    inputs = [value.detach() for value in problem(2, 3, 7, 5, 6.0)[0]]
    max_flow = 16 if model == "table" else None
    for backend in ("torch", "numba"):
        torch.library.opcheck(
            torch.ops.reblurkit.blur, (*inputs, 0.7, max_flow, backend, True), raise_exception=True
        )  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_compiles_where_both_flows_are_one_tensor(model):
    compiled = torch.compile(MODELS[model], fullgraph=True, backend="aot_eager")
    image, flow = torch.rand(1, 3, 6, 5), 3 * torch.randn(1, 2, 6, 5)
    results = []
    for blurred in (MODELS[model], compiled):
        leaf = flow.clone().requires_grad_()
        blurred(image, leaf, leaf).square().sum().backward()
        results.append(leaf.grad)
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("model", MODELS)
def test_autocast_takes_mixed_types(model):
    convolution = torch.nn.Conv2d(3, 3, 3, padding=1)
    flow = 3 * torch.randn(1, 2, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        image = convolution(torch.rand(1, 3, 9, 9))
        blurred = MODELS[model](image, flow, -flow)
    assert image.dtype == blurred.dtype == torch.bfloat16
    blurred.float().sum().backward()
    assert torch.isfinite(convolution.weight.grad).all()


def test_numba_may_be_called_from_several_threads():
    inputs, _ = problem(1, 3, 64, 64, 9.0, dtype=torch.float32)
    inputs = [value.detach() for value in inputs]
    expected = blur.flow_line_blur(*inputs, backend="numba")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: blur.flow_line_blur(*inputs, backend="numba"), range(16)))
    assert all(torch.equal(result, expected) for result in results)


def test_importing_the_models_imports_no_compiler():
    code = "import sys, reblurkit.blur; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numba", "triton.language", "llvmlite"} & set(modules)
