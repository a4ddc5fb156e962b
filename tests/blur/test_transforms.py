"""torch.func and higher derivatives: right, or refused; never silently 0."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, jacrev, jvp, vjp, vmap

from reblurkit.errors import BackendError
from tests.blur.problems import MODELS, problem

BACKENDS = ["torch", "numba"]
pytestmark = [pytest.mark.parametrize("model", MODELS), pytest.mark.parametrize("backend", BACKENDS)]


def pair(model, backend):
    """The blur and its definition."""
    blur, definition = MODELS[model]
    return (lambda *inputs: blur(*inputs, backend=backend)), definition


def inputs_of(*shape):
    return [value.detach() for value in problem(*shape)[0]]


def same(results, expected):
    assert len(results) == len(expected)
    for one, other in zip(results, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
        assert other.abs().sum() > 0


def test_gradients_of_torch_func(model, backend):
    blur, definition = pair(model, backend)
    inputs = inputs_of(1, 2, 4, 5, 4.0)
    weight = torch.rand_like(inputs[0])

    def loss(function):
        return lambda *inputs: (weight * function(*inputs)).sum()

    for numbers in [(0,), (1, 2), (0, 1, 2)]:
        same(grad(loss(blur), numbers)(*inputs), grad(loss(definition), numbers)(*inputs))
    same(vjp(blur, *inputs)[1](weight), vjp(definition, *inputs)[1](weight))
    same(jacrev(blur, (0, 1))(*inputs), jacrev(definition, (0, 1))(*inputs))


def test_vmap_is_a_loop(model, backend):
    blur, definition = pair(model, backend)
    images, next_, prev = (
        torch.stack(values) for values in zip(*[inputs_of(1, 2, 4, 5, 4.0) for _ in range(3)], strict=True)
    )
    flow = prev[0]
    looped = torch.stack([definition(*values, flow) for values in zip(images, next_, strict=True)])
    same([vmap(lambda image, next_: blur(image, next_, flow))(images, next_)], [looped])
    moved = vmap(lambda image, next_: blur(image, next_, flow), in_dims=(-1, 0))(images.movedim(0, -1), next_)
    same([moved], [looped])

    # With gradients in every order of nesting.
    def each(image, next_):
        return (weight * blur(image, next_, flow)).sum()

    weight = torch.rand_like(images[0])
    leaves = [images.clone().requires_grad_(), next_.clone().requires_grad_()]
    total = sum((weight * definition(*values, flow)).sum() for values in zip(*leaves, strict=True))
    expected = torch.autograd.grad(total, leaves)
    same(torch.autograd.grad(vmap(each)(*leaves).sum(), leaves), expected)
    same(vmap(grad(each, (0, 1)))(images, next_), expected)
    same(grad(lambda *inputs: vmap(each)(*inputs).sum(), (0, 1))(images, next_), expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, where it loads forward mode
@pytest.mark.parametrize("number", [0, 1])
def test_forward_mode_is_refused_not_zero(model, backend, number):
    blur, _ = pair(model, backend)
    inputs = inputs_of(1, 1, 4, 5, 4.0)

    def of_one(value):
        return blur(*inputs[:number], value, *inputs[number + 1 :])

    with pytest.raises(NotImplementedError, match="forward mode"):
        jvp(of_one, (inputs[number],), (torch.ones_like(inputs[number]),))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward mode"):
        of_one(forward_ad.make_dual(inputs[number], torch.ones_like(inputs[number])))


def test_second_derivatives_are_refused_not_zero(model, backend):
    blur, definition = pair(model, backend)
    inputs = inputs_of(1, 1, 4, 5, 4.0)
    inputs[1][..., 0, 0] = torch.tensor([0.4, 0.3])  # no kink there
    inputs = [value.requires_grad_() for value in inputs]
    upstream = torch.randn_like(inputs[0], requires_grad=True)
    assert torch.autograd.gradgradcheck(definition, inputs), "the way out that the message names"
    for first in inputs:
        (gradient,) = torch.autograd.grad(blur(*inputs), first, upstream, create_graph=True)
        for second in (*inputs, upstream):
            with pytest.raises(BackendError, match=r"no second derivatives; .* reblurkit\.blur\.reference"):
                torch.autograd.grad(gradient.square().sum(), second, retain_graph=True)
    plain = [value.detach() for value in inputs]
    for number in range(3):
        twice = grad(
            lambda *inputs, n=number: grad(lambda *x: blur(*x).square().sum(), n)(*inputs).square().sum(), number
        )
        with pytest.raises(BackendError, match="no second derivatives"):
            twice(*plain)
