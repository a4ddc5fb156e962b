# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A camera whose blur nobody has trained on
#
# Blur2Blur (Pham et al., 2024) learns from unpaired photos of a camera to turn its blur into blur that a trained
# network removes. Here the camera smears along one direction, and a small deblurrer knows camera shake only.

# %%
import os
from pathlib import Path

import lightning as L
import torch
from torch import nn
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from reblurkit import Blur2BlurTranslator
from reblurkit.blur import ShakeBlur
from reblurkit.data import DemoPhotos
from reblurkit.losses import LayerFeatures
from reblurkit.models import PatchGAN, UNet
from reblurkit.models.deblur.mimo_unet import MIMOUNet
from reblurkit.plugins import DeblurTask, DemoDataModule
from reblurkit.report.figures import comparison_grid

STEPS = int(os.environ.get("STEPS", 300))  # a few minutes on a CPU; more steps, clearer pictures
flags = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}

# %% [markdown]
# A network that is trained on the known blur. Yours comes with weights.

# %%
L.seed_everything(0)
known = ShakeBlur(size=9, strength=0.25)
deblur = DeblurTask(UNet(blocks=2, widths=(16, 32, 48)), optimizer=lambda p: torch.optim.Adam(p, 1e-3))
L.Trainer(max_steps=STEPS, **flags).fit(deblur, DemoDataModule(crop=48, crops_per_photo=1000, blur=known))

# %% [markdown]
# The camera's photos: blurry ones, and sharp ones of other scenes. Both blurs are simulated here, so that the result
# can be compared with the truth; the translator sees unpaired crops only.


# %%
def smear(image):
    return nn.functional.avg_pool2d(nn.functional.pad(image[None], (0, 0, 2, 2), "replicate"), (5, 1), 1)[0]


def crops(photo, count):
    places = [torch.randint(side - 64, (count,)).tolist() for side in photo.shape[1:]]
    return [photo[:, top : top + 64, left : left + 64] for top, left in zip(*places, strict=True)]


photos = [interpolate(photo[None], scale_factor=0.5, mode="area")[0] for photo in DemoPhotos("train").photos]
blurry = crops(photos[0], 4 * STEPS)
sharp = [crop for both in zip(*(crops(photo, 2 * STEPS) for photo in photos[1:]), strict=True) for crop in both]
pairs = [{"blurry": smear(one), "sharp": other} for one, other in zip(blurry, sharp, strict=True)]

# %% [markdown]
# Known blur comes from `ShakeBlur`; features of the deblurrer watch over the content, so nothing is downloaded.

# %%
translator = Blur2BlurTranslator(
    MIMOUNet(blocks=1, width=16, identity=True),
    PatchGAN(width=16, layers=1),
    perceptual=LayerFeatures(deblur.network, ["blocks"]),
    known_blur=known,
)
trainer = L.Trainer(max_epochs=1, **flags)
trainer.fit(translator, DataLoader(pairs, batch_size=4))
{name: round(value.item(), 3) for name, value in trainer.logged_metrics.items()}

# %% [markdown]
# `compose` puts both networks together: a plain module.

# %%
composed, alone = translator.compose(deblur.network), deblur.network.eval()
rows = []
for photo in DemoPhotos("test").photos:
    photo = photo[:, : photo.shape[1] // 4 * 4, : photo.shape[2] // 4 * 4]
    image = smear(photo)[None]
    with torch.inference_mode():
        versions = {"translated": translator(image), "deblurred alone": alone(image), "composed": composed(image)}
    rows.append({"blurry": image[0], **{name: each[0] for name, each in versions.items()}, "sharp": photo})
picture = comparison_grid(rows, width=260)
Path("runs").mkdir(exist_ok=True)
picture.save("runs/blur2blur.png")
picture
