"""The callback against a hand-written loop, and against training without it."""

from __future__ import annotations

import copy

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from reblurkit import FlowReblurFinetuneCallback
from reblurkit.blur import FlowLineBlur, FlowWarpBlur
from reblurkit.errors import ArgumentError, NonFiniteLossError, PluginError, ShapeError, WeightsError
from reblurkit.losses import flow_reblur_loss
from reblurkit.models import ReblurNet
from reblurkit.plugins import AuxiliaryOptimizer
from tests.conftest import BatchNormNet, DropoutNet, MultiScaleNet, PlainNet, TinyFlow
from tests.plugins.mixins.test_reblur import (
    CountingLoader,
    Plain,
    Reblurred,
    assert_bit_equal,
    clip_and_step,
    loader,
    trainer,
)


class Clips(Dataset):
    def __init__(self, length=5, frames=3):
        self.clips = torch.rand(length, frames, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        return {"frames": self.clips[index], "name": str(index)}


def clips(**options):
    return DataLoader(Clips(**options), batch_size=2)


def callback(flow=None, unlabelled=None, **options):
    options = {"blur": FlowLineBlur(0.5), "mask": False, **options}
    return FlowReblurFinetuneCallback(unlabelled or clips(), flow=flow or TinyFlow(), **options)


def hand_written_loop(network, flow, *, steps, accumulate=1, clip=None, weight=0.1, warmup=0):
    """Equation 10 as one would write it without this package, with an optimizer for each network."""
    d_optimizer, f_optimizer = torch.optim.Adam(network.parameters(), 1e-2), torch.optim.Adam(flow.parameters(), 1e-4)
    labelled = [batch for _ in range(100) for batch in loader()]
    unlabelled = [batch["frames"] for _ in range(100) for batch in clips()]
    flow.eval()
    for index in range(steps * accumulate):
        batch, frames = labelled[index], unlabelled[index]
        loss = F.l1_loss(network(batch["blurry"]), batch["sharp"])
        sharp = network(frames.flatten(0, 1)).view_as(frames)
        flow_next, flow_prev = flow(sharp[:, 2], sharp[:, 1]), flow(sharp[:, 0], sharp[:, 1])
        reblurred = FlowLineBlur(0.5)(sharp[:, 1], flow_next, flow_prev)
        step = index // accumulate
        share = min((step + 1) / warmup, 1) if warmup else 1
        loss = loss + weight * share * F.mse_loss(reblurred, frames[:, 1])
        (loss / accumulate).backward()
        if (index + 1) % accumulate == 0:
            clip_and_step(clip, (flow, f_optimizer), (network, d_optimizer))


def close(one, other):
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("accumulate", "clip", "warmup"), [(1, None, 0), (2, None, 3), (1, 0.05, 0), (2, 0.05, 0)])
def test_equals_a_hand_written_loop(tmp_path, accumulate, clip, warmup):
    network, flow = PlainNet(), TinyFlow()
    expected = copy.deepcopy((network, flow))
    start = copy.deepcopy(network), copy.deepcopy(flow)
    finetune = callback(flow, warmup=warmup, weight=0.5)
    flags = {"max_steps": 6, "max_epochs": -1, "accumulate_grad_batches": accumulate, "gradient_clip_val": clip}
    run = trainer(tmp_path, callbacks=[finetune], **flags)
    run.fit(Plain(network), loader())
    hand_written_loop(*expected, steps=6, accumulate=accumulate, clip=clip, weight=0.5, warmup=warmup)
    assert run.global_step == 6
    close(network, expected[0])
    close(flow, expected[1])
    for trained, before in zip((network, flow), start, strict=True):
        for name, value in trained.state_dict().items():
            assert not torch.equal(value, before.state_dict()[name]), name


@pytest.mark.parametrize("network", [PlainNet, BatchNormNet, DropoutNet])
def test_weight_zero_is_bit_equal_to_no_callback(tmp_path, network):
    torch.manual_seed(3)
    plain = Plain(network())
    tuned = copy.deepcopy(plain)
    for module, callbacks in ((plain, []), (tuned, [callback(weight=0.0)])):
        torch.manual_seed(5)
        trainer(tmp_path, callbacks=callbacks).fit(module, loader())
    assert_bit_equal(plain, tuned)


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_random_state_is_that_of_a_run_without(tmp_path, weight):
    states = []
    for callbacks in ([], [callback(weight=weight, unlabelled=DataLoader(Clips(), 2, shuffle=True))]):
        torch.manual_seed(5)
        module = Plain(DropoutNet())
        trainer(tmp_path, callbacks=callbacks, max_epochs=1).fit(module, loader())
        states.append(torch.random.get_rng_state())
    assert torch.equal(*states)


