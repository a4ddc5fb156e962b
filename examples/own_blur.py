# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A network that adapts to the blur of each photo
#
# A photo from a shaken camera has one blur. The network deblurs it once; from what comes out, the blur can be found;
# and 20 steps on undoing just that blur make the network better at it. No reblurring network is needed, and no sharp
# photo.

# %%
import os
from pathlib import Path

import lightning as L

from reblurkit import AdaptToBlurCallback
from reblurkit.adaptation import adapt_to_blur
from reblurkit.blur import PhotoBlur, ShakeBlur
from reblurkit.metrics import DeblurMetrics
from reblurkit.models import load_pretrained
from reblurkit.pictures import comparison_grid
from reblurkit.plugins import DeblurTask, DemoDataModule

STEPS = int(os.environ.get("STEPS", 20))

# %% [markdown]
# The network in the box, and two photos with camera shake that it has not seen. Any deblurring network will do.

# %%
L.seed_everything(0)
task = DeblurTask(load_pretrained().network)
data = DemoDataModule(blur=ShakeBlur(15, 0.5), num_workers=0)

# %% [markdown]
# One callback adds it to `trainer.test`, `validate` and `predict`, and measures before and after.

# %%
callback = AdaptToBlurCallback(steps=STEPS, metrics=DeblurMetrics(niqe=None, lpips=None))
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
(results,) = L.Trainer(callbacks=[callback], **quiet).test(task, data, verbose=False)
{name: round(value, 4) for name, value in results.items() if name.endswith(("_plain", "_adapted"))}

# %% [markdown]
# Of each photo: whether its quarters agree on a blur, how much of what the network removed this blur brings back, and
# whether the network adapted to it. Where no blur was found, the photo stays as the network made it.

# %%
[(round(photo.agreement, 2), round(photo.explained, 2), photo.adapted) for photo in callback.history]

# %% [markdown]
# The same without Lightning. In the corner, the blur that was found: the path of the camera while the shutter was open.

# %%
rows, kernels = [], []
for pair in data.test_dataloader():
    adapted = adapt_to_blur(task.network, pair["blurry"], steps=STEPS)
    images = {"blurry": pair["blurry"], "deblurred": adapted.plain, "adapted": adapted.image, "sharp": pair["sharp"]}
    rows.append({name: image[0, :, 20:276, 60:420] for name, image in images.items()})
    kernels.append({"blurry": PhotoBlur.of(pair["blurry"], adapted.plain).kernels[0]})
picture = comparison_grid(rows, kernels=kernels, width=230, detail=90)
Path("runs").mkdir(exist_ok=True)
picture.save("runs/own_blur.png")
picture
