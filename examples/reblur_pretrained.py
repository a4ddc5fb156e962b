# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A reblurring network for weights that you already have
#
# You have a network of somebody else's and a file of its weights, and want it to adapt to every photo at test time.
# That takes a reblurring network trained beside it, the network itself untouched. `ReblurTask` does it from the command
# line. The network here is a DnCNN (Zhang et al., 2017), which knows grey images only.

# %%
import importlib
import os
import sys
from pathlib import Path

import torch

from reblurkit import strip_reblur
from reblurkit.blur import ShakeBlur
from reblurkit.cli import main
from reblurkit.models import ReblurNet
from reblurkit.pictures import comparison_grid
from reblurkit.plugins import DemoDataModule, ReblurTask

STEPS = os.environ.get("STEPS", "600")  # half a minute for each network on a CPU
folder = Path("runs/reblur_pretrained")
folder.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# The network's class is what you write. Three channels are three grey images; the keys stay those of the file.

# %%
(folder / "my_dncnn.py").write_text("""
from torch import nn

class ColourDnCNN(nn.Module):
    def __init__(self, depth: int = 17, width: int = 64):
        super().__init__()
        layers = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, image):
        grey = image.flatten(0, 1)[:, None]
        return (grey - self.model(grey)).view_as(image)
""")
sys.path.insert(0, str(folder))
adam = "--model.optimizer=torch.optim.Adam --model.optimizer.lr=1e-3"  # faster than the paper's, for a short training
common = f"""--data=DemoDataModule --data.crop=48 --data.crops_per_photo=1000
    --data.blur=reblurkit.blur.ShakeBlur --data.blur.size=9 --data.blur.strength=0.25
    --trainer.max_epochs=1 --trainer.limit_train_batches={STEPS} --trainer.limit_val_batches=0
    --trainer.logger=false --trainer.enable_progress_bar=false --trainer.enable_model_summary=false
    --trainer.default_root_dir={folder} --trainer.callbacks=ModelCheckpoint --trainer.callbacks.dirpath={folder}
    --trainer.callbacks.enable_version_counter=false"""

# %% [markdown]
# `WEIGHTS=dncnn_25.pth` takes the weights of KAIR's grey denoiser, which leaves most blur where it is. Without, a small
# network is trained for a moment to have a file to go on with: it deblurs a little.

# %%
weights = os.environ.get("WEIGHTS")
shape = {} if weights else {"depth": 6, "width": 24}
network = " ".join(["--model.network=my_dncnn.ColourDnCNN", *(f"--model.network.{k}={v}" for k, v in shape.items())])
if weights is None:
    command = f"fit --model=DeblurTask {network} {adam} {common} --trainer.callbacks.filename=pretrained"
    assert main(command.split()) == 0
    weights = folder / "pretrained.pth"
    torch.save(strip_reblur(folder / "pretrained.ckpt"), weights)

# %% [markdown]
# `reblurkit fit --model=ReblurTask --model.network=my_dncnn.ColourDnCNN --model.weights=FILE ...` trains M_R until it
# is at rest; here for a moment, without validation, and from nothing. Without a `reblur_net` it is the one in the box.
# `reblurkit test` says with `reblur_psnr` how much of the blur it brings back from the deblurred photos, and with
# `preserved_psnr` how little it changes sharp ones.

# %%
reblur_net = "--model.reblur_net=ReblurNet --model.reblur_net.width=16"
task = f"--model=ReblurTask {network} --model.weights={weights} {reblur_net} --model.rest=null {adam} {common}"
assert main(f"fit {task} --trainer.callbacks.filename=reblur".split()) == 0
assert main(f"test {task} --ckpt_path={folder}/reblur.ckpt".split()) == 0

# %% [markdown]
# The checkpoint holds both networks, as test-time adaptation wants them: `network` and `reblur`.

# %%
ColourDnCNN = importlib.import_module("my_dncnn").ColourDnCNN
module = ReblurTask.load_from_checkpoint(
    folder / "reblur.ckpt", network=ColourDnCNN(**shape), reblur_net=ReblurNet(width=16), weights_only=True
)
data = DemoDataModule(blur=ShakeBlur(size=9, strength=0.25))
data.setup("test")
rows = []
with torch.inference_mode():
    for pair in data.test_dataloader():
        row = {"blurry": pair["blurry"], "deblurred": module(pair["blurry"])}
        row |= {"deblurred, reblurred": module.reblur(row["deblurred"]), "sharp": pair["sharp"]}
        row |= {"sharp, reblurred": module.reblur(pair["sharp"])}
        rows.append({title: image[0].clamp(0, 1) for title, image in row.items()})
picture = comparison_grid(rows, width=180)
picture.save(folder / "reblur_pretrained.png")
picture
