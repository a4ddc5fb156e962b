# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Blur2Blur: a camera whose blur the network does not know
#
# A deblurring network removes the blur that it was trained on, and spoils images with another. Blur2Blur (Pham et al.,
# 2024) learns from unpaired photos of a camera to turn its blur into the one that the network knows. The network stays
# as it is: here, the one in the box.

# %%
import os
from pathlib import Path

import lightning as L
import torch
from kornia.filters import unsharp_mask
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn
from torch.utils.data import DataLoader

from reblurkit import Blur2BlurTranslator
from reblurkit.blur import MotionBlur, ShakeBlur
from reblurkit.data import DemoPhotos
from reblurkit.data.augmentation import flip_and_turn, random_crop
from reblurkit.metrics import PSNR
from reblurkit.models import PatchGAN, ReblurNet, load_pretrained
from reblurkit.pictures import comparison_grid

STEPS = int(os.environ.get("STEPS", 400))  # two or three minutes on a CPU
network = load_pretrained().network.eval()

# %% [markdown]
# The blur that the network knows: motion and camera shake.


# %%
class KnownBlur(nn.Module):
    border = 8  # the rim that the kernel reaches into
    blurs = (MotionBlur(12), ShakeBlur(9, 0.3), ShakeBlur(15, 0.5))

    def forward(self, image):
        blurry = self.blurs[int(torch.randint(len(self.blurs), ()))](image)
        return (blurry + 0.003 * torch.randn_like(blurry)).clamp(0, 1)


# %% [markdown]
# The camera blurs in the same way, and then sharpens what it stores, as many do. Edges that were blurred get halos, and
# the network takes these for structure.


# %%
def camera(image):
    blurry = KnownBlur()(image)
    detail = unsharp_mask(blurry, (17, 17), (2.0, 2.0)) - blurry
    return (blurry + 3.0 * detail).clamp(0, 1)


# %% [markdown]
# Its blurry crops, and sharp ones of other places: left and right halves of three photos, in random colours, as those
# of three photos are soon known by heart.


# %%
class Unpaired(torch.utils.data.Dataset):
    def __init__(self):
        self.halves = [photo.tensor_split(2, dim=2) for photo in DemoPhotos("train").photos]

    def __len__(self):
        return 4 * STEPS

    def __getitem__(self, index):
        random = torch.Generator().manual_seed(index)
        left, right = self.halves[index % len(self.halves)]
        crops = (flip_and_turn(random_crop(half, 112, random), random) for half in (left, right))
        blurry, sharp = (crop[torch.randperm(3, generator=random)] for crop in crops)
        return {"blurry": camera(blurry[None])[0, :, 8:-8, 8:-8], "sharp": sharp}


# %% [markdown]
# Means of 4x4 pixels keep the content, so that nothing is downloaded. The generator keeps full resolution: upsampling
# would leave a grid, which deblurring brings out. A discriminator this small learns faster, and without a penalty.

# %%
L.seed_everything(0)
translator = Blur2BlurTranslator(
    ReblurNet(blocks=2, width=16, identity=True),
    PatchGAN(width=32, layers=1),
    perceptual=nn.AvgPool2d(4),
    perceptual_weight=6.0,
    gradient_penalty=0.0,
    known_blur=KnownBlur(),
    lr=2e-4,
    discriminator_lr=5e-4,
)
flags = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
L.Trainer(max_epochs=1, callbacks=[EMAWeightAveraging(decay=0.99)], **flags).fit(translator, DataLoader(Unpaired(), 4))

# %% [markdown]
# `compose` makes one plain module of both networks. On photos that neither has seen the network alone is no better than
# the blurry picture; behind the translator it deblurs.

# %%
composed = translator.compose(network)
rows, psnr = [], {"blurry": PSNR(), "deblurred alone": PSNR(), "translated, deblurred": PSNR()}
torch.manual_seed(1)
for photo in DemoPhotos("test").photos:
    sharp = photo[None, :, : photo.shape[1] // 4 * 4, : photo.shape[2] // 4 * 4]
    blurry = camera(sharp)
    with torch.inference_mode():
        versions = {"blurry": blurry, "deblurred alone": network(blurry), "translated, deblurred": composed(blurry)}
    for name, metric in psnr.items():
        metric.update(versions[name].clamp(0, 1), sharp)
    rows.append({**{name: each[0].clamp(0, 1) for name, each in versions.items()}, "sharp": sharp[0]})
{name: round(metric.compute().item(), 2) for name, metric in psnr.items()}

# %%
picture = comparison_grid(rows, width=260, detail=96)
Path("runs").mkdir(exist_ok=True)
picture.save("runs/blur2blur.png")
picture
