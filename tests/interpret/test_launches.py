"""What the Triton backend asks of torch around its kernels, so that a CUDA graph can hold it."""

from __future__ import annotations

import os

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from reblurkit.blur.backends.choice import Flows
from tests.blur.problems import MODELS, problem

pytestmark = [
    pytest.mark.interpret,
    pytest.mark.skipif(
        os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1: run `nox -s interpret`"
    ),
]

# What makes a tensor from numbers of the host, or waits for numbers of the device.
HOST = {"lift_fresh", "scalar_tensor", "_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "_to_copy"}


class Operators(TorchDispatchMode):
    """Notes the names of all operators."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket._qualified_op_name.split("::")[1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("deterministic", [False, True], ids=["atomic", "deterministic"])
def test_no_tensor_comes_from_the_host_and_none_is_waited_for(model, deterministic, monkeypatch):
    from reblurkit.blur.backends.triton import host
    from reblurkit.blur.backends.triton.launch import Launcher

    launches = []

    def launch(launcher, *_):
        launches.append(launcher.kernel.fn.__name__)

    inputs, grad = problem(1, 3, 6, 7, 3.0, dtype=torch.float32)
    image, flow_next, flow_prev = (value.detach() for value in inputs)
    max_flow = 16 if model == "table" else None
    host._table(max_flow, torch.float32, image.device)  # once for a device
    flows = Flows(flow_next, flow_prev, 0.7, max_flow)
    monkeypatch.setattr(Launcher, "__call__", launch)
    torch.use_deterministic_algorithms(deterministic)
    try:
        with Operators() as forward:
            _, saved = host.forward(image, flows, True)
        with Operators() as backward:
            host.backward(grad, image, flows, saved, True, True)
    finally:
        torch.use_deterministic_algorithms(False)
    assert launches == ["layout_kernel", "forward_kernel", "backward_kernel"]
    assert set(forward.names) <= {"new_empty", "empty_like", "empty"}, "nothing but room for results"
    allowed = HOST - ({"_to_copy"} if deterministic else set())  # to double precision, on the device
    assert not allowed & set(backward.names)
    if not deterministic:
        assert len(backward.names) <= 5, backward.names


def test_kernels_are_specialised_on_types_only():
    from reblurkit.blur.backends.triton import kernels

    for kernel in (kernels.layout_kernel, kernels.forward_kernel, kernels.backward_kernel):
        names = set(kernel.arg_names) - set(kernels.SIZES) - set(kernels.OTHERS)
        constants = {name for name in names if name.isupper()}
        # These are allocated by the package, and hence aligned; a launch looks at no value.
        assert names - constants <= {"rows", "d_image", "cells", "coefficients", "unit"}
