"""One forward pass for two losses: its gradients are those of two passes, bit for bit, whatever surrounds it."""

from __future__ import annotations

import copy
import warnings
import weakref
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from reblurkit.core.calls import call_frozen, call_routed, finest_scale
from reblurkit.models import ReblurNet
from tests.conftest import BatchNormNet


class Counting(ReblurNet):
    calls = 0

    def forward(self, image):
        self.calls += 1
        return super().forward(image)


class Checkpointed(ReblurNet):
    def forward(self, image):
        return checkpoint(self.layers, image - 0.5, use_reentrant=False) + 0.5


def compiled_inside(net):
    net.layers[1].compile(backend="aot_eager")
    return net


def two_calls(network, image):
    return call_frozen(network, image), network(image.detach())


def trained(call, network, around=nullcontext, calls=1):
    """Gradients of image and parameters, of losses that differ."""
    image = torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with around():
        one, other = call(network, image)
        loss = 0.7 * one.square().mean() + other.abs().mean()
    for _ in range(calls - 1):
        torch.autograd.grad(loss, [image, *network.parameters()], retain_graph=True)
    loss.backward()
    return [one, other, image.grad, *(parameter.grad for parameter in network.parameters())]


def assert_equal(results, expected):
    assert all(torch.equal(one, other) for one, other in zip(results, expected, strict=True))
    assert all(value.abs().sum() > 0 for value in results)


@pytest.mark.parametrize(
    "options",
    [{}, {"calls": 2}, {"around": torch.autograd.graph.save_on_cpu}, {"around": lambda: torch.autocast("cpu")}],
    ids=["plain", "backward twice", "activations offloaded", "autocast"],
)
@pytest.mark.parametrize("network_class", [ReblurNet, Checkpointed])
def test_the_gradients_are_those_of_two_calls(network_class, options):
    network = network_class(width=5)
    around = {"around": options["around"]} if "around" in options else {}
    assert_equal(
        trained(call_routed, copy.deepcopy(network), **options), trained(two_calls, copy.deepcopy(network), **around)
    )


def test_the_network_runs_once_and_twice_where_it_is_compiled():
    network = Counting(width=5)
    trained(call_routed, network)
    assert network.calls == 1
    for compiled in (compiled_inside(Counting(width=5)), torch.compile(Counting(width=5), backend="aot_eager")):
        plain = ReblurNet(width=5)
        plain.load_state_dict(dict(zip(plain.state_dict(), compiled.state_dict().values(), strict=True)))
        assert_equal(trained(call_routed, compiled), trained(two_calls, plain))


def test_frozen_parts_and_buffers():
    network = BatchNormNet()
    network.body[0].weight.requires_grad_(False)
    expected = copy.deepcopy(network)
    image = torch.rand(2, 3, 6, 6)
    for call, net in ((call_routed, network), (two_calls, expected)):
        one, other = call(net, image)  # an image without a gradient
        (one.mean() + other.mean()).backward()
    assert network.body[0].weight.grad is None
    torch.testing.assert_close(network.body[1].bias.grad, expected.body[1].bias.grad, rtol=0, atol=0)
    assert all(torch.equal(one, other) for one, other in zip(network.buffers(), expected.buffers(), strict=True))


def test_memory_is_free_after_the_backward_pass_although_the_loss_is_still_there():
    kept = []

    class Remembered(nn.Conv2d):
        def forward(self, image):
            output = super().forward(image)
            kept.append(weakref.ref(output))
            return output

    one, other = call_routed(Remembered(3, 3, 1), torch.rand(1, 3, 4, 4, requires_grad=True))
    loss = one.sum() + other.sum()
    assert kept[0]() is not None
    loss.backward()
    assert kept[0]() is None


def test_several_images_of_full_size_are_warned_of():
    full, half = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 4, 4)
    for output in ([full, half, full + 1], (full, full + 1)):
        with pytest.warns(UserWarning, match=r"of the \d images .* several have full size; the last is used"):
            assert torch.equal(finest_scale(output), full + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert finest_scale([half, full]) is full
        assert finest_scale(full) is full