class Watching(Plain):
    def training_step(self, batch, batch_idx):
        assert set(batch) == {"blurry", "sharp", "name"}
        return super().training_step(batch, batch_idx)


class ReturnsDict(Plain):
    def training_step(self, batch, batch_idx):
        return {"loss": super().training_step(batch, batch_idx), "mine": batch_idx}


class SkipsSome(Plain):
    def training_step(self, batch, batch_idx):
        return None if batch_idx == 1 else super().training_step(batch, batch_idx)


def train(module, tmp_path, *callbacks, **flags):
    torch.manual_seed(7)
    trainer(tmp_path, callbacks=list(callbacks), **flags).fit(module, loader())


def test_user_step_sees_its_own_batch_and_may_return_a_dict_or_nothing(tmp_path):
    start = Plain(PlainNet())
    flow = TinyFlow()
    results = []
    for kind in (Watching, ReturnsDict):
        module = kind(copy.deepcopy(start.network))
        train(module, tmp_path, callback(copy.deepcopy(flow)))
        assert "training_step" not in module.__dict__
        results.append(module)
    assert_bit_equal(*results)
    skipping = SkipsSome(copy.deepcopy(start.network))
    train(skipping, tmp_path, callback(copy.deepcopy(flow)))
    assert not torch.equal(skipping.network.body[0].weight, start.network.body[0].weight)


class Wrong(Plain):
    def training_step(self, batch, batch_idx):
        return [super().training_step(batch, batch_idx)]


def test_a_step_that_returns_something_else(tmp_path):
    module = Wrong(PlainNet())
    with pytest.raises(PluginError, match="must return a loss, a dict with one under 'loss', or None"):
        train(module, tmp_path, callback())
    assert "training_step" not in module.__dict__


def test_nothing_stays_when_another_callback_fails_and_copies_are_plain(tmp_path):
    copies = []

    class Rude(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, *_):
            copies.append(copy.deepcopy(pl_module))
            raise ValueError

        def on_exception(self, *_):
            raise RuntimeError("rude")

    module, mine = Plain(PlainNet()), callback()
    with pytest.raises(RuntimeError, match="rude"):
        train(module, tmp_path, Rude(), mine)
    assert "training_step" not in vars(module)
    assert not mine._auxiliary.attached
    assert copies[0].training_step.__func__ is Plain.training_step
    assert copies[0].training_step.__self__ is copies[0]
    train(module, tmp_path, mine)


class Manual(Plain):
    def __init__(self, network):
        super().__init__(network)
        self.automatic_optimization = False
        self.other = nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        other, optimizer = self.optimizers()
        other.zero_grad()
        self.manual_backward((self.other - 1).square().sum())
        other.step()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()

    def configure_optimizers(self):
        return torch.optim.SGD([self.other], 0.1), torch.optim.Adam(self.network.parameters(), 1e-2)


def test_manual_optimization_equals_the_hand_written_loop(tmp_path):
    network, flow = PlainNet(), TinyFlow()
    expected = copy.deepcopy((network, flow))
    train(Manual(network), tmp_path, callback(flow, weight=0.5), max_epochs=2)
    hand_written_loop(*expected, steps=8, weight=0.5)
    close(network, expected[0])
    close(flow, expected[1])


def test_manual_optimization_in_float16_is_refused(tmp_path):
    half = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(PluginError, match="bf16-mixed"):
        trainer(tmp_path, plugins=[half], callbacks=[callback()]).fit(Manual(PlainNet()), loader())


class Constant(TinyFlow):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, source, target):
        return 0 * super().forward(source, target) + self.value


def test_a_broken_loss_stops_before_it_harms_the_weights(tmp_path):
    network = PlainNet()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(NonFiniteLossError, match=r"loss is nan in step 0: the flow and the reblurred"):
        train(Plain(network), tmp_path, callback(Constant(torch.nan)))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_clips_that_teach_nothing_are_told(tmp_path):
    with pytest.warns(UserWarning, match="no pixel of a batch of clips is used"):
        train(Plain(PlainNet()), tmp_path, callback(Constant(1e5), mask=True), max_steps=1)


