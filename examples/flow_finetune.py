# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Fine-tuning on blurry video without ground truth
#
# A network that deblurs photographs meets video of another kind. The video's frames alone improve it: deblurred frames,
# blurred again along the motion between them, must be what the camera saw (Reblur2Deblur, 2018). One callback adds that
# to any LightningModule.

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
from reblurkit.models import load_pretrained
from reblurkit.pictures import comparison_grid
from reblurkit.plugins import DeblurTask, DemoDataModule, MotionLogger

STEPS = int(os.environ.get("STEPS", 60))  # of each fine-tuning; some minutes in all on a CPU

# %% [markdown]
# The network in the box, and the photographs that training goes on with, so that nothing is forgotten.

# %%
L.seed_everything(0)
network = load_pretrained().network
photos = DemoDataModule(crop=64, crops_per_photo=2000, blur=ShakeBlur(size=15, strength=0.5))

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
# Fine-tuning: the photographs, and the callback. `tvl1` is a flow network that needs no weights; with `raft-small`, the
# default, the flow is fine-tuned too.

# %%
finetune = FlowReblurFinetuneCallback(
    DataLoader(clips, batch_size=1, shuffle=True),
    flow="tvl1",
    blur=FlowLineBlur(exposure_from(window=9, stride=9)),
    weight=1000.0,  # beside L1 of about 0.03, the squared error of about 0.0001 is small
)
folder = Path("runs/flow_finetune")


def tuned(callbacks):
    """A copy of the network, after as many steps."""
    L.seed_everything(1)
    task = DeblurTask(copy.deepcopy(network), optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-4))
    flags = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
    L.Trainer(max_steps=STEPS, callbacks=callbacks, default_root_dir=folder, **flags).fit(task, photos)
    return task.network.eval()


# %% [markdown]
# Once with the callback, and once without it: the control, which sees the photographs alone.

# %%
networks = {
    "the network in the box": network.eval(),
    "photographs alone": tuned([]),
    "photographs and video": tuned([finetune, MotionLogger()]),
}


# %%
def psnr(images):
    metric = PSNR()
    metric.update(images, sharp)
    return round(float(metric.compute()), 2)


with torch.inference_mode():
    versions = {"blurry": video, **{name: one(video).clamp(0, 1) for name, one in networks.items()}}
{name: psnr(images) for name, images in versions.items()}

# %%
shown = {name: images[3] for name, images in versions.items() if name != "photographs alone"}
picture = comparison_grid([{**shown, "sharp": sharp[3]}], width=260, detail=64)
picture.save(folder / "flow_finetune.png")
picture
