from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.losses import (
    ReblurLoss,
    blur_reconstruction_loss,
    reblur_loss,
    self_reblur_loss,
    sharpness_preservation_loss,
)
from reblurkit.models import ReblurNet
from tests.conftest import BatchNormNet, DropoutNet, MultiScaleNet, PlainNet


@pytest.fixture
def images():
    return torch.rand(3, 2, 3, 12, 10, dtype=torch.float64)


def nets(network_class=PlainNet):
    return network_class().double(), ReblurNet(blocks=2, width=5).double()


def gradients(module):
    return [None if p.grad is None else p.grad.clone() for p in module.parameters()]


def test_values_are_the_formulas(images):
    _, reblur_net = nets()
    deblurred, sharp, blurry = images
    assert blur_reconstruction_loss(reblur_net, deblurred, blurry) == (reblur_net(deblurred) - blurry).abs().mean()
    assert sharpness_preservation_loss(reblur_net, sharp) == (reblur_net(sharp) - sharp).abs().mean()
    assert reblur_loss(reblur_net, deblurred, sharp) == (reblur_net(deblurred) - reblur_net(sharp)).abs().mean()
    assert self_reblur_loss(reblur_net, deblurred) == (reblur_net(deblurred) - deblurred).abs().mean()


def routed(loss, images):
    """The gradients that a loss leaves on the deblurred images and on the reblurring network."""
    _, reblur_net = nets()
    deblurred, sharp, blurry = images
    others = {blur_reconstruction_loss: [blurry], reblur_loss: [sharp]}
    loss(reblur_net, deblurred.requires_grad_(), *others.get(loss, [])).backward()
    return deblurred.grad, gradients(reblur_net)


@pytest.mark.parametrize("loss", [blur_reconstruction_loss, sharpness_preservation_loss])
def test_losses_of_the_reblurring_network_hold_the_images_fixed(images, loss):
    of_images, of_network = routed(loss, images)
    assert of_images is None
    assert all(grad is not None for grad in of_network)


@pytest.mark.parametrize("loss", [reblur_loss, self_reblur_loss])
def test_losses_of_the_deblurring_network_hold_the_reblurring_network_fixed(images, loss):
    of_images, of_network = routed(loss, images)
    assert of_images.abs().sum() > 0
    assert all(grad is None for grad in of_network)


def test_self_reblur_loss_has_no_gradient_through_its_target(images):
    _, reblur_net = nets()
    deblurred, target = images[0].requires_grad_(), images[0].detach().clone()
    self_reblur_loss(reblur_net, deblurred).backward()
    expected = torch.autograd.grad((reblur_net(deblurred) - target).abs().mean(), deblurred)[0]
    torch.testing.assert_close(deblurred.grad, expected, rtol=0, atol=0)


def separate_optimisations(network, reblur_net, images, weight, sharpness):
    """The paper's two steps, each with a backward pass of its own."""
    blurry, sharp, _ = images
    deblurred = network(blurry)
    with torch.no_grad():
        target = reblur_net(sharp)
    d_loss = F.l1_loss(deblurred, sharp) + weight * F.l1_loss(reblur_net(deblurred), target)
    d_grads = torch.autograd.grad(d_loss, list(network.parameters()))

    r_loss = F.l1_loss(reblur_net(deblurred.detach()), blurry)
    if sharpness is not None:
        with torch.no_grad():
            preserved = copy.deepcopy(network)(sharp) if sharpness == "pseudo" else sharp
        r_loss = r_loss + F.l1_loss(reblur_net(preserved), preserved)
    r_grads = torch.autograd.grad(r_loss, list(reblur_net.parameters()))
    return d_loss, d_grads, r_grads


