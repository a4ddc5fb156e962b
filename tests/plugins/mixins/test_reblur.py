"""The mixin against a hand-written loop with two optimizers, and against training without it."""

from __future__ import annotations

import copy

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import reblurkit
from reblurkit import ReblurLossMixin, strip_reblur
from reblurkit.errors import ArgumentError, PluginError, WeightsError
from reblurkit.models import ReblurNet
from tests.conftest import BatchNormNet, DropoutNet, PlainNet


class Noise(Dataset):
    """Pairs that are a function of the index."""

    def __init__(self, length: int = 8):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        sharp = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(index))
        return {"blurry": F.avg_pool2d(sharp, 3, 1, 1), "sharp": sharp, "name": str(index)}


def loader(batch_size=2, length=8):
    return DataLoader(Noise(length), batch_size=batch_size)


class Plain(L.LightningModule):
    scheduler = None

    def __init__(self, network):
        super().__init__()
        self.network = network

    def training_step(self, batch, batch_idx):
        return F.l1_loss(self.network(batch["blurry"]), batch["sharp"])

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 1e-2)
        if self.scheduler is None:
            return optimizer
        return [optimizer], [{"scheduler": self.scheduler(optimizer), "interval": "step"}]


class Reblurred(ReblurLossMixin, Plain):
    def __init__(self, network, reblur_net=None, **options):
        super().__init__(network)
        self.configure_reblur(reblur_net, **options)

    def training_step(self, batch, batch_idx):
        deblurred = self.network(batch["blurry"])
        loss = F.l1_loss(deblurred, batch["sharp"])
        return loss + self.reblur_loss(deblurred, batch["sharp"], batch["blurry"])


def trainer(tmp_path, **flags):
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
    }
    return L.Trainer(accelerator="cpu", default_root_dir=tmp_path, **(quiet | {"max_epochs": 4} | flags))


def one_cycle(optimizer):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=20)


def two_optimizer_loop(network, reblur_net, *, steps, accumulate, clip, scheduler, every=1):
    """Nah et al.'s alternating optimisation as one would write it without this package."""
    d_optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    r_optimizer = torch.optim.Adam(reblur_net.parameters(), 1e-4)
    d_scheduler = scheduler(d_optimizer) if scheduler else None
    batches = [batch for _ in range(100) for batch in loader()][: steps * accumulate]
    for index, batch in enumerate(batches):
        blurry, sharp = batch["blurry"], batch["sharp"]
        deblurred = network(blurry)
        if reblurs := index // accumulate % every == 0:
            reblur_net.requires_grad_(False)
            with torch.no_grad():
                target = reblur_net(sharp)
            d_loss = F.l1_loss(deblurred, sharp) + every * F.l1_loss(reblur_net(deblurred), target)
        else:
            d_loss = F.l1_loss(deblurred, sharp)
        (d_loss / accumulate).backward()
        if reblurs:
            reblur_net.requires_grad_(True)
            with torch.no_grad():
                pseudo = network(sharp)
            r_loss = F.l1_loss(reblur_net(deblurred.detach()), blurry) + F.l1_loss(reblur_net(pseudo), pseudo)
            (r_loss / accumulate).backward()
        if (index + 1) % accumulate == 0:
            clip_and_step(clip, *[(reblur_net, r_optimizer)] * reblurs, (network, d_optimizer))
            if d_scheduler:
                d_scheduler.step()


def clip_and_step(clip, *trained):
    """A step of each network with its optimizer."""
    for net, optimizer in trained:
        if clip:
            torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()


def assert_bit_equal(one, other):
    expected = other.state_dict()
    for name, value in one.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("scheduler", [None, one_cycle])
@pytest.mark.parametrize(("accumulate", "clip"), [(1, None), (2, None), (1, 0.05), (2, 0.05)])
@pytest.mark.parametrize("every", [1, 3])
def test_twenty_steps_equal_a_hand_written_loop_bit_for_bit(tmp_path, accumulate, clip, scheduler, every):
    network, reblur_net = PlainNet(), ReblurNet(blocks=1, width=6)
    expected = copy.deepcopy((network, reblur_net))
    two_optimizer_loop(*expected, steps=20, accumulate=accumulate, clip=clip, scheduler=scheduler, every=every)

    module = Reblurred(network, reblur_net, every=every)
    module.scheduler = scheduler
    run = trainer(tmp_path, max_steps=20, max_epochs=-1, accumulate_grad_batches=accumulate, gradient_clip_val=clip)
    run.fit(module, loader())
    assert run.global_step == 20
    assert_bit_equal(module.network, expected[0])
    assert_bit_equal(module.reblur, expected[1])


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("network_class", [PlainNet, BatchNormNet, DropoutNet])
def test_weight_zero_trains_as_without_the_mixin(tmp_path, network_class, every):
    network = network_class()
    plain = Plain(copy.deepcopy(network))
    reblurred = Reblurred(network, weight=0, every=every)
    for module in (plain, reblurred):
        torch.manual_seed(1)  # dropout's stream
        trainer(tmp_path).fit(module, loader())
    assert_bit_equal(reblurred.network, plain.network)