def test_together_with_the_reblurring_loss(tmp_path):
    """Each plug-in adds what it adds alone: two networks, one auxiliary optimizer callback."""
    module = Reblurred(PlainNet(), ReblurNet(width=4))
    flow = TinyFlow()
    before = copy.deepcopy((module, flow))
    run = trainer(tmp_path, callbacks=[callback(flow)], max_epochs=2)
    run.fit(module, loader())
    (auxiliary,) = [one for one in run.callbacks if isinstance(one, AuxiliaryOptimizer)]
    assert auxiliary.steps("reblur") == auxiliary.steps("flow") == run.global_step == 8
    assert not torch.equal(flow.conv.weight, before[1].conv.weight)
    assert not torch.equal(module.reblur.layers[0].weight, before[0].reblur.layers[0].weight)
    # M_R's loss does not depend on the clips: one step with and without the callback moves it by the same amount.
    alone, beside = copy.deepcopy(before[0]), copy.deepcopy(before[0])
    train(alone, tmp_path, max_steps=1)
    train(beside, tmp_path, callback(copy.deepcopy(before[1])), max_steps=1)
    assert_bit_equal(alone.reblur, beside.reblur)
    assert not torch.equal(alone.network.body[0].weight, beside.network.body[0].weight)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_run_resumed_in_mid_epoch_is_bit_equal(tmp_path, shuffle):
    network, flow = PlainNet(), TinyFlow()

    class StopAfterThree(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 3:
                trainer.save_checkpoint(tmp_path / "stopped.ckpt")
                raise RuntimeError("the machine went down")

    def run(seed, *callbacks, ckpt_path=None):
        module, tuned = Plain(copy.deepcopy(network)), copy.deepcopy(flow)
        finetune = callback(tuned, unlabelled=DataLoader(Clips(), 2, shuffle=shuffle), warmup=6)
        torch.manual_seed(seed)
        trainer(tmp_path, callbacks=[finetune, *callbacks], max_epochs=2).fit(
            module, CountingLoader(), ckpt_path=ckpt_path, weights_only=True
        )
        return module, tuned

    whole, whole_flow = run(7)
    with pytest.raises(RuntimeError, match="went down"):
        run(7, StopAfterThree())
    resumed, resumed_flow = run(99, ckpt_path=tmp_path / "stopped.ckpt")
    assert_bit_equal(whole, resumed)
    assert_bit_equal(whole_flow, resumed_flow)


def test_checkpoints_load_strictly_without_the_callback(tmp_path):
    module = Plain(PlainNet())
    run = trainer(tmp_path, callbacks=[callback()], max_epochs=1)
    run.fit(module, loader())
    run.save_checkpoint(tmp_path / "tuned.ckpt")
    checkpoint = torch.load(tmp_path / "tuned.ckpt", weights_only=True)
    assert checkpoint["state_dict"].keys() == module.state_dict().keys()
    plain = Plain(PlainNet())
    plain.load_state_dict(checkpoint["state_dict"], strict=True)
    assert_bit_equal(plain, module)


@pytest.mark.parametrize("flags", [{"precision": "bf16-mixed"}, {"callbacks": [EMAWeightAveraging(decay=0.9)]}])
def test_precision_and_averaging(tmp_path, flags):
    module, flow = Plain(PlainNet()), TinyFlow()
    before = copy.deepcopy(flow)
    callbacks = [*flags.get("callbacks", []), callback(flow)]
    trainer(tmp_path, **{**flags, "callbacks": callbacks, "max_epochs": 2}).fit(module, loader())
    assert all(value.isfinite().all() for value in module.state_dict().values())
    assert not torch.equal(flow.conv.weight, before.conv.weight)


def test_compiled_network_equals_eager(tmp_path):
    network, flow = PlainNet(), TinyFlow()
    eager, compiled = Plain(copy.deepcopy(network)), Plain(copy.deepcopy(network))
    compiled.network = torch.compile(compiled.network, backend="eager")
    for module in (eager, compiled):
        train(module, tmp_path, callback(copy.deepcopy(flow)), max_epochs=1)
    for one, other in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one, other)


class FiveFrames(nn.Module):
    """Takes five frames and deblurs the middle one with the help of the others."""

    frames = 5

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(15, 3, 3, padding=1)

    def forward(self, clips):
        return clips[:, 2] + self.conv(clips.flatten(1, 2))


