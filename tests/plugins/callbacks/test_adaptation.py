"""The callback against the pure function, in every entry point, and that nothing of it stays."""

from __future__ import annotations

import copy
import functools
import pickle
import shutil
import signal
import warnings

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, RichProgressBar, TQDMProgressBar
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn
from torch.utils.data import DataLoader

from reblurkit import TestTimeAdaptCallback
from reblurkit.adaptation import adapt
from reblurkit.cli import main
from reblurkit.errors import ArgumentError, PluginError
from reblurkit.metrics import PSNR, DeblurMetrics
from reblurkit.models import ReblurNet
from reblurkit.plugins import DeblurTask, DemoDataModule, ImageWriter
from reblurkit.plugins.callbacks.first_to_hear import FirstToHear
from tests.adaptation.test_batch import assert_same, state
from tests.conftest import BatchNormNet, DropoutNet, MultiScaleNet, PlainNet
from tests.plugins.mixins.test_reblur import Reblurred, loader

LR = 1e-2


class Module(Reblurred):
    """A user's module, which knows nothing of adaptation, with notes of what it saw."""

    def __init__(self, network=None, reblur_net=None):
        super().__init__(network or PlainNet(), reblur_net or ReblurNet(width=4))
        self.seen = []

    def step(self, batch):
        deblurred = self.network(batch["blurry"])
        self.seen.append(deblurred[-1] if isinstance(deblurred, list) else deblurred)
        return deblurred

    def test_step(self, batch, batch_idx):
        self.step(batch)

    validation_step = test_step

    def predict_step(self, batch, batch_idx):
        return self.step(batch)


def trainer(tmp_path, callback=None, **flags):
    flags = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False} | flags
    callbacks = [] if callback is None else callback if isinstance(callback, list) else [callback]
    return L.Trainer(
        accelerator="cpu", default_root_dir=tmp_path, enable_model_summary=False, callbacks=callbacks, **flags
    )


def run(tmp_path, module, callback=None, entry="test", batch_size=2, **flags):
    """What the module's step got from its network, over five images."""
    if isinstance(module, Module):
        module.seen = []
    arguments = {} if entry == "predict" else {"verbose": False}
    getattr(trainer(tmp_path, callback, **flags), entry)(module, loader(batch_size, 5), **arguments)
    return torch.cat(module.seen)


def wanted(module, **options):
    batches = list(loader(1, 5))
    results = [adapt(module.network, module.reblur, batch["blurry"], lr=LR, **options) for batch in batches]
    return torch.cat([result.image for result in results]), torch.cat([result.losses for result in results])


@pytest.mark.parametrize("network", [PlainNet, BatchNormNet, DropoutNet, MultiScaleNet])
@pytest.mark.parametrize("entry", ["test", "validate", "predict"])
def test_every_image_is_adapted_in_every_entry_point(tmp_path, entry, network):
    module = Module(network())
    module.eval()
    images, losses = wanted(module)
    callback, before = TestTimeAdaptCallback(lr=LR), state(module)
    plain = run(tmp_path, module, entry=entry)
    for batch_size in (1, 2, 4):
        assert torch.equal(run(tmp_path, module, callback, entry, batch_size), images)
        assert [image.index for image in callback.history] == list(range(5))
        torch.testing.assert_close(torch.tensor([image.losses for image in callback.history]), losses)
        assert all(image.seconds > 0 for image in callback.history)
    assert torch.equal(run(tmp_path, module, entry=entry), plain)
    assert not torch.equal(images, plain)
    assert "forward" not in vars(module.network)
    assert_same(state(module)[0][:2], before[0][:2])


class Inverts(nn.Module):
    """A reblurring network that makes another image of it, and so is of no use."""

    def forward(self, image):
        return 1 - image


class Nearly(nn.Module):
    """One that makes nearly the same image of it, and whose loss a large step raises."""

    def forward(self, image):
        return image + 0.05 * (image - 0.9)


