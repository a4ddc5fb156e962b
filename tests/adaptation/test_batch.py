"""Algorithm 1 against a hand-written loop, and that it leaves no trace."""

from __future__ import annotations

import copy
import threading
import weakref

import numpy as np
import pytest
import torch
from skimage.exposure import match_histograms
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from reblurkit.adaptation import AdaptOptions, adapt
from reblurkit.adaptation.batch import adapt_call
from reblurkit.core.calls import call_frozen, call_untouched
from reblurkit.data.images import read_image
from reblurkit.errors import ArgumentError, PluginError, ShapeError
from reblurkit.models import ReblurNet, UNet
from tests.conftest import BatchNormNet, DropoutNet, MultiScaleNet, PlainNet

LR = 1e-3  # so large that mistakes show


def by_hand(network, reblur_net, blurry, steps, lr=LR, optimizer=torch.optim.Adam, loss_of=None, pull=0.0):
    """Algorithm 1, image by image, on a copy of the network."""
    results, reblur_net = [], copy.deepcopy(reblur_net)
    for image in blurry.split(1):
        adapted = copy.deepcopy(network)
        original = [parameter.detach().clone() for parameter in adapted.parameters()]
        stepper = optimizer(adapted.parameters(), lr=lr)
        plain = adapted(image).detach()
        losses = []
        for step in range(steps + 1):
            if loss_of is None:
                deblurred = adapted(image)
                loss = (reblur_net(deblurred) - deblurred.detach()).abs().mean()
            else:
                loss = loss_of(adapted, image)
            losses.append(loss.item())
            if step < steps:
                distance = sum(((p - o) ** 2).sum() for p, o in zip(adapted.parameters(), original, strict=True))
                stepper.zero_grad()
                (loss + pull * distance if pull else loss).backward()
                stepper.step()
        results.append((adapted(image).detach(), plain, torch.tensor(losses)))
    images, plain, losses = zip(*results, strict=True)
    return torch.cat(images), torch.cat(plain), torch.stack(losses)


def small_unet():
    return UNet(blocks=1, widths=(8, 12, 16)).eval()


def images(count=2, height=16, width=20):
    return F.avg_pool2d(torch.rand(count, 3, height, width), 3, 1, 1)


def state(*modules):
    """Everything that must stay as it was."""
    return [
        (
            {name: (id(p), p.detach().clone(), p.requires_grad, p.grad) for name, p in module.named_parameters()},
            {name: (id(buffer), buffer.clone()) for name, buffer in module.named_buffers()},
            [each.training for each in module.modules()],
            {name: sorted(vars(each)) for name, each in module.named_modules()},
        )
        for module in modules
    ] + [torch.get_rng_state()]


def assert_same(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    else:
        assert one == other


@pytest.mark.parametrize("lr", [3e-6, LR])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_equals_a_hand_written_loop(steps, lr):
    network, reblur_net, blurry = UNet(blocks=2, widths=(16, 24, 32)).eval(), ReblurNet(width=16), images(2, 32, 32)
    image, plain, losses = by_hand(network, reblur_net, blurry, steps, lr)
    adapted = adapt(network, reblur_net, blurry, steps=steps, lr=lr, match_histogram=False)
    assert torch.equal(adapted.plain, plain)
    torch.testing.assert_close(adapted.image, image, rtol=0, atol=1e-7)
    torch.testing.assert_close(adapted.losses, losses, rtol=0, atol=1e-7)
    assert not torch.equal(image, plain)


def test_the_papers_defaults():
    network, reblur_net, blurry = small_unet(), ReblurNet(width=8), images(1)
    image, plain, losses = by_hand(network, reblur_net, blurry, 5, 3e-6)
    adapted = adapt(network, reblur_net, blurry)
    torch.testing.assert_close(adapted.losses, losses, rtol=0, atol=1e-7)
    image, plain = ((255 * x[0].clamp(0, 1)).round().byte().permute(1, 2, 0).numpy() for x in (image, plain))
    wanted = match_histograms(image, plain, channel_axis=-1)
    np.testing.assert_allclose(255 * adapted.image[0].permute(1, 2, 0).numpy(), wanted, rtol=0, atol=1.5)


@pytest.mark.parametrize("bins", [256, None])
def test_without_steps_the_output_is_the_plain_one_clamped(bins):
    adapted = adapt(small_unet(), ReblurNet(width=8), images(), steps=0, histogram_bins=bins)
    assert torch.equal(adapted.image, adapted.plain.clamp(0, 1))
    assert adapted.losses.shape == (2, 1)


@pytest.mark.parametrize("make", [small_unet, PlainNet, BatchNormNet, DropoutNet, MultiScaleNet])
@pytest.mark.parametrize("training", [False, True])
def test_a_batch_of_four_is_four_batches_of_one(make, training):
    network, reblur_net, blurry = make().train(training), ReblurNet(width=8), images(4)
    together = adapt(network, reblur_net, blurry, steps=2, lr=LR)
    alone = [adapt(network, reblur_net, image, steps=2, lr=LR) for image in blurry.split(1)]
    for field, value in together._asdict().items():
        assert torch.equal(value, torch.cat([getattr(one, field) for one in alone])), field


@pytest.mark.parametrize("make", [small_unet, BatchNormNet, DropoutNet])
@pytest.mark.parametrize("training", [False, True])
def test_nothing_is_changed_during_and_after(make, training):
    network, reblur_net, blurry = make().train(training), ReblurNet(width=8), images()
    next(network.parameters()).requires_grad_(False)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    before, seen = state(network, reblur_net), []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            assert_same(state(network, reblur_net)[:-1], before[:-1])
            seen.append(super().step(closure))

    adapted = adapt(network, reblur_net, blurry, steps=2, lr=1.0, optimizer=Watched)
    assert len(seen) == 4
    assert not torch.equal(adapted.image, adapted.plain)
    assert_same(state(network, reblur_net), before)


class Breaks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, image):
        return image.clone()

    @staticmethod
    def backward(ctx, grad):
        raise torch.OutOfMemoryError("CUDA out of memory (simulated)")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, torch.OutOfMemoryError, "backward"])
