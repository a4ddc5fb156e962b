from __future__ import annotations

import re
from functools import partial

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from reblurkit.blur import ShakeBlur
from reblurkit.errors import ArgumentError, PluginError, ShapeError, WeightsError
from reblurkit.metrics import PSNR, SSIM, ReblurPSNR
from reblurkit.models import FoldedUNet, PatchGAN, ReblurNet, UNet, load_pretrained
from reblurkit.plugins import DeblurTask, DemoDataModule, ImageLogger, ImageWriter
from reblurkit.plugins.tasks.deblur import WeightedLoss
from tests.conftest import MultiScaleNet, PlainNet


def data():
    return DemoDataModule(batch_size=2, crop=16, crops_per_photo=4, blur=ShakeBlur(5, 0.5))


def trainer(tmp_path, **flags):
    flags = {"max_epochs": 1, "logger": False, "enable_checkpointing": False} | flags
    return L.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **flags,
    )


@pytest.mark.parametrize("reblur_net", [None, ReblurNet(width=4)])
@pytest.mark.parametrize("network", [UNet(1, (4, 4, 4)), MultiScaleNet()])
def test_fit_and_test_log_what_they_promise(tmp_path, network, reblur_net):
    task, run = DeblurTask(network, reblur_net), trainer(tmp_path)
    run.fit(task, data())
    always = {"lr-network", "train/loss", "val/psnr", "val/psnr_blurry", "val/ssim"}
    with_reblur = {"train/loss_reblur", "train/loss_blur", "train/loss_sharp", "lr-reblur"}
    with_reblur |= {"val/reblur_psnr", "val/preserved_psnr"}
    assert set(run.logged_metrics) == always | (with_reblur if reblur_net else set())
    (results,) = run.test(task, data(), verbose=False)
    assert {"test/psnr", "test/ssim", "test/gradient_ratio", "test/gradient_distance"} <= set(results)
    assert ("test/reblur_psnr" in results) == (reblur_net is not None)


def _compiled(network):
    return torch.compile(network, backend="eager")


def _as_it_is(network):
    return network


def test_checkpoints_fit_whether_or_not_networks_are_compiled(tmp_path):
    for saved, loaded in ((_compiled, _as_it_is), (_as_it_is, _compiled)):
        task, other = DeblurTask(saved(PlainNet())), DeblurTask(loaded(PlainNet()))
        path = tmp_path / "a.ckpt"
        torch.save({"state_dict": task.state_dict(), "pytorch-lightning_version": "2.6.0"}, path)
        (results,) = trainer(tmp_path).test(other, data(), ckpt_path=path, weights_only=True, verbose=False)
        assert "test/psnr" in results
        assert all(torch.equal(a, b) for a, b in zip(task.parameters(), other.parameters(), strict=True))


def test_metrics_are_those_of_the_clamped_output(tmp_path):
    task, module = DeblurTask(PlainNet(), ReblurNet(width=4)), data()
    (results,) = trainer(tmp_path).test(task, module, verbose=False)
    psnr, ssim, reblur_psnr = PSNR(), SSIM(), ReblurPSNR()
    with torch.no_grad():
        for batch in module.test_dataloader():
            deblurred = task.network(batch["blurry"]).clamp(0, 1)
            psnr.update(deblurred, batch["sharp"])
            ssim.update(deblurred, batch["sharp"])
            reblur_psnr.update(task.reblur(deblurred).clamp(0, 1), batch["blurry"])
    assert results["test/psnr"] == pytest.approx(psnr.compute().item(), rel=1e-6)
    assert results["test/ssim"] == pytest.approx(ssim.compute().item(), rel=1e-6)
    assert results["test/reblur_psnr"] == pytest.approx(reblur_psnr.compute().item(), rel=1e-6)


def test_the_papers_schedule_halves_both_learning_rates(tmp_path):
    task, seen = DeblurTask(PlainNet(), ReblurNet(width=4)), []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            own = pl_module._auxiliary._networks["reblur"].optimizer
            seen.append(tuple(o.param_groups[0]["lr"] for o in (trainer.optimizers[0], own)))

    trainer(tmp_path, max_epochs=-1, max_steps=20, callbacks=[Watch()], limit_val_batches=0).fit(task, data())
    rates = [1e-4] * 9 + [5e-5] * 5 + [2.5e-5] * 3 + [1.25e-5] * 3  # after steps 10, 15 and 18
    assert seen == [pytest.approx((rate, rate)) for rate in rates]


def test_a_users_optimizer_and_scheduler(tmp_path):
    task = DeblurTask(
        PlainNet(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
    )
    run = trainer(tmp_path, max_epochs=2)
    run.fit(task, data())
    assert isinstance(run.optimizers[0], torch.optim.SGD)
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.025)


