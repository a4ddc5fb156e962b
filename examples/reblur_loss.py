# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # The reblurring loss in your own LightningModule
#
# Clean images are hard to reblur. A small network that tries to bring the blur back, trained beside your deblurring
# network, shows how much blur is left, and turns it into a loss (Nah et al., 2021). One base class and one term add it.

# %%
import os
from pathlib import Path

import lightning as L
import torch
from torch.nn.functional import l1_loss

from reblurkit import ReblurLossMixin, strip_reblur
from reblurkit.blur import ShakeBlur
from reblurkit.models import ReblurNet, UNet
from reblurkit.pictures import comparison_grid
from reblurkit.plugins import DemoDataModule

STEPS = int(os.environ.get("STEPS", 600))  # a minute or two on a CPU; more steps, sharper pictures

# %% [markdown]
# Your module, with two lines more than before: `configure_reblur()` and the term in `training_step`. Optimizers,
# schedulers and Trainer flags stay as they are.


# %%
class MyDeblur(ReblurLossMixin, L.LightningModule):
    def __init__(self, network):
        super().__init__()
        self.network = network
        self.configure_reblur(ReblurNet(blocks=2, width=16))

    def training_step(self, batch, batch_idx):
        deblurred = self.network(batch["blurry"])
        loss = l1_loss(deblurred, batch["sharp"])
        return loss + self.reblur_loss(deblurred, batch["sharp"], batch["blurry"])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 5e-4)


# %%
L.seed_everything(0)
module = MyDeblur(UNet(blocks=4, widths=(32, 48, 64)))
data = DemoDataModule(crop=48, crops_per_photo=1000, blur=ShakeBlur(size=9, strength=0.25))
trainer = L.Trainer(max_steps=STEPS, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(module, data)
{name: round(value.item(), 4) for name, value in trainer.logged_metrics.items()}

# %% [markdown]
# For deployment, `strip_reblur` takes the plain network's weights out of a checkpoint.

# %%
folder = Path("runs")
trainer.save_checkpoint(folder / "reblur_loss.ckpt")
network = UNet(blocks=4, widths=(32, 48, 64)).eval()
network.load_state_dict(strip_reblur(folder / "reblur_loss.ckpt"))
data.setup("test")
with torch.inference_mode():
    rows = [
        {"blurry": pair["blurry"][0], "deblurred": network(pair["blurry"])[0], "sharp": pair["sharp"][0]}
        for pair in data.test_dataloader()
    ]
picture = comparison_grid(rows, width=260)
picture.save(folder / "reblur_loss.png")
picture
