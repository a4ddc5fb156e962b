# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Fine-tuning on blurry video without ground truth
#
# A network that has learnt to deblur photographs meets video of another kind. The video's frames alone improve it:
# deblurred frames, blurred again along the motion between them, must be what the camera saw (Reblur2Deblur, 2018). One
# callback adds that to any LightningModule.

# %%
import copy
import os
from pathlib import Path

import lightning as L
import skimage.data
import torch
from torch.utils.data import DataLoader

from reblurkit import FlowReblurFinetuneCallback
from reblurkit.blur import FlowLineBlur, ShakeBlur, average_frames, exposure_from
from reblurkit.metrics import PSNR
from reblurkit.models import UNet
from reblurkit.pictures import comparison_grid
from reblurkit.plugins import DeblurTask, DemoDataModule, MotionLogger

STEPS = int(os.environ.get("STEPS", 600))  # of the first training; about a minute in all on a CPU
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}

# %% [markdown]
# A network of the user's, trained on photographs with a little camera shake.

# %%
L.seed_everything(0)
network = UNet(blocks=2, widths=(16, 32, 48))
photos = DemoDataModule(crop=48, crops_per_photo=2000, blur=ShakeBlur(size=9, strength=0.25))
adam = lambda parameters: torch.optim.Adam(parameters, 1e-3)  # noqa: E731
L.Trainer(max_steps=STEPS, limit_val_batches=0, **quiet).fit(DeblurTask(network, optimizer=adam), photos)
before = copy.deepcopy(network).eval()

# %% [markdown]
# The video: a camera pans over a photograph. Each frame is the mean of nine positions, and the next follows at once,
# so the shutter is always open: the exposure is 0.5 frame intervals to either side. Only `video` is trained on; `sharp`
# serves to measure.

# %%
photo = torch.from_numpy(skimage.data.chelsea()).permute(2, 0, 1) / 255
positions = torch.stack([photo[:, 60:220, 40 + step : 264 + step] for step in range(63)])
video = torch.stack([average_frames(positions[start : start + 9][None])[0] for start in range(0, 63, 9)])
sharp = positions[4::9]
clips = video.unfold(0, 3, 1).movedim(-1, 1)  # (5, 3, 3, H, W): every three frames in a row

# %% [markdown]
# Fine-tuning: the same module, the same photographs, and the callback. `tvl1` is a flow network that needs no weights;
# with `raft-small`, the default, the flow is fine-tuned too.

# %%
finetune = FlowReblurFinetuneCallback(
    DataLoader(clips, batch_size=1, shuffle=True),
    flow="tvl1",
    blur=FlowLineBlur(exposure_from(window=9, stride=9)),
    weight=1000.0,  # beside L1 of about 0.03, the squared error of about 0.0001 is small
)
folder = Path("runs/flow_finetune")
trainer = L.Trainer(
    max_steps=max(STEPS // 10, 1),
    limit_val_batches=0,
    callbacks=[finetune, MotionLogger()],
    default_root_dir=folder,
    **quiet,
)
trainer.fit(DeblurTask(network, optimizer=adam), photos)


# %%
def psnr(images):
    metric = PSNR()
    metric.update(images, sharp)
    return round(float(metric.compute()), 2)


network.eval()
with torch.inference_mode():
    versions = {"blurry": video, "before": before(video).clamp(0, 1), "after": network(video).clamp(0, 1)}
{name: psnr(images) for name, images in versions.items()}

# %%
picture = comparison_grid([{**{name: images[3] for name, images in versions.items()}, "sharp": sharp[3]}], width=260)
picture.save(folder / "flow_finetune.png")
picture
