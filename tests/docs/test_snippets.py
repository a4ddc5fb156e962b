"""Every block of Python on a page runs as it stands, one after the other, with what the page says that one has."""

from __future__ import annotations

import lightning as L
import pytest
import torch

import reblurkit
from reblurkit import models
from reblurkit.cli import main
from tests.blur.test_kernel_estimate import scene
from tests.docs.pages import DOCS, ROOT, blocks, commands

QUICKSTART = DOCS / "start/quickstart.md"
PAGES = sorted({block.page for block in blocks("python")} - {QUICKSTART})
# Pages that are read first take nothing for granted: all that they name is in their own lines, or in the folder.
COMPLETE = {ROOT / "README.md", QUICKSTART, DOCS / "networks_and_data/pretrained.md"}
TRAINED = "lightning_logs/version_0/checkpoints/best.ckpt"


class Begun(reblurkit.ReblurLossMixin, L.LightningModule):
    """A module of the reader's whose ``__init__`` has come to where the loss is set up."""

    def __init__(self):
        super().__init__()
        self.network = models.UNet()


def givens():
    """What pages take for granted that their readers have."""
    torch.manual_seed(0)
    network, reblur_net = models.UNet(), models.ReblurNet(width=4)
    blurry, sharp = torch.rand(2, 1, 3, 256, 256)
    data = reblurkit.PairedDataModule("my_photos")
    return {
        "network": network,
        "reblur_net": reblur_net,
        "module": reblurkit.DeblurTask(models.UNet(), models.ReblurNet(width=4)),
        "self": Begun(),
        "discriminator": models.PatchGAN(width=4),
        "network_optimizer": torch.optim.SGD(network.parameters(), 0.1),
        "reblur_optimizer": torch.optim.SGD(reblur_net.parameters(), 0.1),
        "data": data,
        "labelled_data": data,
        "photo": blurry,
        "photos": [scene(side=256)],
        "blurry": blurry,
        "sharp": sharp,
        "known_blurry": blurry,
        "known_sharp": sharp,
        "deblurred": network(blurry),
    }


def run(page, names):
    """Run a page's blocks in one namespace; a failure shows the page and its line."""
    for block in blocks("python", [page]):
        code = "\n" * block.line + block.code  # so that tracebacks have the page's own lines
        exec(compile(code, str(page), "exec"), names)
    return names


@pytest.fixture
def files(world, small):
    """Files of weights and checkpoints that pages name."""
    torch.save(models.UNet().state_dict(), "official.pth")
    torch.save(models.create_model("dmphn-1-2-4-8").state_dict(), "DMPHN_1_2_4_8")
    translator = reblurkit.Blur2BlurTranslator(known_blur=torch.nn.Identity())
    task = reblurkit.DeblurTask(models.UNet(), models.ReblurNet(blocks=2))
    for module, path in ((translator, "last.ckpt"), (task, "unet.ckpt")):
        trainer = L.Trainer()
        trainer.strategy.connect(module)
        trainer.save_checkpoint(path)
    return world


@pytest.fixture
def quickstart(world, small):
    """The quickstart's files, and its first command in small."""
    network, _ = blocks("python", [QUICKSTART])
    (configuration,) = blocks("yaml", [QUICKSTART])
    (world / "my_net.py").write_text(network.code)
    (world / "config.yaml").write_text(configuration.code)
    small = "--data.crop 32 --data.batch_size 1 --trainer.max_epochs 1 --trainer.accelerator cpu"
    logger = "--trainer.logger CSVLogger --trainer.logger.save_dir ."
    assert main(["fit", "--config", "config.yaml", *small.split(), *logger.split()]) == 0
    return world


def both_networks_have_learnt(names):
    fresh = givens()
    for name in ("network", "reblur_net"):
        pairs = zip(fresh[name].parameters(), names[name].parameters(), strict=True)
        assert all(not torch.equal(*pair) for pair in pairs), name


def the_blur_is_one(names):
    assert names["blurry"].shape == names["sharp"].shape
    assert 0 < names["mask"].float().mean() < 1
    assert 0.01 < names["loss"] < 0.2


def the_entry_points_work(names):
    module = names["MyDeblur"](models.UNet())
    batch = {"blurry": torch.rand(1, 3, 8, 8), "sharp": torch.rand(1, 3, 8, 8)}
    module.training_step(batch, 0).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert len(names["adapt"].history[0].losses) == 6
    assert names["deblur"](batch["blurry"]).shape == (1, 3, 8, 8)


CHECKS = {
    ROOT / "README.md": the_entry_points_work,
    DOCS / "methods/reblur_loss.md": both_networks_have_learnt,
    DOCS / "methods/flow_blur.md": the_blur_is_one,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(files, tensorflow, page, request):
    if '"best.ckpt"' in page.read_text():
        folder = request.getfixturevalue("quickstart")
        (folder / "best.ckpt").write_bytes((folder / TRAINED).read_bytes())
    names = run(page, {} if page in COMPLETE else givens())
    CHECKS.get(page, bool)(names)


def test_the_quickstart_from_photos_to_the_plain_network(quickstart, capsys):
    lines = [line.split()[1:] for _, line in commands([QUICKSTART])]
    (test,) = (words for words in lines if words[0] == "test")
    (deblur,) = (words for words in lines if words[0] == "deblur")
    assert main([*test, "--trainer.accelerator", "cpu", "--trainer.logger", "false"]) == 0
    assert main(deblur) == 0
    assert (quickstart / "sharp" / "1.png").is_file()
    network = run(QUICKSTART, {})["network"]
    saved = torch.load(TRAINED, weights_only=True)["state_dict"]
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, saved[f"network.{name}"], rtol=0, atol=0)