def test_errors_leave_no_trace(error):
    network, blurry = BatchNormNet().eval(), images()
    plain = network(blurry)

    class BrokenStep(torch.optim.SGD):
        def step(self, closure=None):
            raise error("broken")

    class BrokenReblur(ReblurNet):
        def forward(self, image):
            return Breaks.apply(super().forward(image))

    whole, broken = ReblurNet(width=8), BrokenReblur(width=8)
    before = state(network)
    if error == "backward":
        with pytest.raises(torch.OutOfMemoryError) as caught:
            adapt(network, broken, blurry)
        assert "tile=512 or checkpointing=True" in caught.value.__notes__[0]
    else:
        with pytest.raises(error):
            adapt(network, whole, blurry, optimizer=BrokenStep)
    assert_same(state(network), before)
    assert torch.equal(network(blurry), plain)


def test_the_adapted_output_of_several_scales_is_the_full_size_one():
    network, reblur_net, blurry = MultiScaleNet(), ReblurNet(width=8), images()
    plain = PlainNet()
    plain.load_state_dict(network.state_dict())
    assert_same(tuple(adapt(network, reblur_net, blurry, lr=LR)), tuple(adapt(plain, reblur_net, blurry, lr=LR)))
    call = adapt_call(network, reblur_net, (blurry,), {}, AdaptOptions(lr=LR))
    assert isinstance(call.output, list)
    assert [tuple(scale.shape) for scale in call.output] == [tuple(scale.shape) for scale in network(blurry)]
    assert not torch.equal(call.output[0], network(blurry)[0])


class Guided(PlainNet):
    """Takes a second image, one strength for each image, and one table for all."""

    def forward(self, image, guide, strength, table=None, *, options):
        return super().forward(image + strength[:, None, None, None] * guide * table.mean()) + options["shift"][0]


def test_further_inputs_are_taken_image_by_image():
    network, reblur_net, blurry = Guided(), ReblurNet(width=8), images(3)
    guide, strength, table, shift = torch.rand(3, 3, 16, 20), torch.rand(3), torch.rand(5), torch.rand(3, 1, 1, 1)
    arguments, keywords = (blurry, guide, strength), {"table": table, "options": {"shift": [shift]}}
    call = adapt_call(network, reblur_net, arguments, keywords, AdaptOptions(steps=2, lr=LR))
    for i in range(3):
        one = (blurry[i : i + 1], guide[i : i + 1], strength[i : i + 1])
        alone = adapt_call(
            network,
            reblur_net,
            one,
            {"table": table, "options": {"shift": [shift[i : i + 1]]}},
            AdaptOptions(steps=2, lr=LR),
        )
        assert torch.equal(call.output[i], alone.output[0])
        assert torch.equal(call.plain[i], alone.plain[0])
    # Tiles cut the guide along, and leave what is no image.
    tiled = adapt_call(network, reblur_net, arguments, keywords, AdaptOptions(steps=2, lr=LR, tile=8))
    assert torch.equal(tiled.plain, call.plain)
    assert not torch.equal(tiled.output, call.output)