@pytest.mark.parametrize("sharpness", ["pseudo", "real", None])
@pytest.mark.parametrize("weight", [1.0, 0.3, 0.0])
def test_one_backward_gives_the_gradients_of_two_separate_optimisations(images, weight, sharpness):
    network, reblur_net = nets()
    d_loss, d_grads, r_grads = separate_optimisations(network, reblur_net, images, weight, sharpness)
    blurry, sharp, _ = images
    criterion = ReblurLoss(network, reblur_net, weight=weight, sharpness=sharpness)
    deblurred = network(blurry)
    loss = F.l1_loss(deblurred, sharp) + criterion(deblurred, sharp, blurry)
    loss.backward()
    torch.testing.assert_close(loss, d_loss, rtol=0, atol=1e-15)
    torch.testing.assert_close(gradients(network), list(d_grads), rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients(reblur_net), list(r_grads), rtol=0, atol=1e-12)


@pytest.mark.parametrize("network_class", [BatchNormNet, DropoutNet])
def test_the_extra_pass_leaves_buffers_and_random_state_alone(images, network_class):
    network, reblur_net = nets(network_class)
    blurry, sharp, _ = images
    deblurred = network(blurry)
    buffers = copy.deepcopy(dict(network.named_buffers()))
    state = torch.get_rng_state()
    ReblurLoss(network, reblur_net)(deblurred, sharp, blurry).backward()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in network.named_buffers())


def test_a_multi_scale_network_is_judged_at_full_size(images):
    network, reblur_net = nets(MultiScaleNet)
    blurry, sharp, _ = images
    outputs = network(blurry)
    criterion = ReblurLoss(network, reblur_net)
    assert criterion(outputs, sharp, blurry) == criterion(outputs[-1], sharp, blurry)


def test_without_gradients_only_the_deblurring_term_is_evaluated(images):
    network, reblur_net = nets()
    blurry, sharp, _ = images
    with torch.no_grad():
        value = ReblurLoss(network, reblur_net, weight=2.0)(blurry, sharp, blurry)
    assert value == 2 * (reblur_net(blurry) - reblur_net(sharp)).abs().mean()


def test_a_detached_image_is_refused_unless_the_network_is_frozen(images):
    network, reblur_net = nets()
    blurry, sharp, _ = images
    criterion = ReblurLoss(network, reblur_net)
    with pytest.raises(ArgumentError, match="has been detached"):
        criterion(network(blurry).detach(), sharp, blurry)
    network.requires_grad_(False)
    criterion(network(blurry), sharp, blurry).backward()
    assert all(grad is not None for grad in gradients(reblur_net))


def test_networks_that_share_parameters_are_refused(images):
    network, _ = nets()
    with pytest.raises(ArgumentError, match="must not share parameters"):
        ReblurLoss(network, network)


def test_wrong_input_says_what_is_wrong(images):
    network, reblur_net = nets()
    blurry, sharp, _ = images
    criterion = ReblurLoss(network, reblur_net)
    with pytest.raises(ShapeError, match=r"same shape, but are \(2, 3, 12, 10\) and \(2, 3, 12, 9\)"):
        criterion(network(blurry), sharp[..., 1:], blurry)
    with pytest.raises(ShapeError, match="batch of images"):
        criterion(network(blurry)[0], sharp, blurry)
    with pytest.raises(ArgumentError, match="divide 8-bit images by 255"):
        criterion((blurry * 255).byte(), sharp, blurry)
    with pytest.raises(ArgumentError, match="at least 0 and finite, but is -1"):
        ReblurLoss(network, reblur_net, weight=-1)
    with pytest.raises(ArgumentError, match="'pseudo', 'real', None"):
        ReblurLoss(network, reblur_net, sharpness="fake")


@pytest.mark.parametrize("width", [1, 4])
def test_a_reblurring_network_that_changes_the_shape_is_refused(images, width):
    deblurred, _, blurry = images
    reblur_net = torch.nn.Conv2d(3, width, 1).double()  # one channel would be broadcast
    with pytest.raises(ShapeError, match="the reblurring network must keep the shape"):
        blur_reconstruction_loss(reblur_net, deblurred, blurry)
    with pytest.raises(ShapeError, match="the reblurring network must keep the shape"):
        self_reblur_loss(reblur_net, deblurred)