@pytest.mark.parametrize("length", [3, 7])
def test_networks_of_several_frames_get_stacks_with_repeated_ends(length):
    network, flow = FiveFrames(), TinyFlow()
    frames = torch.rand(2, length, 3, 8, 8)
    terms = callback(flow).evaluate(network, frames)
    centre = length // 2

    def stack(t):
        return torch.stack([frames[:, min(max(t + step, 0), length - 1)] for step in (-2, -1, 0, 1, 2)], 1)

    sharp = torch.stack([network(stack(t)) for t in (centre - 1, centre, centre + 1)], 1)
    expected = flow_reblur_loss(sharp, frames[:, centre], flow, blur=FlowLineBlur(0.5), mask=False)
    torch.testing.assert_close(terms.loss, expected)


def test_multi_scale_networks_and_two_frames():
    frames = torch.rand(2, 2, 3, 8, 8)
    network, flow = MultiScaleNet(), TinyFlow()
    terms = callback(flow, frames=2).evaluate(network, frames)
    assert torch.equal(terms.flow_next, -terms.flow_prev)
    sharp = torch.stack([network(frames[:, 0])[-1], network(frames[:, 1])[-1]], 1)
    expected = flow_reblur_loss(sharp, frames[:, 1], flow, blur=FlowLineBlur(0.5), mask=False)
    torch.testing.assert_close(terms.loss, expected)


class FromModule(L.LightningDataModule):
    def train_dataloader(self):
        return clips()


def test_kinds_of_unlabelled_data(tmp_path):
    network, flow = PlainNet(), TinyFlow()
    results = []
    for data in (clips(), FromModule(), DataLoader(TensorDataset(Clips().clips), 2)):
        module = Plain(copy.deepcopy(network))
        train(module, tmp_path, callback(copy.deepcopy(flow), data), max_epochs=1)
        results.append(module)
    assert_bit_equal(results[0], results[1])
    assert_bit_equal(results[0], results[2])
    module = Plain(copy.deepcopy(network))
    sizes = []
    finetune = callback(copy.deepcopy(flow), Clips())
    evaluate = finetune.evaluate
    finetune.evaluate = lambda net, frames: (sizes.append(len(frames)), evaluate(net, frames))[1]
    train(module, tmp_path, finetune, max_epochs=1)
    assert sizes == [2, 2, 1, 2]  # the labelled batches' size, an epoch of five clips, and the next


def test_a_flow_network_that_is_not_trained(tmp_path):
    flow = TinyFlow()
    before = copy.deepcopy(flow)
    module = Plain(PlainNet())
    run = trainer(tmp_path, callbacks=[callback(flow, train_flow=False)], max_epochs=1)
    run.fit(module, loader())
    assert_bit_equal(flow, before)
    assert not [one for one in run.callbacks if isinstance(one, AuxiliaryOptimizer)]


def test_flow_without_parameters_by_name(tmp_path):
    module = Plain(PlainNet())
    before = copy.deepcopy(module)
    train(module, tmp_path, callback("tvl1"), max_steps=1)
    assert not torch.equal(module.network.body[0].weight, before.network.body[0].weight)


def test_logs(tmp_path):
    module = Plain(PlainNet())
    run = trainer(tmp_path, callbacks=[callback(weight=0.0)], max_epochs=1, log_every_n_steps=1)
    run.fit(module, loader())
    assert run.callback_metrics["train/loss_unlabelled"] > 0
    assert run.callback_metrics["lr-flow"] == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blur": None}, "give `exposure`"),
        ({"exposure": 0.0}, "`exposure` must be a finite number"),
        ({"exposure": 1.0}, r"keeps its own exposure, 0\.5, but `exposure` is 1\.0"),
        ({"weight": -1}, "`weight` must be at least 0"),
        ({"weight": float("nan")}, "`weight` must be at least 0"),
        ({"frames": 4}, "`frames` must be 2 or 3"),
        ({"flow_lr": 0}, "`flow_lr` must be a finite number greater than 0"),
        ({"warmup": -1}, "`warmup` must be at least 0"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ArgumentError, match=message):
        callback(**options)


