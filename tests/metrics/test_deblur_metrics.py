"""The collection: values of what is available, reasons for what is not."""

from __future__ import annotations

import json

import pytest
import torch
from skimage import data as photos

from reblurkit.core.downloads import RemoteFile
from reblurkit.errors import ArgumentError, DownloadError, PluginError, ShapeError, WeightsError
from reblurkit.metrics import NIQE, PSNR, SSIM, DeblurMetrics, GradientStatistics, fit_pristine, niqe_model
from reblurkit.metrics.lpips import BACKBONES


def pair(batch=2, side=200):
    sharp = torch.from_numpy(photos.astronaut()[:side, :side].copy()).permute(2, 0, 1)[None] / 255
    sharp = sharp.repeat(batch, 1, 1, 1)
    return torch.nn.functional.avg_pool2d(sharp, 5, 1, 2), sharp


@pytest.fixture
def offline(closed_port, hub_cache, monkeypatch):
    file = RemoteFile(f"http://127.0.0.1:{closed_port}/file", "0" * 64)
    monkeypatch.setattr(niqe_model, "OFFICIAL", file)
    monkeypatch.setitem(BACKBONES, "alex", file)


@pytest.fixture(scope="module")
def model():
    return fit_pristine([torch.rand(3, 192, 288, generator=torch.Generator().manual_seed(0))], sharpness=0.0)


def test_without_a_network_the_rest_is_measured(offline):
    metrics = DeblurMetrics()
    metrics.update(*pair())
    values = metrics.compute()
    assert set(values) == {"psnr", "ssim", "gradient_ratio", "gradient_distance"}
    assert set(metrics.unavailable) == {"niqe", "lpips"}
    assert "cannot be downloaded" in metrics.unavailable["niqe"]
    assert "pass `weights=`" in metrics.unavailable["lpips"]
    for name, metric in {"psnr": PSNR(), "ssim": SSIM()}.items():
        metric.update(*pair())
        assert values[name] == metric.compute()
    statistics = GradientStatistics()
    statistics.update(*pair())
    assert {name: values[name] for name in statistics.compute()} == statistics.compute()


def test_metrics_are_replaced_added_and_left_out(offline, model):
    metrics = DeblurMetrics(ssim=None, gradients=None, lpips=None, niqe=lambda: NIQE(model), psnr_8_bit=PSNR(True))
    metrics.update(*pair())
    assert list(metrics.compute()) == ["psnr", "niqe", "psnr_8_bit"]
    assert metrics.unavailable == {}


def test_images_that_do_not_suit_a_metric_make_it_unavailable_until_reset(model):
    metrics = DeblurMetrics(lpips=None, niqe=NIQE(model))
    metrics.update(*pair())
    assert "niqe" in metrics.compute()
    metrics.update(*pair(side=100))
    metrics.update(*pair())
    assert "niqe" not in metrics.compute()
    assert "two blocks" in metrics.unavailable["niqe"]
    metrics.reset()
    assert metrics.unavailable == {}
    metrics.update(*pair())
    alone = NIQE(model)
    alone.update(*pair())
    assert metrics.compute()["niqe"] == alone.compute()


def test_what_is_missing_stays_missing_after_a_reset(offline):
    metrics = DeblurMetrics()
    metrics.reset()
    metrics.update(*pair())
    assert "lpips" not in metrics.compute()
    assert "lpips" in metrics.unavailable


def measure_in_two_processes(rank, folder, model):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    metrics = DeblurMetrics(lpips=None, niqe=NIQE(model))
    metrics.update(*pair(side=200 if rank == 0 else 100))
    values = {name: value.item() for name, value in metrics.compute().items()}
    (folder / f"{rank}.json").write_text(json.dumps([values, metrics.unavailable]))
    torch.distributed.destroy_process_group()


def test_what_one_process_cannot_measure_is_unavailable_in_all(model, tmp_path):
    torch.multiprocessing.spawn(measure_in_two_processes, (tmp_path, model), nprocs=2)
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    alone = PSNR()
    alone.update(*pair(side=200))
    alone.update(*pair(side=100))
    for values, unavailable in results:
        assert values["psnr"] == pytest.approx(alone.compute().item(), rel=1e-12)
        assert set(unavailable) == {"niqe"}
        assert "niqe" not in values
    assert results[0][1]["niqe"] == "another process could not measure it"
    assert "two blocks" in results[1][1]["niqe"]


def test_errors_of_the_user_are_not_hidden(tmp_path):
    with pytest.raises(ShapeError, match="same shape"):
        DeblurMetrics(niqe=None, lpips=None).update(torch.rand(1, 3, 20, 20), torch.rand(1, 3, 20, 21))
    with pytest.raises(WeightsError):
        DeblurMetrics(lpips=None, niqe=lambda: NIQE(tmp_path / "missing.npz"))
    with pytest.raises(ArgumentError, match="`sharpness` must be a torchmetrics Metric or make one, but is 3"):
        DeblurMetrics(niqe=None, lpips=None, sharpness=lambda: 3)
    with pytest.raises(PluginError, match="update"):
        DeblurMetrics(niqe=None, lpips=None)(*pair())


def test_an_error_in_use_is_not_taken_for_a_missing_metric():
    class Failing(PSNR):
        def per_image(self, preds, target):
            raise DownloadError("later")

    with pytest.raises(DownloadError):
        DeblurMetrics(niqe=None, lpips=None, failing=Failing).update(*pair())
