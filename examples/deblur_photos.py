# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Deblur photos with the network in the box
#
# The package comes with a trained pair: a deblurring network and the reblurring network M_R beside it. On the command
# line it is `reblurkit deblur photo.jpg --output sharp`; this is the same in Python.

# %%
from pathlib import Path

from reblurkit.blur import MotionBlur, ShakeBlur
from reblurkit.data import DemoPhotos
from reblurkit.inference import Deblurrer
from reblurkit.metrics import PSNR
from reblurkit.models import load_pretrained
from reblurkit.pictures import comparison_grid

network, reblur_net, card = load_pretrained()
sum(parameter.numel() for parameter in network.parameters())

# %% [markdown]
# `Deblurrer` takes images of any size, pads and crops, and goes by tiles where memory is short. Here it gets two photos
# that the network has not seen, each with camera shake and with a motion that differs from place to place.

# %%
deblur = Deblurrer(network)
rows, gains = [], {}
for title, blur in {"camera shake": ShakeBlur(15, 0.5), "motion": MotionBlur(10)}.items():
    for photo in DemoPhotos("test", blur=blur):
        deblurred = deblur(photo["blurry"][None])[0]
        rows.append({"blurry": photo["blurry"], "deblurred": deblurred, "sharp": photo["sharp"]})
        before, after = PSNR(), PSNR()
        before.update(photo["blurry"][None], photo["sharp"][None])
        after.update(deblurred[None], photo["sharp"][None])
        gains[f"{photo['name']}, {title}"] = round(float(after.compute() - before.compute()), 2)
gains  # dB

# %%
picture = comparison_grid(rows, width=200, detail=90)
Path("runs").mkdir(exist_ok=True)
picture.save("runs/deblur_photos.png")
picture

# %% [markdown]
# Blur of 41 pixels is longer than any that the network was trained on. In the image of half the size it is not.
# `scales=3` lets the network work at full, half and quarter size, and each size has a say where it finds blur.

# %%
several = Deblurrer(network, scales=3)
rows, gains = [], {}
for photo in DemoPhotos("test", blur=ShakeBlur(41, 0.6)):
    blurry, sharp = photo["blurry"], photo["sharp"]
    images = {"alone": deblur(blurry[None])[0], "three scales": several(blurry[None])[0]}
    rows.append({"blurry": blurry, **images, "sharp": sharp})
    for name, image in {"blurry": blurry, **images}.items():
        psnr = PSNR()
        psnr.update(image[None], sharp[None])
        gains[f"{photo['name']}, {name}"] = round(float(psnr.compute()), 2)
gains  # PSNR, dB

# %%
picture = comparison_grid(rows, width=240, detail=220)
picture.save("runs/long_blur.png")
picture

# %% [markdown]
# A photo from a shaken camera has one blur all over. `consistent=True` finds it, and corrects the deblurred image until
# it is the photo when it is blurred again; photos without one blur it leaves alone. The command does so by itself.

# %%
consistent = Deblurrer(network, scales=3, consistent=True)
rows, gains = [], {}
for photo in DemoPhotos("test", blur=ShakeBlur(15, 0.5)):
    blurry, sharp = photo["blurry"], photo["sharp"]
    images = {"deblurred": several(blurry[None])[0], "consistent": consistent(blurry[None])[0]}
    rows.append({"blurry": blurry, **images, "sharp": sharp})
    for name, image in {"blurry": blurry, **images}.items():
        psnr = PSNR()
        psnr.update(image[None], sharp[None])
        gains[f"{photo['name']}, {name}"] = round(float(psnr.compute()), 2)
gains  # PSNR, dB

# %%
picture = comparison_grid(rows, width=160, detail=120)
picture.save("runs/consistent.png")
picture

# %% [markdown]
# What it was trained on, how far it goes and where it fails stands on its card.

# %%
card["limits"]
