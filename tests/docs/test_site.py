"""Links of the pages, the list of public names, figures, and what is said to cite: all without building the site."""

from __future__ import annotations

import importlib
import json
import re

import pytest
import yaml

import reblurkit
from reblurkit.cli.commands import _COMMANDS
from reblurkit.cli.words import TRAINER_COMMANDS
from tests.docs.pages import DOCS, PAGES, ROOT
from tests.docs.test_docstrings import NAMES

RESULTS = DOCS / "results"
CARD = json.loads((ROOT / "reblurkit/models/pretrained/base.json").read_text())["results"]


def anchors(page):
    """The anchors of a page's headings, as the site and repositories' browsers make them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "") for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\((?!https?://|mailto:)([^)#]*)#?([^)]*)\)", text):
        path = (page.parent / target).resolve() if target else page
        assert path.is_file(), f"{target}: no such file"
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}: no such heading"


def test_every_page_has_its_place_in_the_navigation():
    listed = {DOCS / "index.md", *RESULTS.glob("*.md")}
    for page in DOCS.rglob("*.md"):
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL):
            names = [line for line in tree.splitlines() if line and not line.startswith((":", "*"))]
            listed |= {page.parent / f"{name}.md" for name in names}
    assert set(DOCS.rglob("*.md")) == listed


def test_every_public_name_stands_on_one_page():
    listed = []
    for page in sorted((DOCS / "reference").rglob("*.md")):
        for package, names in re.findall(r"```\{public\} (\S+)\n(.*?)```", page.read_text(), re.DOTALL):
            listed += [getattr(importlib.import_module(package), name) for name in names.split()]
    assert len(listed) == len({id(each) for each in listed}), "a name stands on two pages"
    missing = [path for path, value in NAMES.items() if not any(value is each for each in listed)]
    entry_points = [name for name in reblurkit.__all__ if not any(getattr(reblurkit, name) is each for each in listed)]
    assert not missing
    assert all(importlib.util.find_spec(f"reblurkit.{name}") for name in entry_points), "all others are packages"


def test_every_command_has_its_options_on_a_page():
    shown = set(re.findall(r"```\{options\} (\S+)\n", (DOCS / "reference/options.md").read_text()))
    assert shown == {*_COMMANDS, "fit"}
    told = (DOCS / "reference/options.md").read_text()
    assert all(f"`{name}`" in told for name in TRAINER_COMMANDS.keys() - {"fit"})


def cited(name, *keys):
    found = json.loads((RESULTS / f"{name}.json").read_text())
    for key in keys:
        found = found[key]
    return found


def gain(mean, interval, digits=2):
    return f"{mean:+.{digits}f} ± {interval:.{digits}f}"


def _gains(figure):
    """The means with their intervals in a figure."""
    return re.findall(r"[+-][\d.]+ ± [\d.]+", figure)


def figures():
    """What the README's table says, made from the results."""
    for blur, title in {"shake 9": "camera shake of 9 pixels", "motion": "motion of up to 12 pixels a side"}.items():
        psnr = CARD[blur]["psnr"]
        yield title, f"{gain(psnr['mean'], psnr['interval'])} dB over the blurry photo, {psnr['photos']} photos"
    adapted = CARD["five steps of adaptation"]
    psnr, niqe = adapted["psnr"], adapted["niqe"]
    yield "five steps of adaptation", gain(psnr["mean"], psnr["interval"]) + " dB"
    yield "five steps of adaptation", "NIQE " + gain(niqe["mean"], niqe["interval"], 3)
    steps = cited("step_cpu", "steps")
    ratios = [
        steps[f"the paper's U-Net, n={n}, batch 1x3x128x128"]["reblurring"]["ms"]["median"]
        / steps[f"the paper's U-Net, n={n}, batch 1x3x128x128"]["L1"]["ms"]["median"]
        for n in (1, 2)
    ]
    change = cited("reblur_loss", "change from L1", "+ L_Reblur")
    for metric, title, digits in (
        ("niqe", "NIQE", 2),
        ("gradient_ratio", "strength of gradients", 3),
        ("psnr", "PSNR", 2),
    ):
        yield "the reblurring loss", f"{title} {gain(change[metric]['mean'], change[metric]['interval'], digits)}"
    yield "the reblurring loss", f"{ratios[0]:.1f} times an L1 step (n=1), {ratios[1]:.1f} times (n=2)"
    video = cited("video_finetune_line", "runs", "line, 3 frames", "seen", "gains", "control", "psnr")
    yield "fine-tuning a small network on real video", gain(*video)
    for other, title in {"in the box": "the network", "control": "the same training without the clip"}.items():
        psnr = cited("pan_finetune", "gains", f"fine-tuned - {other}")
        yield "fine-tuning the network in the box on a clip", f"{gain(psnr['mean'], psnr['interval'])} dB over {title}"
    for blur, title in {"all": "dB over the network", "shake 9": "dB"}.items():
        psnr = cited("own_blur", "changes", blur, "psnr")
        yield "adaptation to a photo's own blur", f"{gain(psnr['mean'], psnr['interval'])} {title}"
    psnr = cited("long_blur", "changes", "shake 41", "psnr")
    yield "the network in the box at three sizes", f"{gain(psnr['mean'], psnr['interval'])} dB over the network alone"
    for blur, title in {"shake 9": "dB over the network", "shake 25": "dB"}.items():
        psnr = cited("consistency", "changes", blur, "psnr")
        yield "images that agree with their photo", f"{gain(psnr['mean'], psnr['interval'])} {title}"
    times = cited("flow_step_cpu", "steps", "unet")
    ratio = times["line, numba"]["median"] / times["L1 alone"]["median"]
    yield "fine-tuning a small network on real video", f"{ratio:.1f} times an L1 step"
    ratio = cited("adaptation_cpu", "models", "unet, 256 x 256", "adapt", "time ratio")
    yield "five steps of adaptation", f"a step is {ratio:.1f} forward passes"
    for other, title in {"alone": "the network alone", "blurry": "the blurry photo"}.items():
        psnr = cited("sharpening_camera", "differences", f"translated, deblurred - {other}")
        yield "Blur2Blur", f"{gain(psnr['mean'], psnr['interval'])} dB over {title}"
    yield "Blur2Blur", f"{cited('translation_step_cpu', 'training step', 'median') / 1000:.1f} s a step"


@pytest.mark.parametrize(("row", "figure"), list(figures()))
def test_the_readmes_figures_are_the_results(row, figure):
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|") and row in line]
    assert len(lines) == 1
    assert figure in lines[0]


@pytest.mark.parametrize("figure", sorted({gain for _, figure in figures() for gain in _gains(figure)}))
def test_the_storys_figures_are_the_results(figure):
    assert figure in (ROOT / "docs/results/story.md").read_text()


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / ".github/CITATION.cff").read_text())
    assert citation["version"] == reblurkit.__version__
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert len(citation["references"]) == 3