def test_own_blur_keeps_its_exposure():
    assert callback(exposure=0.5).blur.exposure == 0.5
    assert FlowReblurFinetuneCallback(clips(), flow=TinyFlow(), exposure=0.25).blur.exposure == 0.25
    assert callback(blur=FlowWarpBlur(0.3)).blur.exposure == 0.3


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (torch.rand(4, 2, 3, 8, 8), ArgumentError, "at least 3 frames, but have 2; frames=2 takes pairs"),
        (torch.rand(4, 1, 3, 8, 8), ArgumentError, "at least 3 frames, but have 1"),
        (torch.rand(4, 3, 8, 8), ShapeError, r"must be clips \(B, T, 3, H, W\)"),
        (torch.rand(4, 3, 1, 8, 8), ShapeError, r"must be clips \(B, T, 3, H, W\)"),
        (torch.randint(255, (4, 3, 3, 8, 8)), ArgumentError, "floating point"),
        (255 * torch.rand(4, 3, 3, 8, 8), ArgumentError, r"`frames` must lie in \[0, 1\]"),
    ],
)
def test_wrong_clips(tmp_path, data, error, message):
    with pytest.raises(error, match=message):
        train(Plain(PlainNet()), tmp_path, callback(unlabelled=DataLoader(TensorDataset(data), 2)))


class ClipsUnderAnotherName(Clips):
    def __getitem__(self, index):
        return {"clip": self.clips[index]}


def test_other_wrong_input(tmp_path):
    with pytest.raises(ShapeError, match=r"under 'frames', but came as \['clip'\]"):
        train(Plain(PlainNet()), tmp_path, callback(unlabelled=DataLoader(ClipsUnderAnotherName(), 2)))
    with pytest.raises(ArgumentError, match="must be a DataLoader, a Dataset or a LightningDataModule"):
        train(Plain(PlainNet()), tmp_path, callback(unlabelled=[torch.rand(1, 3, 3, 8, 8)]))
    with pytest.raises(PluginError, match="no submodule at 'net'"):
        train(Plain(PlainNet()), tmp_path, callback(network="net"))
    with pytest.raises(ArgumentError, match="unknown flow network 'raft'"):
        train(Plain(PlainNet()), tmp_path, callback("raft"))
    with pytest.raises(ArgumentError, match="have terms of their own"):
        train(Plain(PlainNet()), tmp_path, callback("pwc-net"))
    with pytest.raises(PluginError, match="loaded when `fit` starts"):
        callback("tvl1").evaluate(PlainNet(), torch.rand(1, 3, 3, 8, 8))


class Jumps(TinyFlow):
    def forward(self, source, target):
        flow = super().forward(source, target)
        return torch.where(torch.arange(8) == 3, torch.nan, flow)


def test_flow_that_is_not_finite_somewhere_trains_on_with_the_rest(tmp_path):
    module, flow = Plain(PlainNet()), Jumps()
    train(module, tmp_path, callback(flow, mask=True), max_epochs=1)
    assert all(value.isfinite().all() for net in (module, flow) for value in net.state_dict().values())


class Stream(IterableDataset):
    def __iter__(self):
        return iter(Clips())


def test_a_stream_and_an_empty_set_of_clips(tmp_path):
    run = trainer(tmp_path, callbacks=[callback(unlabelled=Stream())])
    run.fit(Plain(PlainNet()), loader())
    assert run.callback_metrics["train/loss_unlabelled"] > 0
    empty = FlowReblurFinetuneCallback(TensorDataset(torch.rand(0, 3, 3, 8, 8)), flow=TinyFlow(), exposure=0.5)
    with pytest.raises(ArgumentError, match="at least one clip"):
        trainer(tmp_path, callbacks=[empty]).fit(Plain(PlainNet()), loader())


@pytest.mark.parametrize(
    "options", [{"flow": TinyFlow}, {"blur": "table"}, {"weight": "1"}, {"distance": "l1"}, {"exposure": -1.0}]
)
def test_arguments_of_a_wrong_kind(options):
    name = next(iter(options))
    with pytest.raises(ArgumentError, match=name):
        FlowReblurFinetuneCallback(
            Clips(), **{"flow": TinyFlow(), "exposure": None if "blur" in options else 0.5} | options
        )


def test_a_checkpoint_of_another_flow_network_is_refused(tmp_path):
    run = trainer(tmp_path, callbacks=[callback()], max_epochs=1)
    run.fit(Plain(PlainNet()), loader())
    run.save_checkpoint(tmp_path / "run.ckpt")
    with pytest.raises(WeightsError, match="another flow network than Jumping"):
        trainer(tmp_path, callbacks=[callback(Jumping())], max_epochs=2).fit(
            Plain(PlainNet()), loader(), ckpt_path=tmp_path / "run.ckpt", weights_only=True
        )


class Jumping(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(6, 2, 1)