def test_inputs_of_the_pure_function():
    class TwoImages(PlainNet):
        def forward(self, image, guide):
            return super().forward(image * guide)

    network, reblur_net, blurry, guide = TwoImages(), ReblurNet(width=8), images(), images()
    adapted = adapt(network, reblur_net, blurry, guide, steps=1)
    assert torch.equal(adapted.plain, torch.cat([network(*x) for x in zip(blurry[:, None], guide[:, None])]))  # noqa: B905


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ("all", ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"]),
        ("norm", ["1.weight", "1.bias"]),
        ("bias", ["0.bias", "1.bias", "3.bias"]),
        (["body.3.*", "*.0.bias"], ["0.bias", "3.weight", "3.bias"]),
    ],
)
def test_chosen_parameters_adapt_and_no_others(chosen, names):
    network, given = BatchNormNet().eval(), []

    def optimizer(parameters):
        given.extend(parameters)
        return torch.optim.SGD(parameters, lr=1.0)

    adapt(network, ReblurNet(width=8), images(1), steps=1, parameters=chosen, optimizer=optimizer)
    parameters = dict(network.named_parameters())
    assert [tuple(p.shape) for p in given] == [tuple(parameters[f"body.{name}"].shape) for name in names]
    for name, copied in zip(names, given, strict=True):
        assert not torch.equal(copied, parameters[f"body.{name}"]), name


def test_a_fresh_optimizer_for_every_image_class_or_function():
    network, reblur_net, blurry = small_unet(), ReblurNet(width=8), images()
    wanted = by_hand(network, reblur_net, blurry, 3, 0.1, torch.optim.SGD)[0]
    for optimizer in (torch.optim.SGD, lambda parameters: torch.optim.SGD(parameters, lr=0.1)):
        adapted = adapt(network, reblur_net, blurry, steps=3, lr=0.1, optimizer=optimizer, match_histogram=False)
        torch.testing.assert_close(adapted.image, wanted, rtol=0, atol=1e-7)