def test_objects_are_kept_out_of_the_checkpoint(tmp_path):
    task, run = DeblurTask(PlainNet(), ReblurNet(width=4), loss=nn.MSELoss()), trainer(tmp_path)
    run.fit(task, data())
    run.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert not checkpoint.get("hyper_parameters")
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {"network", "reblur"}
    again = DeblurTask.load_from_checkpoint(
        tmp_path / "a.ckpt", network=PlainNet(), reblur_net=ReblurNet(width=4), weights_only=True
    )
    torch.testing.assert_close(again.state_dict(), task.state_dict(), rtol=0, atol=0)


def test_the_loss_is_the_users(tmp_path):
    class Marked(nn.Module):
        def forward(self, deblurred, sharp):
            return 0 * deblurred.sum() + 7

    run = trainer(tmp_path, limit_val_batches=0)
    run.fit(DeblurTask(PlainNet(), loss=Marked()), data())
    assert run.logged_metrics["train/loss"] == 7


def test_pictures_are_drawn_and_predictions_written(tmp_path):
    run = trainer(tmp_path, callbacks=[ImageLogger(images=1), ImageWriter(str(tmp_path / "out"))], max_epochs=2)
    task = DeblurTask(PlainNet())
    run.fit(task, data())
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["val-epoch=0.png", "val-epoch=1.png"]
    run.predict(task, data(), return_predictions=False)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["chelsea.png", "stereo_motorcycle.png"]
    with pytest.raises(ArgumentError, match=r"chelsea\.png exists already and is not overwritten"):
        run.predict(task, data(), return_predictions=False)


def test_names_do_not_lead_out_of_the_folder(tmp_path):
    writer = ImageWriter(str(tmp_path / "out"))
    with pytest.raises(PluginError, match=r"a dict with 'deblurred'.* but Module.predict_step returned Tensor"):
        writer.on_predict_batch_end(None, nn.Module(), torch.zeros(1), None, 0)
    writer.on_predict_start(None, None)
    outputs = {"deblurred": torch.rand(1, 3, 4, 4), "name": ["../escaped"]}
    with pytest.raises(ArgumentError, match="leads out of the folder"):
        writer.on_predict_batch_end(None, None, outputs, {}, 0)
    assert not (tmp_path / "escaped.png").exists()


def test_loggers_that_take_pictures_get_them(tmp_path):
    class Album(CSVLogger):
        images = ()

        def log_image(self, key, images, step):
            self.images += ((key, images[0].size, step),)

    album = Album(tmp_path)
    trainer(tmp_path, callbacks=[ImageLogger(images=1)], logger=album).fit(DeblurTask(PlainNet()), data())
    ((key, size, step),) = album.images
    assert (key, step) == ("val/images", 6)
    assert size[0] > 1000


class Shrinking(nn.Module):
    def forward(self, image):
        return image[..., ::2]


def run_step(network, batch):
    return DeblurTask(network).training_step(batch, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reblur_weight": -1}, "`reblur_weight` must be at least 0 and finite, but is -1"),
        ({"reblur_sharpness": "fake"}, "`reblur_sharpness` must be one of"),
        ({"reblur_warmup": -1}, "`reblur_warmup` must be at least 0 steps"),
        ({"reblur_every": 0}, "`reblur_every` must be a whole number of steps"),
        ({"adversarial_weight": -1}, "`adversarial_weight` must be at least 0"),
        ({"adversarial": "rgan"}, "`adversarial` must be one of vanilla, hinge, lsgan, wgan, but is 'rgan'"),
        ({"optimizer": 3}, "`optimizer` must be a function that builds one, but is a int object"),
        ({"scheduler": 3}, "`scheduler` must be a function that builds one"),
        ({"loss": 3}, "`loss` must be called with two images, but is 3"),
    ],
)
def test_errors_name_the_arguments_that_the_user_gave(options, message):
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}"):
        DeblurTask(PlainNet(), ReblurNet(width=2), discriminator=PatchGAN(width=4, layers=1), **options)
    if options.keys() <= {"optimizer", "scheduler"}:
        with pytest.raises(ArgumentError, match=f"^{re.escape(message)}"):
            DeblurTask(PlainNet(), **options)


def test_wrong_networks_and_batches():
    image = torch.rand(1, 3, 8, 8)
    pair = {"blurry": image, "sharp": image, "name": ["a"]}
    with pytest.raises(ShapeError, match=r"Shrinking must keep the shape .*\(1, 3, 8, 8\), but .*\(1, 3, 8, 4\)"):
        run_step(Shrinking(), pair)
    with pytest.raises(ArgumentError, match=r"keys 'blurry' and 'sharp', but is \['input', 'target'\]"):
        run_step(PlainNet(), {"input": image, "target": image})
    with pytest.raises(ArgumentError, match="but is list"):
        run_step(PlainNet(), [image, image])
    with pytest.raises(ArgumentError, match="divide 8-bit images by 255"):
        run_step(PlainNet(), {"blurry": 255 * image, "sharp": 255 * image})
    with pytest.raises(ArgumentError, match="but it returned dict"):
        run_step(Dict(), pair)
    with pytest.raises(ArgumentError, match=r"`network` must be an nn\.Module, but is 'unet'"):
        DeblurTask("unet")