def test_a_reblurring_network_that_has_learned_too_little_is_told_of(tmp_path):
    class Bright(nn.Module):
        def __init__(self):
            super().__init__()
            self.lift = nn.Parameter(torch.tensor(0.0))

        def forward(self, image):
            return 0.9 + 0.1 * image + self.lift

    with pytest.warns(UserWarning, match="of 5 of 5 images the reblurring network makes others"):
        run(tmp_path, Module(Bright()), TestTimeAdaptCallback(reblur=Inverts()))
    with pytest.warns(UserWarning, match="the loss of 5 of 5 images rose instead of falling: take a smaller `lr`"):
        run(tmp_path, Module(Bright()), TestTimeAdaptCallback(reblur=Nearly(), lr=1.0, steps=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        run(tmp_path, Module(Bright()), TestTimeAdaptCallback(reblur=Nearly(), lr=1e-6))


def test_the_weights_stay_as_they_are_during_a_run(tmp_path):
    class Watching(Module):
        def on_test_batch_end(self, outputs, batch, batch_idx, dataloader_idx=0):
            self.during = [name for name, value in self.state_dict().items() if not torch.equal(value, self.kept[name])]
            self.during += [name for name, parameter in self.named_parameters() if parameter.grad is not None]

    module = Watching(BatchNormNet())
    module.kept = {name: value.clone() for name, value in module.state_dict().items()}
    module.freeze()
    states = []
    for callback in (None, TestTimeAdaptCallback(lr=LR)):
        torch.manual_seed(1)  # the loader draws a seed
        run(tmp_path, module, callback)
        states.append(torch.get_rng_state())
    assert module.during == []
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert torch.equal(*states)


def test_never_inside_fit_and_then_in_test_with_the_same_trainer(tmp_path):
    callback, module = TestTimeAdaptCallback(lr=LR), Module()
    fit = trainer(tmp_path, callback, max_epochs=1)
    fit.fit(module, loader(), loader(2, 5))
    assert callback.history == []
    module.eval()
    images, module.seen = wanted(module)[0], []
    fit.test(module, loader(2, 5), verbose=False)
    assert torch.equal(torch.cat(module.seen), images)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, torch.OutOfMemoryError])
def test_nothing_stays_after_an_error(tmp_path, error):
    class Broken(Module):
        def test_step(self, batch, batch_idx):
            super().test_step(batch, batch_idx)
            if batch_idx == 1:
                raise error("broken")

    module = Broken(BatchNormNet())
    plain = run(tmp_path, module, entry="predict")
    before = state(module)
    with pytest.raises((error, SystemExit)):
        run(tmp_path, module, TestTimeAdaptCallback(lr=LR))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning ignores Ctrl-C while it shuts down
    assert "forward" not in vars(module.network)
    assert_same(state(module)[0][:2], before[0][:2])
    assert torch.equal(run(tmp_path, module, entry="predict"), plain)


