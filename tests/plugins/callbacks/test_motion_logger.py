from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

from reblurkit import FlowReblurFinetuneCallback
from reblurkit.errors import ArgumentError, PluginError
from reblurkit.plugins import MotionLogger
from tests.conftest import BatchNormNet, DropoutNet, PlainNet, TinyFlow
from tests.plugins.callbacks.test_flow_reblur import Clips, callback
from tests.plugins.mixins.test_reblur import Plain, assert_bit_equal, loader, trainer


class TakesPictures(CSVLogger):
    def log_image(self, key, images, step):
        self.taken = [*getattr(self, "taken", []), (key, images[0].size, step)]


def test_pictures_are_written_and_handed_to_loggers(tmp_path):
    logger = TakesPictures(tmp_path, name="", version="run")
    run = trainer(tmp_path, callbacks=[MotionLogger(clips=2, every_n_steps=3), callback()], max_epochs=2, logger=logger)
    run.fit(Plain(PlainNet()), loader())
    names = sorted(path.name for path in (tmp_path / "run" / "images").iterdir())
    assert names == ["motion-step=3.png", "motion-step=6.png", "motion-step=8.png"]
    assert [(key, step) for key, _, step in logger.taken] == [("train/motion", step) for step in (3, 6, 8)]
    with Image.open(tmp_path / "run" / "images" / names[0]) as picture:
        assert picture.size == logger.taken[0][1]


def test_before_is_the_network_that_fit_began_with(tmp_path):
    network, flow = PlainNet(), TinyFlow()
    start = copy.deepcopy((network, flow))
    drawer = MotionLogger()
    trainer(tmp_path, callbacks=[callback(flow), drawer], max_epochs=1).fit(Plain(network), loader())
    with torch.no_grad():
        expected = callback(start[1]).evaluate(start[0], Clips().clips[:1])
    torch.testing.assert_close(drawer._before.deblurred, expected.deblurred)
    torch.testing.assert_close(drawer._before.flow_prev, expected.flow_prev)


@pytest.mark.parametrize("network", [BatchNormNet, DropoutNet])
def test_training_is_the_same_without(tmp_path, network):
    module, flow = Plain(network()), TinyFlow()
    results = []
    for extra in ([], [MotionLogger(every_n_steps=1)]):
        tuned, its_flow = copy.deepcopy((module, flow))
        torch.manual_seed(5)
        finetune = callback(its_flow, unlabelled=DataLoader(Clips(), 2, shuffle=True))
        trainer(tmp_path, callbacks=[finetune, *extra], max_epochs=1).fit(tuned, loader())
        results.append((tuned, its_flow))
    for one, other in zip(*results, strict=True):
        assert_bit_equal(one, other)


class Stream(IterableDataset):
    def __iter__(self):
        yield from Clips()


def test_wrong_use(tmp_path):
    with pytest.raises(ArgumentError, match="must be at least 1"):
        MotionLogger(clips=0)
    with pytest.raises(PluginError, match="no such callback"):
        trainer(tmp_path, callbacks=[MotionLogger()]).fit(Plain(PlainNet()), loader())
    finetune = FlowReblurFinetuneCallback(DataLoader(Stream(), 2), flow=TinyFlow(), exposure=0.5)
    with pytest.raises(ArgumentError, match="Stream has no clip by index"):
        trainer(tmp_path, callbacks=[finetune, MotionLogger()]).fit(Plain(PlainNet()), loader())