class Dict(nn.Module):
    def forward(self, image):
        return {"image": image}


def test_the_network_starts_from_that_in_the_box():
    shipped = load_pretrained()
    network = FoldedUNet(**shipped.card["network"]["arguments"])
    DeblurTask(network, weights="base")
    for name, value in network.state_dict().items():
        assert torch.equal(value, shipped.network.state_dict()[name])
    with pytest.raises(
        WeightsError, match="the network of 'base' does not fit this PlainNet; it is a FoldedUNet with widths="
    ):
        DeblurTask(PlainNet(), weights="base")


def test_a_reblurring_network_from_a_checkpoint_judges_alone(tmp_path):
    first, run = DeblurTask(PlainNet(), ReblurNet(width=4)), trainer(tmp_path)
    run.fit(first, data())
    run.save_checkpoint(tmp_path / "learned.ckpt")
    task = DeblurTask(
        PlainNet(),
        ReblurNet(width=4),
        reblur_weights=str(tmp_path / "learned.ckpt"),
        reblur_learns=False,
        reblur_every=3,
    )
    start = {name: value.clone() for name, value in task.network.state_dict().items()}
    trainer(tmp_path).fit(task, data())
    for name, value in task.reblur.state_dict().items():
        assert torch.equal(value, first.reblur.state_dict()[name])
    assert not all(torch.equal(value, start[name]) for name, value in task.network.state_dict().items())
    assert task._auxiliary.steps("reblur") == 0


@pytest.mark.parametrize(
    ("reblur_net", "options", "message"),
    [
        (None, {"reblur_weights": "base"}, "`reblur_weights` is of the reblurring network, but there is none"),
        (None, {"reblur_learns": False}, "`reblur_learns` is of the reblurring network, but there is none"),
        (
            ReblurNet(width=4),
            {"reblur_learns": False},
            "must have learned before; name its weights by `reblur_weights`",
        ),
        (ReblurNet(width=4), {"reblur_learns": "no"}, "`reblur_learns` must be true or false, but is 'no'"),
        (ReblurNet(width=4).requires_grad_(False), {"reblur_warmup": 5}, "leave out `reblur_warmup`, which is 5"),
    ],
)
def test_a_reblurring_network_that_has_not_learned_does_not_judge(reblur_net, options, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        DeblurTask(PlainNet(), reblur_net, **options)


def test_the_schedule_needs_an_end(tmp_path):
    with pytest.raises(PluginError, match="set max_epochs or max_steps"):
        trainer(tmp_path, max_epochs=-1).fit(DeblurTask(PlainNet()), data())


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([nn.MSELoss()], "losses by name"),
        ({"train": WeightedLoss(nn.MSELoss())}, "one word"),
        ({"keys": WeightedLoss(nn.MSELoss())}, "one word"),
        ({"mse": WeightedLoss(nn.MSELoss)}, "object"),
        ({"mse": WeightedLoss(nn.MSELoss(), -1.0)}, "weight of the extra loss 'mse'"),
        ({"mse": WeightedLoss(nn.MSELoss(), float("nan"))}, "weight of the extra loss 'mse'"),
    ],
)
def test_wrong_extra_losses(extra, message):
    with pytest.raises(ArgumentError, match=message):
        DeblurTask(PlainNet(), extra_losses=extra)


def test_rates_of_optimizers_that_train_little_or_nothing(tmp_path):
    class Idle(DeblurTask):
        def configure_optimizers(self):
            return None

    def second_group(parameters):
        return torch.optim.Adam([{"params": []}, {"params": list(parameters), "lr": 1e-3}])

    run = trainer(tmp_path)
    run.fit(
        DeblurTask(
            PlainNet(), optimizer=second_group, scheduler=partial(torch.optim.lr_scheduler.ConstantLR, factor=1)
        ),
        data(),
    )
    assert run.callback_metrics["lr-network"] == pytest.approx(1e-3)
    run = trainer(tmp_path)
    run.fit(Idle(PlainNet()), data())
    assert "lr-network" not in run.callback_metrics


def test_a_rate_that_numpy_has_computed_is_saved_as_a_number(tmp_path):
    task, run = (
        DeblurTask(PlainNet(), optimizer=lambda each: torch.optim.Adam(each, np.float64(1e-4))),
        trainer(tmp_path),
    )
    run.fit(task, data())
    run.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert type(saved["optimizer_states"][0]["param_groups"][0]["initial_lr"]) is float
    trainer(tmp_path, max_epochs=2).fit(DeblurTask(PlainNet()), data(), ckpt_path=tmp_path / "last.ckpt")