class Rude(L.Callback):
    """A callback that fails when it is told of an exception."""

    def on_exception(self, *_):
        raise RuntimeError("rude")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_stays_when_another_callback_fails_at_the_exception(tmp_path, error):
    class Broken(Module):
        def test_step(self, batch, batch_idx):
            super().test_step(batch, batch_idx)
            raise error("broken")

    module, callback = Broken(), TestTimeAdaptCallback(lr=LR)
    plain = run(tmp_path, Module(module.network, module.reblur), entry="predict")
    mine = trainer(tmp_path)
    mine.callbacks = [Rude(), *mine.callbacks, callback]
    with pytest.raises(RuntimeError, match="rude"):
        mine.test(module, loader(), verbose=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning ignores Ctrl-C while it shuts down
    assert "forward" not in vars(module.network)
    assert not any(isinstance(each, FirstToHear) for each in mine.callbacks)
    assert torch.equal(run(tmp_path, Module(module.network, module.reblur), entry="predict"), plain)


@pytest.mark.parametrize("own", [False, True])
def test_copies_made_while_it_runs_carry_nothing_of_it(tmp_path, own):
    copies = []

    class Copying(L.Callback):
        def on_test_batch_start(self, trainer, pl_module, *_):
            copies.append(copy.deepcopy(pl_module.network))
            if not own:  # as a function of the user's own cannot be
                copies.append(pickle.loads(pickle.dumps(pl_module.network)))
            copies.append(copy.copy(pl_module.network))

    module = Module()
    module.eval()
    if own:
        module.network.forward = functools.partial(PlainNet.forward, module.network)
    blurry = next(iter(loader(1, 1)))["blurry"]
    plain, callback = module.network(blurry), TestTimeAdaptCallback(lr=LR)
    mine = trainer(tmp_path, callback)
    mine.callbacks = [*mine.callbacks, Copying()]
    mine.test(module, loader(1, 1), verbose=False)
    assert not torch.equal(module.seen[0], plain)
    assert len(copies) == (2 if own else 3)
    with torch.no_grad():  # copies that are made in inference mode are for that
        for each in copies:
            assert torch.equal(each(blurry), plain)
            assert torch.equal(copy.deepcopy(each)(blurry), plain)
    assert len(callback.history) == 1


def test_an_error_inside_the_adaptation_leaves_nothing_and_the_next_run_adapts(tmp_path):
    class Broken(torch.optim.SGD):
        def step(self, closure=None):
            raise torch.OutOfMemoryError("simulated")

    module = Module()
    with pytest.raises(torch.OutOfMemoryError):
        run(tmp_path, module, TestTimeAdaptCallback(optimizer=Broken))
    assert "forward" not in vars(module.network)
    assert torch.equal(run(tmp_path, module, TestTimeAdaptCallback(lr=LR)), wanted(module)[0])


def test_a_forward_of_the_users_own_is_put_back(tmp_path):
    module = Module()
    mine = module.network.forward
    module.network.forward = mine
    run(tmp_path, module, TestTimeAdaptCallback())
    assert vars(module.network)["forward"] is mine


@pytest.mark.parametrize("flags", [{"inference_mode": False}, {"precision": "bf16-mixed"}, {"precision": "bf16-true"}])
def test_precision_and_grad_modes(tmp_path, flags):
    module, callback = Module(), TestTimeAdaptCallback(lr=LR)
    plain = run(tmp_path, module, **flags)
    if flags.get("precision") == "bf16-true":
        with pytest.warns(UserWarning, match="half precision, which rounds adaptation's small steps away"):
            adapted = run(tmp_path, module, callback, **flags)
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*half precision.*")
            adapted = run(tmp_path, module, callback, **flags)
    assert adapted.dtype == plain.dtype
    assert all(len(set(image.losses)) > 3 for image in callback.history)
    if flags == {"inference_mode": False}:
        assert torch.equal(adapted, wanted(module)[0])


@pytest.mark.parametrize("after_fit", [False, True])
@pytest.mark.parametrize("what", ["network in place", "network", "module"])
def test_compiled(tmp_path, what, after_fit):
    module = Module()
    if after_fit:
        trainer(tmp_path, max_steps=1).fit(module, loader())
    module.eval()
    images, _ = wanted(module)
    compiled = module
    if what == "network in place":
        module.network.compile(backend="aot_eager")
    elif what == "network":
        module.network = torch.compile(module.network, backend="aot_eager")
    else:
        compiled = torch.compile(module, backend="aot_eager")
    run_compiled = lambda callback=None: (module.seen.clear(), run_on(tmp_path, compiled, module, callback))[1]  # noqa: E731
    plain = run_compiled()  # compiled code that has run must notice the callback
    callback = TestTimeAdaptCallback(lr=LR)
    torch.testing.assert_close(run_compiled(callback), images, rtol=0, atol=1e-5)
    assert len(callback.history) == 5
    assert torch.equal(run_compiled(), plain)


def run_on(tmp_path, compiled, module, callback):
    trainer(tmp_path, callback).test(compiled, loader(2, 5), verbose=False)
    return torch.cat(module.seen)


@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("what", ["network", "module"])
def test_inductor_trains_and_then_adapts(tmp_path, what):
    module = Module()
    if what == "network":
        module.network = torch.compile(module.network)
    compiled = torch.compile(module) if what == "module" else module
    start = copy.deepcopy(module.network.state_dict())
    trainer(tmp_path, max_steps=1).fit(compiled, loader())
    assert not all(torch.equal(value, start[name]) for name, value in module.network.state_dict().items())
    module.eval()
    images, _ = wanted(module)
    module.seen.clear()
    adapted = run_on(tmp_path, compiled, module, TestTimeAdaptCallback(lr=LR))
    torch.testing.assert_close(adapted, images, rtol=0, atol=1e-4)


def test_averaged_weights(tmp_path):
    module, callback = Module(), TestTimeAdaptCallback(lr=LR)
    averaged = trainer(tmp_path, [EMAWeightAveraging(decay=0.5), callback], max_epochs=1)
    averaged.fit(module, loader())
    module.eval()
    images, module.seen = wanted(module)[0], []
    averaged.test(module, loader(2, 5), verbose=False)
    assert torch.equal(torch.cat(module.seen), images)


def test_a_network_with_several_inputs_by_keyword(tmp_path):
    class Guided(PlainNet):
        def forward(self, *, image, guide, strength=1.0):
            return super().forward(image + strength * guide)

    class TwoImages(Module):
        def step(self, batch):
            self.seen.append(self.network(image=batch["blurry"], guide=batch["sharp"], strength=0.5))

    module = TwoImages(Guided())
    one, four = (run(tmp_path, module, TestTimeAdaptCallback(lr=LR), batch_size=size) for size in (1, 4))
    assert torch.equal(one, four)
    assert not torch.equal(one, run(tmp_path, module))


def test_a_cached_tensor_is_explained(tmp_path):
    class Caches(PlainNet):
        mask = None

        def forward(self, image):
            if self.mask is None:
                self.mask = torch.ones(3, 1, 1)
            return super().forward(image) * self.mask

    module = Module(Caches())
    run(tmp_path, module)
    with pytest.raises(PluginError, match=r"in\s+Lightning by Trainer\(inference_mode=False\)"):
        run(tmp_path, module, TestTimeAdaptCallback())
    module.network.mask = None
    run(tmp_path, module, inference_mode=False)
    run(tmp_path, module, TestTimeAdaptCallback(), inference_mode=False)


def test_a_reblurring_network_from_elsewhere(tmp_path):
    class Plain(Module):
        configure_reblur = lambda *_, **__: None  # noqa: E731
        configure_callbacks = L.LightningModule.configure_callbacks

    module, reblur_net = Plain(), ReblurNet(width=4)
    before = state(reblur_net)
    adapted = run(tmp_path, module, TestTimeAdaptCallback(reblur=reblur_net, lr=LR, steps=1))
    assert_same(state(reblur_net)[0], before[0])
    module.reblur = reblur_net
    assert torch.equal(adapted, wanted(module, steps=1)[0])


def test_options_reach_the_adaptation(tmp_path):
    module = Module(BatchNormNet())
    module.eval()
    options = {"steps": 2, "parameters": "norm", "match_histogram": False, "anchor": 1.0, "tile": 4}
    adapted = run(tmp_path, module, TestTimeAdaptCallback(lr=LR, **options))
    assert torch.equal(adapted, wanted(module, **options)[0])


def test_metrics_before_and_after(tmp_path):
    task = DeblurTask(PlainNet(), ReblurNet(width=4))
    images = torch.rand(5, 2, 3, 16, 16)
    data = DataLoader([{"blurry": blurry, "sharp": sharp, "name": "photo"} for blurry, sharp in images], batch_size=2)
    (plain,) = trainer(tmp_path).test(task, data, verbose=False)
    metrics = DeblurMetrics(niqe=None, lpips=None, gradients=None)
    for measure, names in ((metrics, ("psnr", "ssim")), (PSNR(), ("psnr",))):
        callback = TestTimeAdaptCallback(steps=1, lr=0.1, metrics=measure)
        (adapted,) = trainer(tmp_path, callback).test(task, data, verbose=False)
        for name in names:
            assert adapted[f"test/{name}_plain"] == pytest.approx(plain[f"test/{name}"], abs=1e-6)
            assert adapted[f"test/{name}_adapted"] == pytest.approx(adapted[f"test/{name}"], abs=1e-6)
            assert adapted[f"test/{name}"] != plain[f"test/{name}"]
        (validated,) = trainer(tmp_path, callback).validate(task, data, verbose=False)
        assert {f"val/{name}_plain" for name in names} <= set(validated)
    with pytest.raises(PluginError, match="need batches with 'sharp' and one call of the network"):
        run(tmp_path, TwiceCalling(), TestTimeAdaptCallback(metrics=PSNR()))


class TwiceCalling(Module):
    def step(self, batch):
        super().step(batch)
        super().step({"blurry": batch["blurry"].flip(-1)})


def test_a_network_called_twice_in_a_step_is_adapted_twice(tmp_path):
    callback = TestTimeAdaptCallback()
    run(tmp_path, TwiceCalling(), callback)
    assert [image.index for image in callback.history] == list(range(10))


def test_predictions_are_written_by_the_image_writer(tmp_path):
    task, data, folder = DeblurTask(PlainNet(), ReblurNet(width=4)), DemoDataModule(crop=16), tmp_path / "out"
    callbacks = [TestTimeAdaptCallback(steps=1, lr=0.1), ImageWriter(str(folder))]
    (first, _) = trainer(tmp_path, callbacks).predict(task, data)
    (plain, _) = trainer(tmp_path).predict(task, data)
    assert not torch.equal(first["deblurred"], plain["deblurred"])
    assert sorted(path.name for path in folder.iterdir()) == ["chelsea.png", "stereo_motorcycle.png"]


def test_a_loss_that_is_not_finite_warns_once_and_is_counted(tmp_path):
    module, callback = Module(), TestTimeAdaptCallback()
    nn.init.constant_(module.reblur.layers[0].bias, float("nan"))
    plain = run(tmp_path, module, batch_size=1)
    with pytest.warns(UserWarning, match="image 0 became NaN or infinite: its plain output is kept") as caught:
        adapted = run(tmp_path, module, callback)
    assert sum("plain output" in str(warning.message) for warning in caught) == 1
    assert callback.failures == 5
    assert torch.equal(adapted, plain)


@pytest.mark.parametrize("bar", [TQDMProgressBar, RichProgressBar])
@pytest.mark.parametrize("entry", ["test", "validate", "predict"])
def test_progress_shows_images_steps_and_loss(tmp_path, capsys, bar, entry):
    run(tmp_path, Module(), [TestTimeAdaptCallback(steps=2), bar()], entry, enable_progress_bar=True)
    shown = "".join(capsys.readouterr())
    assert "image 5, step 2/2, loss " in shown


def test_wiring_that_cannot_work(tmp_path):
    class NeverCalls(Module):
        def step(self, batch):
            self.seen.append(batch["blurry"])

    with pytest.raises(PluginError, match=r"no submodule at 'net'; its submodules are: network, reblur"):
        run(tmp_path, Module(), TestTimeAdaptCallback(network="net"))
    with pytest.raises(PluginError, match=r"no reblurring network: Module has no submodule at 'm_r'.*network, reblur;"):
        run(tmp_path, Module(), TestTimeAdaptCallback(reblur="m_r"))
    with pytest.raises(PluginError, match=r"nothing was adapted: NeverCalls.test_step never called .* 'network'"):
        run(tmp_path, NeverCalls(), TestTimeAdaptCallback())
    with pytest.raises(ArgumentError, match="Identity has no parameters"):
        run(tmp_path, Module(nn.Identity()), TestTimeAdaptCallback())
    with pytest.raises(ArgumentError, match="must not share parameters"):
        run(tmp_path, Module(), TestTimeAdaptCallback(reblur="network"))
    for options in ({"steps": -1}, {"lr": 0.0}, {"parameters": "some"}):
        with pytest.raises(ArgumentError):
            TestTimeAdaptCallback(**options)
    split = trainer(tmp_path)
    split.strategy.__class__ = FSDPStrategy
    with pytest.raises(PluginError, match="cannot be adapted under FSDPStrategy"):
        TestTimeAdaptCallback().setup(split, Module(), "test")
    TestTimeAdaptCallback().setup(split, Module(), "fit")


def test_from_the_command_line(tmp_path, capsys):
    words = ["test", "--model=DeblurTask", "--model.network=UNet", "--model.network.widths=[4, 4, 4]"]
    words += ["--model.network.blocks=0", "--model.reblur_net=ReblurNet", "--model.reblur_net.width=4"]
    words += ["--data=DemoDataModule", "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]
    words += ["--trainer.limit_test_batches=1"]
    adapting = ["--trainer.callbacks+=TestTimeAdaptCallback", "--trainer.callbacks.steps=1"]
    adapting += ["--trainer.callbacks.lr=0.01", "--trainer.callbacks.metrics=reblurkit.metrics.PSNR"]
    adapting += ["--trainer.callbacks.optimizer=torch.optim.SGD"]
    assert main([*words, *adapting]) == 0
    assert "test/psnr_plain" in capsys.readouterr().out
    assert main([*words, *adapting, "--trainer.callbacks.steps=-1"]) == 2
    assert "`steps` of adaptation" in capsys.readouterr().err


def test_a_configuration_file_names_the_callback(tmp_path):
    file = tmp_path / "adapt.yaml"
    file.write_text(
        "trainer:\n  accelerator: cpu\n  limit_test_batches: 1\n  callbacks:\n"
        "    - class_path: TestTimeAdaptCallback\n"
        "      init_args: {steps: 1, parameters: ['up*.bias'], histogram_bins: null}\n"
        "model:\n  class_path: DeblurTask\n  init_args:\n"
        "    network: {class_path: UNet, init_args: {blocks: 0, widths: [4, 4, 4]}}\n"
        "    reblur_net: {class_path: ReblurNet, init_args: {width: 4}}\n"
        "data: {class_path: DemoDataModule}\n"
    )
    assert main(["test", "--config", str(file), f"--trainer.default_root_dir={tmp_path}"]) == 0


def test_two_callbacks_on_one_network_are_refused_and_leave_nothing(tmp_path):
    module = Module()
    with pytest.raises(PluginError, match="two callbacks adapt the network at 'network'"):
        run(tmp_path, module, [TestTimeAdaptCallback(steps=1), TestTimeAdaptCallback(steps=2)])
    assert "forward" not in vars(module.network)
    assert len(run(tmp_path, module, TestTimeAdaptCallback(steps=1))) == 5


def test_a_metric_by_name_is_refused():
    with pytest.raises(ArgumentError, match="`metrics` must be a metric"):
        TestTimeAdaptCallback(metrics="psnr")
