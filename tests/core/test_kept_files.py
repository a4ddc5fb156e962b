from __future__ import annotations

import pytest
import torch

from reblurkit.core.kept_files import KeptFiles, kept_contents, read_or_kept
from reblurkit.errors import WeightsError
from reblurkit.metrics import LPIPS, NIQE, fit_pristine


def missing():
    raise WeightsError("none.pth")


def test_a_file_is_read_once_and_then_kept():
    assert read_or_kept("a", lambda: {"x": torch.ones(2)})["x"].sum() == 2  # nothing is kept outside a block
    kept = KeptFiles()
    with kept.in_use():
        assert read_or_kept("a", lambda: {"x": torch.ones(2)})["x"].sum() == 2
        assert read_or_kept("a", missing)["x"].sum() == 2
        with pytest.raises(WeightsError, match="none"):
            read_or_kept("b", missing)
    again = KeptFiles(kept_contents({"reblurkit": {"files": kept.used}}), restoring=True)
    with again.in_use():
        assert read_or_kept("a", missing)["x"].sum() == 2
        assert read_or_kept("c", lambda: {"x": torch.zeros(1)})["x"] == 0  # one that is asked for anew
    assert sorted(again.used) == ["a", "c"]


@pytest.mark.parametrize("checkpoint", [{}, {"reblurkit": 3}, {"reblurkit": {"network": "network"}}])
def test_checkpoints_that_keep_nothing(checkpoint):
    assert kept_contents(checkpoint) == {}


def test_metrics_of_a_checkpoint_whose_networks_are_all_that_is_wanted_read_nothing(tmp_path, hub_cache):
    with KeptFiles(needed=False).in_use():
        NIQE(tmp_path / "none.npz")
        LPIPS(weights=tmp_path / "none.pth")
    assert not hub_cache.exists()
    model = fit_pristine(torch.rand(2, 3, 192, 192), sharpness=0.0)
    model.save(tmp_path / "mine.npz")
    kept = KeptFiles()
    with kept.in_use():
        NIQE(tmp_path / "mine.npz")
    (tmp_path / "mine.npz").unlink()
    with kept.in_use():
        assert torch.equal(NIQE(tmp_path / "mine.npz").pristine.mean, model.mean)
