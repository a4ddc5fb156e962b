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
import copy
import os
from pathlib import Path

import lightning as L
import torch
from torch.nn.functional import l1_loss

from reblurkit import ReblurLossMixin, strip_reblur
from reblurkit.blur import DefocusBlur
from reblurkit.metrics import PSNR, GradientStatistics
from reblurkit.models import load_pretrained
from reblurkit.pictures import comparison_grid
from reblurkit.plugins import DemoDataModule

STEPS = int(os.environ.get("STEPS", 200))  # of each training; some minutes in all on a CPU

# %% [markdown]
# Your module, with two lines more than before: `configure_reblur()` and the term in `training_step`. Optimizers,
# schedulers and Trainer flags stay as they are. The networks are those in the box; yours take their place.


# %%
class MyDeblur(ReblurLossMixin, L.LightningModule):
    def __init__(self, network, reblur_net):
        super().__init__()
        self.network = network
        self.configure_reblur(reblur_net)

    def training_step(self, batch, batch_idx):
        deblurred = self.network(batch["blurry"])
        loss = l1_loss(deblurred, batch["sharp"])
        return loss + self.reblur_loss(deblurred, batch["sharp"], batch["blurry"])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-4)


# %% [markdown]
# The control: the same module, without the term.


# %%
class Control(MyDeblur):
    def training_step(self, batch, batch_idx):
        return l1_loss(self.network(batch["blurry"]), batch["sharp"])


# %% [markdown]
# Both learn a blur that the network does not know: defocus.

# %%
pair = load_pretrained()
data = DemoDataModule(crop=64, crops_per_photo=1000, blur=DefocusBlur(2.0), num_workers=0)
folder = Path("runs")


def trained(kind):
    """The checkpoint of a module that learned on."""
    L.seed_everything(0)
    module = kind(copy.deepcopy(pair.network).train(), copy.deepcopy(pair.reblur_net).train())
    trainer = L.Trainer(max_steps=STEPS, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(module, data)
    trainer.save_checkpoint(folder / f"{kind.__name__}.ckpt")
    return folder / f"{kind.__name__}.ckpt"


checkpoints = {"L1": trained(Control), "L1 + L_Reblur": trained(MyDeblur)}

# %% [markdown]
# For deployment, `strip_reblur` takes the plain network's weights out of a checkpoint. `gradient_ratio` is 1 where
# edges are as strong as in the sharp photo.

# %%
networks = {"before": pair.network.eval()}
for name, checkpoint in checkpoints.items():
    networks[name] = copy.deepcopy(pair.network)
    networks[name].load_state_dict(strip_reblur(checkpoint))

data.setup("test")
rows, measured = [], {}
with torch.inference_mode():
    for name, network in networks.items():
        psnr, gradients = PSNR(), GradientStatistics()
        for number, photo in enumerate(data.test_dataloader()):
            deblurred = network.eval()(photo["blurry"]).clamp(0, 1)
            psnr.update(deblurred, photo["sharp"])
            gradients.update(deblurred, photo["sharp"])
            if number == len(rows):
                rows.append({"blurry": photo["blurry"][0], "sharp": photo["sharp"][0]})
            rows[number] |= {name: deblurred[0], "sharp": rows[number].pop("sharp")}
        ratio = gradients.compute()["gradient_ratio"].item()
        measured[name] = {"psnr": round(psnr.compute().item(), 2), "gradient_ratio": round(ratio, 3)}
measured

# %%
picture = comparison_grid(rows, width=230, detail=72)
picture.save(folder / "reblur_loss.png")
picture
