"""Adversarial losses against values worked out by hand, and their routing against two separate optimisations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.losses import AdversarialLoss, gradient_penalty
from reblurkit.losses.adversarial import routed_adversarial_loss
from reblurkit.models import PatchGAN
from tests.conftest import BatchNormNet, MultiScaleNet, PlainNet

REAL, FAKE = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 3.0])


def log_sigmoid(value):
    return math.log(1 / (1 + math.exp(-value)))


BY_HAND = {
    # kind: (discriminator, generator)
    "vanilla": (
        -(log_sigmoid(2) + log_sigmoid(0)) / 2 - (log_sigmoid(1) + log_sigmoid(-3)) / 2,
        -(log_sigmoid(-1) + log_sigmoid(3)) / 2,
    ),
    "hinge": ((0 + 1) / 2 + (0 + 4) / 2, -(-1 + 3) / 2),
    "lsgan": ((1 + 1) / 2 + (1 + 9) / 2, (4 + 4) / 2),
    "wgan": ((-1 + 3) / 2 - (2 + 0) / 2, -(-1 + 3) / 2),
}


@pytest.mark.parametrize("kind", BY_HAND)
def test_values_worked_out_by_hand(kind):
    loss = AdversarialLoss(kind)
    discriminator, generator = BY_HAND[kind]
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(discriminator, abs=1e-6)
    assert loss.generator(FAKE).item() == pytest.approx(generator, abs=1e-6)


@pytest.mark.parametrize("kind", BY_HAND)
def test_scales_count_alike_whatever_their_size(kind):
    loss = AdversarialLoss(kind)
    real, fake = ([torch.randn(2, 1, side, side) for side in (2, 5)] for _ in range(2))
    means = [loss.discriminator(*pair) for pair in zip(real, fake, strict=True)]
    torch.testing.assert_close(loss.discriminator(real, fake), sum(means) / 2)
    torch.testing.assert_close(loss.generator(fake), (loss.generator(fake[0]) + loss.generator(fake[1])) / 2)


def test_large_scores_stay_finite():
    loss, far = AdversarialLoss("vanilla"), torch.tensor([1e4])
    assert loss.generator(-far) == 1e4
    assert loss.discriminator(-far, far) == 2e4


def test_an_unknown_kind():
    with pytest.raises(ArgumentError, match="vanilla, hinge, lsgan, wgan, but is 'rgan'"):
        AdversarialLoss("rgan")


# --- gradient penalty


class Linear(nn.Module):
    """Scores w . x, so the gradient is w everywhere; as two scores, or as a list of maps."""

    def __init__(self, norm, shape=(3, 4, 5), as_list=False):
        super().__init__()
        weight = torch.randn(shape, dtype=torch.float64)
        self.weight = nn.Parameter(weight / weight.norm() * norm)
        self.as_list = as_list

    def forward(self, image):
        halves = [(self.weight * image).flatten(1)[:, start::2].sum(1) for start in (0, 1)]
        return halves if self.as_list else torch.stack(halves, 1)


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("norm", [0.25, 1.0, 3.0])
def test_penalty_of_a_linear_discriminator(batch, norm, as_list):
    discriminator = Linear(norm, as_list=as_list)
    real, fake = torch.rand(2, batch, 3, 4, 5, dtype=torch.float64)
    penalty = gradient_penalty(discriminator, real, fake)
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-12)
    penalty.backward()
    expected = 2 * (norm - 1) * discriminator.weight.detach() / norm
    torch.testing.assert_close(discriminator.weight.grad, expected, rtol=0, atol=1e-12)


class Quadratic(nn.Module):
    """Scores |x|^2 / 2, so the gradient is x itself."""

    def forward(self, image):
        return image.flatten(1).square().sum(1) / 2


def test_every_image_has_a_place_of_its_own_between_real_and_fake():
    seen = []

    class Watched(Quadratic):
        def forward(self, image):
            seen.append(image.detach().clone())
            return super().forward(image)

    real, fake = torch.zeros(64, 3, 2, 2), torch.ones(64, 3, 2, 2)
    penalty = gradient_penalty(Watched(), real, fake)
    (mixed,) = seen
    share = mixed[:, 0, 0, 0]
    assert torch.equal(mixed, share[:, None, None, None].expand_as(mixed))
    assert len(share.unique()) > 60
    assert 0 <= share.min() < 0.1 < 0.9 < share.max() <= 1
    torch.testing.assert_close(penalty, ((12**0.5 * share - 1) ** 2).mean())


def test_penalty_works_without_gradients_around_and_holds_images_fixed():
    discriminator = PatchGAN(width=4, layers=1)
    real, fake = torch.rand(2, 2, 3, 8, 8, requires_grad=True)
    with torch.no_grad():
        assert gradient_penalty(discriminator, real, fake) > 0
    images = [image.detach().requires_grad_() for image in (real, fake)]
    gradient_penalty(discriminator, *images).backward()
    assert all(image.grad is None for image in images)


def test_a_flat_discriminator_has_a_finite_penalty():
    discriminator = Linear(1.0)
    nn.init.zeros_(discriminator.weight)
    penalty = gradient_penalty(discriminator, *torch.rand(2, 2, 3, 4, 5, dtype=torch.float64))
    assert penalty.item() == pytest.approx(1)
    penalty.backward()
    assert discriminator.weight.grad.isfinite().all()


def test_penalty_takes_the_full_size_of_several_scales():
    discriminator, image = Linear(3.0), torch.rand(1, 3, 4, 5, dtype=torch.float64)
    assert gradient_penalty(discriminator, [image[..., ::2], image], [image[..., ::2], image]).item() == pytest.approx(
        4
    )
    with pytest.raises(ShapeError, match="must have the same shape"):
        gradient_penalty(discriminator, image, image[..., 1:])


# --- one backward pass


def gradients(module):
    return [None if p.grad is None else p.grad.clone() for p in module.parameters()]


@pytest.mark.parametrize("kind", BY_HAND)
@pytest.mark.parametrize("weight", [1.0, 0.001, 0.0])
@pytest.mark.parametrize("penalty", [0.0, 10.0])
def test_one_backward_gives_the_gradients_of_two_separate_optimisations(kind, weight, penalty):
    network, discriminator = PlainNet().double(), PatchGAN(width=4, layers=1).double()
    blurry, sharp = torch.rand(2, 2, 3, 12, 10, dtype=torch.float64)
    loss = AdversarialLoss(kind)

    deblurred = network(blurry)
    g_term = loss.generator(discriminator(deblurred))
    g_grads = torch.autograd.grad(weight * g_term, list(network.parameters()))
    fake = deblurred.detach()
    d_loss = loss.discriminator(discriminator(sharp), discriminator(fake))
    torch.manual_seed(5)
    d_loss = d_loss + penalty * gradient_penalty(discriminator, sharp, fake)
    d_grads = torch.autograd.grad(d_loss, list(discriminator.parameters()), allow_unused=True)

    torch.manual_seed(5)
    terms = routed_adversarial_loss(
        network, discriminator, network(blurry), sharp, adversarial=loss, weight=weight, penalty_weight=penalty
    )
    (terms.loss + 0 * sum(p.sum() for p in network.parameters())).backward()
    torch.testing.assert_close(terms.loss, weight * g_term, rtol=0, atol=1e-13)
    torch.testing.assert_close(terms.adversarial, g_term.detach() if weight == 0 else g_term)
    assert (terms.penalty is not None) == (penalty > 0)
    torch.testing.assert_close(gradients(network), list(g_grads), rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients(discriminator), list(d_grads), rtol=0, atol=1e-12)


def test_the_generators_term_leaves_the_discriminators_buffers_alone():
    network, discriminator = PlainNet(), BatchNormNet()
    image = torch.rand(2, 3, 8, 8)
    terms = routed_adversarial_loss(
        network, discriminator, network(image), image, adversarial=AdversarialLoss(), weight=1.0
    )
    assert terms.loss.requires_grad
    assert discriminator.body[1].num_batches_tracked == 2  # its own two passes, not the network's


def test_without_gradients_only_the_generators_term_is_evaluated():
    network, discriminator = MultiScaleNet(), PatchGAN(width=4, layers=1)
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        deblurred = network(image)
        terms = routed_adversarial_loss(
            network, discriminator, deblurred, image, adversarial=AdversarialLoss("hinge"), weight=2.0
        )
        torch.testing.assert_close(terms.loss, -2 * discriminator(deblurred[-1]).mean())
    assert terms.discriminator is None


def test_a_detached_image_is_refused():
    network, image = PlainNet(), torch.rand(1, 3, 8, 8)
    with pytest.raises(ArgumentError, match=r"has been detached: .* nothing from the adversarial loss"):
        routed_adversarial_loss(
            network, PatchGAN(4, 1), network(image).detach(), image, adversarial=AdversarialLoss(), weight=1.0
        )


class Returns(nn.Module):
    """A discriminator that returns what it is told to."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def forward(self, image):
        return self.scores(image)


@pytest.mark.parametrize("scores", [lambda image: None, lambda image: [], lambda image: {"scores": image}])
def test_a_discriminator_without_scores(scores):
    image = torch.rand(1, 3, 4, 4)
    with pytest.raises(ArgumentError, match="a discriminator must return a tensor of scores"):
        gradient_penalty(Returns(scores), image, image)
    with pytest.raises(ArgumentError, match="a discriminator must return a tensor of scores"):
        AdversarialLoss("hinge").generator(scores(image))


def test_a_penalty_without_a_gradient():
    image = torch.rand(1, 3, 4, 4)
    with pytest.raises(ArgumentError, match="the penalty needs the gradient of Returns's scores"):
        gradient_penalty(Returns(lambda image: image.detach()), image, image)
