# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Blur2Blur: a camera whose blur the network does not know
#
# A deblurring network removes the blur that it was trained on, and spoils images with another. Blur2Blur (Pham et al.,
# 2024) learns from unpaired photos of a camera to turn its blur into the one that the network knows.

# %%
import os
from pathlib import Path

import lightning as L
import torch
from kornia.filters import gaussian_blur2d
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from reblurkit import Blur2BlurTranslator
from reblurkit.data import DemoPhotos
from reblurkit.data.augmentation import flip_and_turn, random_crop
from reblurkit.metrics import PSNR
from reblurkit.models import PatchGAN, ReblurNet, UNet
from reblurkit.pictures import comparison_grid
from reblurkit.plugins import DeblurTask

STEPS = int(os.environ.get("STEPS", 1500))  # some minutes on a CPU
flags = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}

# %% [markdown]
# A network for a known blur, of one pixel in all directions. Yours comes with weights.


# %%
class KnownBlur(nn.Module):
    border = 4  # the rim that the kernel reaches into

    def forward(self, image):
        return gaussian_blur2d(image, (9, 9), (1.0, 1.0))


def crops(photos, count, seed):
    """Random crops in random colours: the colours of three photos are soon known by heart."""
    random = torch.Generator().manual_seed(seed)
    for number in torch.randint(len(photos), (count,), generator=random).tolist():
        crop = flip_and_turn(random_crop(photos[number], 64, random), random)
        crop = crop[torch.randperm(3, generator=random)]
        yield 1 - crop if torch.rand((), generator=random) < 0.5 else crop


L.seed_everything(0)
photos = [interpolate(photo[None], scale_factor=0.5, mode="area")[0] for photo in DemoPhotos("train").photos]
pairs = [{"blurry": KnownBlur()(crop[None])[0], "sharp": crop} for crop in crops(photos, 2 * STEPS, seed=0)]
deblur = DeblurTask(UNet(blocks=2, widths=(16, 32, 48)), optimizer=lambda p: torch.optim.Adam(p, 1e-3))
L.Trainer(max_steps=STEPS, **flags).fit(deblur, DataLoader(pairs, batch_size=4, shuffle=True))

# %% [markdown]
# The camera blurs along one direction only. Its blurry and sharp crops are unpaired: each is drawn for itself. Of your
# camera they may show other scenes, but of the same kinds.


# %%
def camera(photo):
    return gaussian_blur2d(photo[None], (9, 9), (1.0, 0.3))[0]


blurry = crops([camera(photo) for photo in photos], 4 * STEPS, seed=1)
sharp = crops(photos, 4 * STEPS, seed=2)
unpaired = [{"blurry": one, "sharp": other} for one, other in zip(blurry, sharp, strict=True)]

# %% [markdown]
# Means of 4x4 pixels keep the content, so that nothing is downloaded. The generator keeps full resolution: upsampling
# would leave a grid, which deblurring brings out. A discriminator this small learns faster, and without a penalty.

# %%
translator = Blur2BlurTranslator(
    ReblurNet(blocks=1, width=16, identity=True),
    PatchGAN(width=16, layers=1),
    perceptual=nn.AvgPool2d(4),
    perceptual_weight=6.0,
    gradient_penalty=0.0,
    known_blur=KnownBlur(),
    lr=1e-4,
    discriminator_lr=5e-4,
)
L.Trainer(max_epochs=1, callbacks=[EMAWeightAveraging(decay=0.995)], **flags).fit(translator, DataLoader(unpaired, 4))

# %% [markdown]
# `compose` makes one plain module of both networks. On photos held out it comes closer to the truth than the network
# alone, which overdoes the direction that was not blurred. (This camera blurs so little that doing nothing is closer.)

# %%
composed, alone = translator.compose(deblur.network), deblur.network.eval()
rows, psnr = [], {"blurry": PSNR(), "deblurred alone": PSNR(), "translated, deblurred": PSNR()}
for photo in DemoPhotos("test").photos:
    photo = interpolate(photo[None], scale_factor=0.5, mode="area")[0]
    photo = photo[:, : photo.shape[1] // 4 * 4, : photo.shape[2] // 4 * 4]
    image = camera(photo)[None]
    with torch.inference_mode():
        versions = {"blurry": image, "deblurred alone": alone(image), "translated, deblurred": composed(image)}
    for name, metric in psnr.items():
        metric.update(versions[name].clamp(0, 1), photo[None])
    rows.append({**{name: each[0] for name, each in versions.items()}, "sharp": photo})
{name: round(metric.compute().item(), 2) for name, metric in psnr.items()}

# %%
picture = comparison_grid(rows, width=260, detail=64)
Path("runs").mkdir(exist_ok=True)
picture.save("runs/blur2blur.png")
picture
