# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Test-time adaptation: a network that adapts to every photo
#
# The reblurring network that was trained beside a deblurring network can tell, without ground truth, how much blur is
# left in a photo. A few optimizer steps make that less, for each photo from the same weights (Nah et al., 2021,
# Algorithm 1). One callback adds it to `trainer.test`, `validate` and `predict`; the module stays as it is.

# %%
import os
from pathlib import Path

import lightning as L

from reblurkit import TestTimeAdaptCallback
from reblurkit.adaptation import adapt
from reblurkit.blur import ShakeBlur
from reblurkit.metrics import DeblurMetrics
from reblurkit.models import ReblurNet, UNet
from reblurkit.pictures import comparison_grid
from reblurkit.plugins import DeblurTask, DemoDataModule

STEPS = int(os.environ.get("STEPS", 600))  # a minute or two on a CPU; more steps, sharper pictures

# %% [markdown]
# A small network and its reblurring network, trained on bundled photos.

# %%
L.seed_everything(0)
task = DeblurTask(UNet(blocks=4, widths=(32, 48, 64)), ReblurNet(blocks=2, width=16))
data = DemoDataModule(crop=48, crops_per_photo=1000, blur=ShakeBlur(size=9, strength=0.25))
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
L.Trainer(max_steps=STEPS, limit_val_batches=0, **quiet).fit(task, data)

# %% [markdown]
# The callback measures before and after. The learning rate is the paper's 3e-6 times 10: this network is far smaller.

# %%
metrics = DeblurMetrics(niqe=None, lpips=None)
callback = TestTimeAdaptCallback(steps=5, lr=3e-5, metrics=metrics)
(results,) = L.Trainer(callbacks=[callback], **quiet).test(task, data, verbose=False)
{name: round(value, 4) for name, value in results.items() if name.endswith(("_plain", "_adapted"))}

# %% [markdown]
# The loss before each step and after the last. A step moves the reblurred image towards the image of before the step;
# the image moves too. After minutes of training the reblurring network still blurs whatever it is given, a sharper
# image more: the loss can then rise a little, while the metrics above improve.

# %%
[[round(loss, 5) for loss in image.losses] for image in callback.history]

# %% [markdown]
# The same without Lightning, on a detail and with twice the steps, so that they can be seen. Many more would spoil the
# image: nothing but the distance to the trained weights keeps it near the truth.

# %%
rows = []
for pair in data.test_dataloader():
    blurry, sharp = (pair[name][..., 60:220, 100:340] for name in ("blurry", "sharp"))
    adapted = adapt(task.network.eval(), task.reblur.eval(), blurry, steps=10, lr=3e-5)
    images = {"blurry": blurry, "plain": adapted.plain, "adapted": adapted.image, "sharp": sharp}
    rows.append({name: image[0] for name, image in images.items()})
picture = comparison_grid(rows, width=260, detail=64)
Path("runs").mkdir(exist_ok=True)
picture.save("runs/adaptation.png")
picture