def test_the_anchor_is_a_further_loss():
    network, reblur_net, blurry = small_unet(), ReblurNet(width=8), images(1)
    wanted, _, losses = by_hand(network, reblur_net, blurry, 3, 0.1, torch.optim.SGD, pull=2.0)
    options = {"steps": 3, "lr": 0.1, "optimizer": torch.optim.SGD, "match_histogram": False}
    adapted = adapt(network, reblur_net, blurry, anchor=2.0, **options)
    torch.testing.assert_close(adapted.image, wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(adapted.losses, losses, rtol=0, atol=1e-6)
    assert not torch.equal(adapted.image, adapt(network, reblur_net, blurry, **options).image)


def test_early_stop_takes_the_rising_step_back():
    network, reblur_net, blurry = small_unet(), ReblurNet(width=8), images(1)
    options = {"steps": 6, "lr": 0.02, "match_histogram": False}
    plain = adapt(network, reblur_net, blurry, **options)
    losses = plain.losses[0].tolist()
    kept = next(step for step in range(6) if losses[step + 1] > losses[step])
    stopped = adapt(network, reblur_net, blurry, early_stop=True, **options)
    assert stopped.losses[0].tolist() == losses[: kept + 1] + [losses[kept]] * (6 - kept)
    wanted = adapt(network, reblur_net, blurry, **{**options, "steps": kept})
    torch.testing.assert_close(stopped.image, wanted.image, rtol=0, atol=1e-7)


@pytest.mark.parametrize("side", [8, 100])
def test_tiles_adapt_jointly(side):
    network, reblur_net, blurry = small_unet(), ReblurNet(width=8), images(1, 16, 20)

    def loss_of(net, image):
        tiles = [image[..., top : top + 8, left : left + 8] for top in (0, 8) for left in (0, 8, 12)]
        deblurred = [net(tile) for tile in (tiles if side == 8 else [image])]
        return torch.stack([(reblur_net(x) - x.detach()).abs().mean() for x in deblurred]).mean()

    image, plain, losses = by_hand(network, reblur_net, blurry, 3, 0.1, torch.optim.SGD, loss_of)
    options = {"lr": 0.1, "optimizer": torch.optim.SGD, "match_histogram": False}
    adapted = adapt(network, reblur_net, blurry, steps=3, tile=side, **options)
    assert torch.equal(adapted.plain, plain)
    torch.testing.assert_close(adapted.image, image, rtol=0, atol=1e-6)
    torch.testing.assert_close(adapted.losses, losses, rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", [small_unet, BatchNormNet, DropoutNet])
def test_checkpointing_changes_no_number_and_keeps_fewer_activations(make):
    network, reblur_net, blurry = make().train(), ReblurNet(width=8), images(1)

    def run(checkpointing):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
            return adapt(network, reblur_net, blurry, steps=1, lr=LR, checkpointing=checkpointing), sum(kept)

    before = state(network)
    (plain, many), (checkpointed, few) = run(False), run(True)
    assert_same(tuple(checkpointed), tuple(plain))
    assert_same(state(network), before)
    assert few < many / 2


def test_work_of_a_step_is_that_of_the_hand_written_loop_without_m_rs_gradients():
    network, reblur_net, blurry = small_unet(), ReblurNet(width=8), images(1)

    def flops(run):
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    forward = flops(lambda: network(blurry))
    reblurring = flops(lambda: reblur_net(blurry))
    first_layer = flops(lambda: network.enter(blurry))  # nobody asks for the gradient of the blurry image
    steps = [flops(lambda n=n: adapt(network, reblur_net, blurry, steps=n)) for n in (0, 1, 2)]
    assert steps[0] == forward + reblurring
    assert steps[1] - steps[0] == steps[2] - steps[1] == 3 * forward - first_layer + 2 * reblurring
    # Few parameters need no gradients of the others.
    biases = flops(lambda: adapt(network, reblur_net, blurry, steps=1, parameters="bias"))
    assert biases - steps[0] == 2 * forward - first_layer + 2 * reblurring


def test_a_loss_that_is_not_finite_keeps_the_plain_output():
    network, reblur_net, blurry = small_unet(), ReblurNet(width=8), images(2)
    adapted = adapt(network, reblur_net, blurry, steps=2, lr=1e30, optimizer=torch.optim.SGD)
    assert not adapted.losses[:, -1].isfinite().any()
    assert adapted.losses[:, 0].isfinite().all()
    assert torch.equal(adapted.image, adapted.plain)


def test_bfloat16_autocast_sees_every_step():
    network, reblur_net, blurry = small_unet(), ReblurNet(width=8), images(1)

    def loss_of(net, image):
        with torch.autocast("cpu", torch.bfloat16):
            deblurred = net(image)
            return (reblur_net(deblurred) - deblurred.detach()).abs().mean()

    losses = by_hand(network, reblur_net, blurry, 3, 0.05, loss_of=loss_of)[2]
    with torch.autocast("cpu", torch.bfloat16):
        adapted = adapt(network, reblur_net, blurry, steps=3, lr=0.05)
        assert torch.equal(adapted.plain, network(blurry))
    torch.testing.assert_close(adapted.losses, losses, rtol=1e-2, atol=1e-3)
    assert len(adapted.losses.unique()) == 4


def test_under_float16_autocast_adaptation_runs_in_float32():
    network, reblur_net, blurry = small_unet(), ReblurNet(width=8), images(1)
    with torch.autocast("cpu", torch.float16):
        adapted = adapt(network, reblur_net, blurry.half().float(), lr=LR)
        from_half = adapt(network, reblur_net, blurry.half(), lr=LR)
        assert torch.is_autocast_enabled("cpu")
    assert_same(tuple(adapted), tuple(adapt(network, reblur_net, blurry.half().float(), lr=LR)))
    assert_same(tuple(from_half), tuple(adapted))


def test_double_precision():
    network, reblur_net, blurry = small_unet().double(), ReblurNet(width=8).double(), images(1).double()
    adapted = adapt(network, reblur_net, blurry, lr=LR)
    assert {value.dtype for value in adapted} == {torch.float64}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_may_be_off(mode):
    network, reblur_net, blurry = BatchNormNet().eval(), ReblurNet(width=8), images()
    wanted = adapt(network, reblur_net, blurry, lr=LR)
    with mode():
        made_inside = images().copy_(blurry)
        adapted = adapt(network, reblur_net, made_inside, lr=LR)
        built_inside = copy.deepcopy(network)
        from_inside = adapt(built_inside, reblur_net, made_inside, lr=LR)
        assert not torch.is_grad_enabled()
    assert_same(tuple(adapted), tuple(wanted))
    assert_same(tuple(from_inside), tuple(wanted))
    assert not any(value.requires_grad or value.is_inference() for value in adapted)


def test_a_tensor_cached_in_inference_mode_is_explained():
    class Caches(PlainNet):
        mask = None

        def forward(self, image):
            if self.mask is None:
                self.mask = torch.ones_like(image)
            return super().forward(image) * self.mask

    network, blurry = Caches(), images()
    with torch.inference_mode():
        network(blurry[:1])
    with pytest.raises(PluginError, match=r"Trainer\(inference_mode=False\)"):
        adapt(network, ReblurNet(width=8), blurry)
    network.mask = None
    with torch.no_grad():
        network(blurry[:1])
    adapt(network, ReblurNet(width=8), blurry, steps=1)


@pytest.mark.parametrize("make", [small_unet, lambda: DropoutNet().train()])
def test_threads_may_share_the_networks(make):
    network, reblur_net, batches = make(), ReblurNet(width=8), [images(2) for _ in range(4)]
    before = state(network, reblur_net)
    wanted = [adapt(network, reblur_net, blurry, steps=4, lr=LR) for blurry in batches]
    results = [None] * len(batches)

    def work(index):
        results[index] = adapt(network, reblur_net, batches[index], steps=4, lr=LR)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same([tuple(result) for result in results], [tuple(result) for result in wanted])
    assert_same(state(network, reblur_net), before)


def test_tied_weights_shared_modules_and_hidden_buffers():
    class Tied(PlainNet):
        def __init__(self):
            super().__init__(3)
            self.body.append(nn.Conv2d(3, 3, 3, padding=1))
            self.body[2] = self.body[0]  # one module at two places
            self.body[3].weight = self.body[0].weight  # one weight in two modules
            self.register_buffer("calls", torch.zeros(()), persistent=False)

        def forward(self, image):
            self.calls.add_(1)
            return super().forward(image)

    network, reblur_net, blurry = Tied(), Tied(), images(1)
    wanted = by_hand(network, reblur_net, blurry, 2)[0]
    before = state(network, reblur_net)
    adapted = adapt(network, reblur_net, blurry, steps=2, lr=LR, match_histogram=False)
    torch.testing.assert_close(adapted.image, wanted, rtol=0, atol=1e-7)
    assert_same(state(network, reblur_net), before)
    call_untouched(network, blurry)
    call_frozen(network, blurry)
    assert_same(state(network, reblur_net), before)


REAL = [
    "pairs/blur_gopro_cu.png",
    "pairs/blur_gopro_flower.png",
    "blurry_only/reds_nafnet_demo.jpg",
    "blurry_only/skimage_clock_motion.png",
    "sequences/selfdeblur_real",
]


@pytest.mark.parametrize("file", REAL)
def test_real_images_go_through(shared_data, file):
    path = shared_data / file
    files = sorted(path.glob("*.[pj][np]g"))[:2] if path.is_dir() else [path]
    assert files
    network, reblur_net = UNet(blocks=0, widths=(4, 4, 4)).eval(), ReblurNet(blocks=0, width=4)
    blurry = torch.stack([read_image(name) for name in files])
    adapted = adapt(network, reblur_net, blurry, steps=2, lr=1e-4)
    assert adapted.image.shape == blurry.shape
    assert adapted.losses.isfinite().all()
    assert not torch.equal(adapted.image, adapted.plain.clamp(0, 1))
    assert 0 <= adapted.image.min() < adapted.image.max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "`steps` of adaptation must be a whole number, at least 0, but is -1"),
        ({"steps": 1.5}, "whole number"),
        ({"lr": 0}, "`lr` must be a finite number greater than 0, but is 0"),
        ({"lr": -1e-6}, "`lr` must be a finite number greater than 0"),
        ({"lr": float("nan")}, "`lr` must be a finite number greater than 0"),
        ({"anchor": -1}, "`anchor` must be at least 0"),
        ({"tile": 0}, "`tile` must be a number of pixels"),
        ({"histogram_bins": 1}, "at least 2"),
        ({"parameters": "weights"}, "must be one of 'all', 'norm', 'bias', or a list of name patterns"),
        ({"parameters": ["decoder.*"]}, r"no parameter of PlainNet is chosen by parameters=\['decoder.\*'\].*body.0.w"),
        ({"parameters": "norm"}, "no parameter of PlainNet is chosen"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1)])}, "because every image gets its own, but is a SGD object"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ArgumentError, match=message):
        adapt(PlainNet(), ReblurNet(width=8), images(1), **options)