def test_configuring_leaves_the_random_state_alone():
    network = PlainNet()
    before = torch.get_rng_state()
    module = Reblurred(network)
    assert torch.equal(torch.get_rng_state(), before)
    assert sum(p.numel() for p in module.reblur.parameters()) == 214_595


def test_warmup_trains_the_reblurring_network_only(tmp_path):
    network = PlainNet()
    plain, module = Plain(copy.deepcopy(network)), Reblurred(network, ReblurNet(width=6), warmup=5)
    start = copy.deepcopy(module.reblur)
    trainer(tmp_path, max_steps=5).fit(plain, loader())
    trainer(tmp_path, max_steps=5).fit(module, loader())
    assert_bit_equal(module.network, plain.network)
    assert not torch.equal(module.reblur.layers[0].weight, start.layers[0].weight)

    trainer(tmp_path, max_steps=6).fit(plain, loader())
    trainer(tmp_path, max_steps=6).fit(module, loader())
    assert not torch.equal(module.network.body[0].weight, plain.network.body[0].weight)


def test_a_frozen_reblurring_network_judges_and_does_not_learn(tmp_path, recwarn):
    network, reblur_net = PlainNet(), ReblurNet(width=6).requires_grad_(False)
    expected, judge = copy.deepcopy((network, reblur_net))
    optimizer = torch.optim.Adam(expected.parameters(), 1e-2)
    for batch in [batch for _ in range(2) for batch in loader()]:
        deblurred = expected(batch["blurry"])
        loss = F.l1_loss(deblurred, batch["sharp"]) + 0.5 * F.l1_loss(judge(deblurred), judge(batch["sharp"]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    module = Reblurred(network, reblur_net, weight=0.5)
    run = trainer(tmp_path, max_epochs=2)
    run.fit(module, loader())
    assert_bit_equal(module.network, expected)
    assert_bit_equal(module.reblur, judge)
    assert "train/loss_reblur" in run.logged_metrics
    assert "train/loss_blur" not in run.logged_metrics
    assert not [warning for warning in recwarn if "got no gradient" in str(warning.message)]


def test_reblurring_every_third_step_counts_and_logs_its_own_steps(tmp_path):
    module = Reblurred(PlainNet(), ReblurNet(width=6), every=3)
    run = trainer(tmp_path, max_steps=8)
    run.fit(module, loader())
    assert (run.global_step, module._auxiliary.steps("reblur")) == (8, 3)
    assert {"train/loss_reblur", "train/loss_blur", "train/loss_sharp"} <= run.logged_metrics.keys()


def test_a_checkpoint_from_before_turns_were_counted_is_resumed(tmp_path):
    first = Reblurred(PlainNet(), ReblurNet(width=6))
    run = trainer(tmp_path, max_steps=4)
    run.fit(first, loader())
    run.save_checkpoint(tmp_path / "now.ckpt")
    checkpoint = torch.load(tmp_path / "now.ckpt", weights_only=True)
    del checkpoint["callbacks"]["AuxiliaryOptimizer"]["reblur"]["turns"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    steps = {}
    for name in ("now", "old"):
        module = Reblurred(PlainNet(), ReblurNet(width=6), every=3)
        trainer(tmp_path, max_steps=10).fit(module, loader(), ckpt_path=tmp_path / f"{name}.ckpt", weights_only=True)
        steps[name] = module._auxiliary.steps("reblur")
    assert steps == {"now": 6, "old": 6}  # 4, and then those of turns 6 and 9


def test_large_weights_of_the_reblurring_network_leave_the_loss_of_other_steps_finite(tmp_path):
    losses = []

    class Noted(Reblurred):
        def training_step(self, batch, batch_idx):
            if batch_idx == 1:
                with torch.no_grad():
                    self.reblur.layers[0].weight.fill_(1e37)  # their sum is infinite
            loss = super().training_step(batch, batch_idx)
            losses.append(float(loss.detach()))
            return loss

    module = Noted(PlainNet(), ReblurNet(width=6), every=2)
    trainer(tmp_path, max_steps=2).fit(module, loader())
    assert torch.tensor(losses).isfinite().all()


def test_a_reblurring_network_without_parameters_is_refused(tmp_path):
    module = Reblurred(PlainNet(), torch.nn.Identity())
    with pytest.raises(PluginError, match="reblur: Identity has no parameters"):
        trainer(tmp_path).fit(module, loader())


def test_the_step_counts_are_the_users(tmp_path):
    module = Reblurred(PlainNet(), ReblurNet(width=6))
    run = trainer(tmp_path, accumulate_grad_batches=2)
    run.fit(module, loader())
    assert run.global_step == 4 * 2
    assert module._auxiliary.steps("reblur") == 4 * 2


def test_the_users_optimizer_lets_go_of_the_reblurring_network(tmp_path):
    module = Reblurred(PlainNet(), ReblurNet(width=6))
    run = trainer(tmp_path, max_steps=1)
    run.fit(module, loader())
    held = {id(p) for group in run.optimizers[0].param_groups for p in group["params"]}
    assert held == {id(p) for p in module.network.parameters()}


def test_losses_and_learning_rate_are_logged(tmp_path):
    module = Reblurred(PlainNet(), ReblurNet(width=6), weight=0.5)
    run = trainer(tmp_path, max_steps=1)
    run.fit(module, loader())
    logged = run.logged_metrics
    assert {"train/loss_reblur", "train/loss_blur", "train/loss_sharp", "lr-reblur"} <= logged.keys()
    assert logged["lr-reblur"] == pytest.approx(1e-4)


@pytest.mark.parametrize("every", [1, 3])
def test_stopped_in_mid_epoch_and_resumed_is_bit_equal(tmp_path, every):
    def run(module, ckpt_path=None, **flags):
        trainer(tmp_path, **flags).fit(module, CountingLoader(), ckpt_path=ckpt_path, weights_only=True)

    class StopAfterSeven(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 7:
                trainer.save_checkpoint(tmp_path / "stopped.ckpt")
                raise RuntimeError("the machine went down")

    network, reblur_net = PlainNet(), ReblurNet(width=6)
    options = {"scheduler": step_halving, "warmup": 3 // every, "every": every}
    whole = Reblurred(*copy.deepcopy((network, reblur_net)), **options)
    run(whole)
    with pytest.raises(RuntimeError, match="went down"):
        run(Reblurred(*copy.deepcopy((network, reblur_net)), **options), callbacks=[StopAfterSeven()])
    resumed = Reblurred(network, reblur_net, **options)
    run(resumed, ckpt_path=tmp_path / "stopped.ckpt")
    assert_bit_equal(resumed, whole)
    assert resumed._auxiliary.steps("reblur") == {1: 16, 3: 6}[every]


def step_halving(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.5)


class CountingLoader:
    """A minimal loader that resumes in mid-epoch."""

    def __init__(self):
        self.next = 0
        self.batches = list(loader())

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        start, self.next = self.next, 0
        for index in range(start, len(self.batches)):
            self.next = (index + 1) % len(self.batches)
            yield self.batches[index]

    def state_dict(self):
        return {"next": self.next}

    def load_state_dict(self, state):
        self.next = state["next"]


def test_state_survives_fit_then_test_then_save(tmp_path):
    class Tested(Reblurred):
        def test_step(self, batch, batch_idx):
            self.network(batch["blurry"])

    module = Tested(PlainNet(), ReblurNet(width=6))
    run = trainer(tmp_path)
    run.fit(module, loader())
    run.test(module, loader(), verbose=False)
    run.save_checkpoint(tmp_path / "after_test.ckpt")
    saved = torch.load(tmp_path / "after_test.ckpt", weights_only=True)["callbacks"]["AuxiliaryOptimizer"]["reblur"]
    assert saved["steps"] == 16
    assert len(saved["optimizer"]["state"]) == len(list(module.reblur.parameters()))


def test_strip_reblur_gives_the_plain_networks_weights(tmp_path):
    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = PlainNet()

    class Nested(Reblurred):
        def __init__(self):
            Plain.__init__(self, None)
            self.outer = Outer()
            self.configure_reblur(network="outer.inner")

        def training_step(self, batch, batch_idx):
            return self.reblur_loss(self.outer.inner(batch["blurry"]), batch["sharp"], batch["blurry"])

    module = Nested()
    run = trainer(tmp_path, max_steps=1)
    run.fit(module, loader())
    for weights_only in (False, True):
        run.save_checkpoint(tmp_path / "run.ckpt", weights_only=weights_only)
        network = PlainNet()
        network.load_state_dict(strip_reblur(tmp_path / "run.ckpt"))
        assert_bit_equal(network, module.outer.inner)
    with pytest.raises(ArgumentError, match="no weights at 'net'; it has: outer, reblur"):
        strip_reblur(tmp_path / "run.ckpt", network="net")
    with pytest.raises(ArgumentError, match="expected a Lightning checkpoint"):
        strip_reblur({"params": {}})
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(WeightsError, match=r"text.ckpt cannot be read as a file of weights"):
        strip_reblur(tmp_path / "text.ckpt")


def test_manual_optimization_with_two_optimizers(tmp_path):
    class Manual(Reblurred):
        def __init__(self, network, reblur_net):
            super().__init__(network, reblur_net)
            self.other = torch.nn.Linear(2, 1)
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            other, main = self.optimizers()
            self.manual_backward(super().training_step(batch, batch_idx) + self.other.weight.sum())
            for optimizer in (other, main):
                optimizer.step()
                optimizer.zero_grad()

        def configure_optimizers(self):
            return torch.optim.SGD(self.other.parameters(), 0.1), torch.optim.Adam(self.network.parameters(), 1e-2)

    network, reblur_net = PlainNet(), ReblurNet(width=6)
    expected = copy.deepcopy((network, reblur_net))
    two_optimizer_loop(*expected, steps=16, accumulate=1, clip=None, scheduler=None)
    module = Manual(network, reblur_net)
    trainer(tmp_path).fit(module, loader())
    assert module._auxiliary.steps("reblur") == 16  # with the network's optimizer, not with every one
    assert_bit_equal(module.network, expected[0])
    assert_bit_equal(module.reblur, expected[1])


def test_gradients_that_the_user_drops_are_dropped_for_both_networks(tmp_path):
    """A NaN batch that manual optimization skips must not reach the reblurring network later."""

    class Skipping(Reblurred):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            loss = super().training_step(batch, batch_idx) * (float("nan") if batch_idx == 1 else 1)
            optimizer.zero_grad()
            self.manual_backward(loss)
            if loss.isfinite():
                optimizer.step()

    module = Skipping(PlainNet(), ReblurNet(width=6))
    trainer(tmp_path, max_epochs=1).fit(module, loader())
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    assert module._auxiliary.steps("reblur") == 3


def test_a_checkpoint_that_was_only_measured_is_not_resumed(tmp_path):
    class Measured(Reblurred):
        def validation_step(self, batch, batch_idx):
            self.network(batch["blurry"])

    module = Measured(PlainNet(), ReblurNet(width=6))
    run = trainer(tmp_path, max_epochs=1)
    run.fit(module, loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    trainer(tmp_path).validate(module, loader(), ckpt_path=tmp_path / "a.ckpt", verbose=False, weights_only=True)
    trainer(tmp_path, max_epochs=1).fit(module, loader())
    assert module._auxiliary.steps("reblur") == 4


def test_a_reblurring_network_that_is_replaced_later_is_the_one_that_trains(tmp_path):
    module = Reblurred(PlainNet(), ReblurNet(width=6))
    old, module.reblur = module.reblur, ReblurNet(width=4)
    before = copy.deepcopy((old, module.reblur))
    trainer(tmp_path, max_epochs=1).fit(module, loader())
    assert_bit_equal(old, before[0])
    assert not torch.equal(module.reblur.layers[0].weight, before[1].layers[0].weight)
    assert module._auxiliary.steps("reblur") == 4


def test_lbfgs_is_refused(tmp_path):
    class SecondOrder(Reblurred):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.network.parameters())

    with pytest.raises(PluginError, match="LBFGS evaluates the loss several times"):
        trainer(tmp_path).fit(SecondOrder(PlainNet(), ReblurNet(width=6)), loader())


def test_fp16_scaler_serves_both_optimizers(tmp_path):
    """On the CPU Lightning has no scaler of its own; the plug-in must use whichever one the precision plugin holds."""
    from lightning.pytorch.plugins import MixedPrecision

    network, reblur_net = PlainNet(), ReblurNet(width=6)
    plain = Reblurred(*copy.deepcopy((network, reblur_net)))
    scaled = Reblurred(network, reblur_net)
    trainer(tmp_path).fit(plain, loader())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    precision = MixedPrecision("16-mixed", device="cpu", scaler=scaler)
    precision.autocast_context_manager = lambda: torch.autocast("cpu", enabled=False)  # float32: only the scale differs
    trainer(tmp_path, plugins=[precision]).fit(scaled, loader())
    assert scaled._auxiliary.steps("reblur") == 16
    torch.testing.assert_close(scaled.state_dict(), plain.state_dict(), rtol=0, atol=1e-6)


def test_without_a_trainer_the_loss_works_and_logs_nothing():
    module = Reblurred(PlainNet(), ReblurNet(width=6))
    blurry, sharp = torch.rand(2, 1, 3, 8, 8)
    module.reblur_loss(module.network(blurry), sharp, blurry).backward()
    assert all(p.grad is not None for p in module.parameters())


def test_a_network_that_is_never_trained_is_reported(tmp_path):
    class Forgetful(Reblurred):
        training_step = Plain.training_step

    with pytest.warns(UserWarning, match="'reblur' got no gradient in the first epoch"):
        trainer(tmp_path, max_epochs=1).fit(Forgetful(PlainNet()), loader())


def test_wrong_base_class_order():
    with pytest.raises(PluginError, match=r"class Wrong\(ReblurLossMixin, LightningModule\)"):

        class Wrong(L.LightningModule, ReblurLossMixin):
            pass


def test_overridden_configure_callbacks_without_super(tmp_path):
    class Overridden(Reblurred):
        def configure_callbacks(self):
            return []

    with pytest.raises(PluginError, match=r"must return what `super\(\).configure_callbacks\(\)` returns"):
        trainer(tmp_path).fit(Overridden(PlainNet()), loader())


def test_reblur_loss_before_configure_reblur():
    class Unconfigured(ReblurLossMixin, Plain):
        pass

    with pytest.raises(PluginError, match=r"call `self.configure_reblur\(\)` in `__init__`"):
        Unconfigured(PlainNet()).reblur_loss(*torch.rand(3, 1, 3, 8, 8))


def test_fsdp_is_refused(tmp_path):
    module, run = Reblurred(PlainNet()), trainer(tmp_path)
    run.strategy.__class__ = FSDPStrategy  # Lightning itself refuses to build it without a GPU
    with pytest.raises(PluginError, match="cannot be trained under FSDPStrategy"):
        module._auxiliary.setup(run, module, "fit")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"network": "net"}, PluginError, "no submodule at 'net'; its submodules are: network"),
        ({"network": ""}, PluginError, "no submodule at ''"),
        ({"weight": -1}, ArgumentError, "at least 0"),
        ({"warmup": -1}, ArgumentError, "at least 0 steps"),
        ({"warmup": "3"}, ArgumentError, "at least 0 steps and a whole number"),
        ({"warmup": float("nan")}, ArgumentError, "at least 0 steps and a whole number"),
        ({"every": 0}, ArgumentError, "`every` must be a whole number of steps"),
        ({"every": 2.0}, ArgumentError, "`every` must be a whole number of steps"),
        ({"sharpness": "no"}, ArgumentError, "must be one of"),
        ({"reblur_net": 3}, ArgumentError, "must be an nn.Module, but is int"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1)])}, ArgumentError, "write optimizer=lambda parameters: ..."),
    ],
)
def test_wrong_options(options, error, message):
    class Configured(ReblurLossMixin, Plain):
        pass

    with pytest.raises(error, match=message):
        Configured(PlainNet()).configure_reblur(**options)


def test_images_out_of_range_are_refused_on_the_first_batch():
    module = Reblurred(PlainNet(), ReblurNet(width=6))
    blurry, sharp = torch.rand(2, 1, 3, 8, 8)
    with pytest.raises(ArgumentError, match=r"`sharp` must lie in \[0, 1\]"):
        module.reblur_loss(module.network(blurry), sharp * 255, blurry)


def test_configured_twice():
    module = Reblurred(PlainNet())
    with pytest.raises(PluginError, match="called twice"):
        module.configure_reblur()


def test_not_a_lightning_module():
    class Bare(ReblurLossMixin):
        pass

    with pytest.raises(PluginError, match="must also derive from lightning"):
        Bare().configure_reblur()


def test_entry_points_are_listed():
    assert {"ReblurLossMixin", "strip_reblur"} <= set(dir(reblurkit))
