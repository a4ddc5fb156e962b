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
from reblurkit.models import load_pretrained
from reblurkit.pictures import comparison_grid
from reblurkit.plugins import DeblurTask, DemoDataModule

STEPS = int(os.environ.get("STEPS", 5))  # the paper's

# %% [markdown]
# The pair of networks in the box, and two photos with camera shake that neither has seen.

# %%
L.seed_everything(0)
network, reblur_net, card = load_pretrained()
task = DeblurTask(network, reblur_net)
data = DemoDataModule(blur=ShakeBlur(15, 0.5), num_workers=0)

# %% [markdown]
# The callback measures before and after: five steps with the paper's learning rate.

# %%
metrics = DeblurMetrics(niqe=None, lpips=None)
callback = TestTimeAdaptCallback(steps=STEPS, lr=3e-6, metrics=metrics)
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
(results,) = L.Trainer(callbacks=[callback], **quiet).test(task, data, verbose=False)
{name: round(value, 4) for name, value in results.items() if name.endswith(("_plain", "_adapted"))}

# %% [markdown]
# The loss before each step and after the last. A step moves the reblurred image towards the image of before the step;
# the image moves too, so that the loss may rise while the image becomes sharper.

# %%
[[round(loss, 5) for loss in image.losses] for image in callback.history]

# %% [markdown]
# So small a change cannot be seen. The same without Lightning, on a detail, with twice as many steps, three times as
# large: edges become stronger still (`gradient_ratio` is 1 where they are as strong as in the sharp photo), and PSNR
# falls; still more steps would paint.

# %%
rows, changes = [], []
for pair in data.test_dataloader():
    blurry, sharp = (pair[name][..., 20:276, 60:420] for name in ("blurry", "sharp"))
    adapted = adapt(task.network.eval(), task.reblur.eval(), blurry, steps=2 * STEPS, lr=1e-5)
    images = {"blurry": blurry, "deblurred": adapted.plain, "adapted": adapted.image, "sharp": sharp}
    rows.append({name: image[0] for name, image in images.items()})
    for name in ("deblurred", "adapted"):
        metrics.reset()
        metrics.update(images[name].clamp(0, 1), sharp)
        measured = metrics.compute()
        changes.append((name, *(round(measured[metric].item(), 3) for metric in ("psnr", "gradient_ratio"))))
changes

# %%
picture = comparison_grid(rows, width=230, detail=90)
Path("runs").mkdir(exist_ok=True)
picture.save("runs/adaptation.png")
picture