def test_wrong_networks_and_images():
    class Fixed(nn.Module):
        def forward(self, image):
            return image

    class Dict(PlainNet):
        def forward(self, image):
            return {"image": super().forward(image)}

    class Detached(PlainNet):
        def forward(self, image):
            return super().forward(image).detach()

    network, reblur_net, blurry = PlainNet(), ReblurNet(width=8), images(1)
    with pytest.raises(ArgumentError, match="Fixed has no parameters"):
        adapt(Fixed(), reblur_net, blurry)
    with pytest.raises(ArgumentError, match="does not switch gradients off"):
        adapt(Detached(), reblur_net, blurry)
    with pytest.raises(ArgumentError, match="must not share parameters"):
        adapt(network, network, blurry)
    with pytest.raises(ArgumentError, match="must return an image tensor or a list"):
        adapt(Dict(), reblur_net, blurry)
    with pytest.raises(ArgumentError, match="float"):
        adapt(network, reblur_net, (255 * blurry).byte())
    with pytest.raises(ShapeError, match="batch of images"):
        adapt(network, reblur_net, blurry[0])
    with pytest.raises(ShapeError, match="batch of images"):
        adapt(network, reblur_net, blurry[:0])
    with pytest.raises(ShapeError, match=r"Sequential or the reblurring network cannot process .*\(1, 3, 2, 2\)"):
        adapt(nn.Sequential(nn.Conv2d(3, 3, 5)), reblur_net, blurry[..., :2, :2])


