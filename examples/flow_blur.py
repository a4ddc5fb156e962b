# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # From optical flow to blur
#
# Reblur2Deblur blurs a sharp frame with one kernel per pixel, drawn by the optical flow. This example shows the
# kernels, the table they come from, and the three blur models. The camera turns, and speeds up while it does.

# %%
import matplotlib.pyplot as plt
import skimage.data
import torch

from reblurkit.blur import flow_kernel_blur, flow_line_blur, flow_warp_blur, kernel_table

plt.rcParams["figure.dpi"] = 75  # a small notebook
sharp = torch.from_numpy(skimage.data.astronaut()[:384, 60:444]).permute(2, 0, 1)[None] / 255
height, width = sharp.shape[2:]
y, x = torch.meshgrid(torch.arange(height) - height / 2, torch.arange(width) - width / 2, indexing="ij")
turn = torch.stack([-y, x])[None]  # direction of motion of a picture that turns
flow_next, flow_prev = -0.06 * turn, 0.025 * turn  # against the motion: where later and earlier content is now

# %% [markdown]
# ## The kernels of some pixels, over the image

# %%
table = kernel_table()
figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
axes.imshow(0.4 * sharp[0].permute(1, 2, 0))
for row in range(24, height, 48):
    for column in range(24, width, 48):
        kernel = torch.zeros(33, 33, dtype=torch.float64)
        for flow in (flow_next, flow_prev):
            u, v = flow[0, :, row, column].clamp(-16, 16).round().int().tolist()
            kernel += table[v + 16, u + 16] / 2
        visible = (kernel / kernel.max()).sqrt()
        place = (column - 20, column + 20, row + 20, row - 20)
        axes.imshow(torch.ones(33, 33), cmap="gray", vmin=0, vmax=1, alpha=visible, extent=place)
axes.set(xlim=(0, width), ylim=(height, 0), title="kernel field")
figure.savefig("kernel_field.png")

# %% [markdown]
# ## The table as an atlas: one kernel for every fourth whole flow

# %%
nodes = torch.arange(0, 33, 4)
atlas = table[nodes][:, nodes].permute(0, 2, 1, 3).reshape(33 * len(nodes), -1)
figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
axes.imshow(atlas.sqrt(), cmap="magma", vmax=0.5)
axes.set_xticks(33 * torch.arange(len(nodes)) + 16, (nodes - 16).tolist())
axes.set_yticks(33 * torch.arange(len(nodes)) + 16, (nodes - 16).tolist())
axes.set(xlabel="u, pixels to the right", ylabel="v, pixels down", title="kernel table")
figure.savefig("kernel_table.png")

# %% [markdown]
# ## Three models side by side
# The table is the paper's model, the line has no range, and two warps are the paper's cheap variant. Towards the edge
# the motion leaves the table's range of 16 pixels; the line follows it.

# %%
blurs = {"sharp": sharp, "table": flow_kernel_blur(sharp, flow_next, flow_prev)}
blurs |= {"line": flow_line_blur(sharp, flow_next, flow_prev), "warp": flow_warp_blur(sharp, flow_next, flow_prev)}
figure, panels = plt.subplots(2, 2, figsize=(7, 7), layout="constrained")
for axes, (name, image) in zip(panels.flat, blurs.items(), strict=True):
    axes.imshow(image[0].permute(1, 2, 0).clamp(0, 1))
    axes.set_title(name)
    axes.axis("off")
figure.savefig("blur_models.png")