@pytest.mark.parametrize("make", [torch.optim.LBFGS, lambda parameters: None])
def test_optimizers_that_cannot_step_on_one_gradient(make):
    with pytest.raises(ArgumentError, match="`optimizer` must make an optimizer"):
        adapt(PlainNet(), ReblurNet(width=4), torch.rand(1, 3, 8, 8), optimizer=make)


@pytest.mark.parametrize("name", ["steps", "lr", "anchor", "tile"])
@pytest.mark.parametrize("value", ["5", float("nan"), float("inf")])
def test_numbers_that_are_none(name, value):
    with pytest.raises(ArgumentError, match=f"`{name}`"):
        AdaptOptions(**{name: value})


def test_names_in_place_of_networks():
    with pytest.raises(ArgumentError, match="but is 'reblur'"):
        adapt(PlainNet(), "reblur", torch.rand(1, 3, 8, 8))


def test_broken_images_and_networks_are_told():
    network, reblur_net = PlainNet(), ReblurNet(width=4)
    with pytest.raises(ArgumentError, match="`blurry` must lie in"):
        adapt(network, reblur_net, torch.full((1, 3, 8, 8), 100.0))
    images = torch.rand(3, 3, 8, 8)
    images[1, 0, 2, 3] = torch.nan
    with pytest.warns(UserWarning, match=r"the plain output is kept, of images \[1\]"):
        adapt(network, reblur_net, images, steps=1)
    with pytest.raises(ShapeError, match="images of 1 channels"):
        adapt(network, reblur_net, torch.rand(1, 1, 8, 8))
    with pytest.raises(ArgumentError, match=r"images of torch.float64: .*convert the images"):
        adapt(network, reblur_net, torch.rand(1, 3, 8, 8, dtype=torch.float64))
    with pytest.raises(ShapeError, match="must return images of the size of its input"):
        adapt(nn.Sequential(network, nn.AvgPool2d(2)), reblur_net, torch.rand(1, 3, 8, 8))


def test_coarser_scales_do_not_live_through_the_backward_pass():
    """Their activations are freed before the first gradient is computed."""

    class Coarse(PlainNet):
        def forward(self, image):
            features = super().forward(image)
            coarse = Noted.apply(features)
            return [coarse, features]

    freed, seen = [], []

    class Noted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, image):
            kept = image.clone()
            weakref.finalize(kept, freed.append, True)
            ctx.save_for_backward(kept)
            return image * 1.0

        @staticmethod
        def backward(ctx, gradient):
            raise AssertionError("nothing depends on the coarse scale")

    def watch(module, inputs, output):
        if output[-1].requires_grad:  # not in the last evaluation, which needs no gradient
            output[-1].register_hook(lambda _: seen.append(len(freed)))

    network = Coarse()
    network.register_forward_hook(watch)
    adapt(network, ReblurNet(width=4), torch.rand(1, 3, 8, 8), steps=1)
    assert seen == [1]
