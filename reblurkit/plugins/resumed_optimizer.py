"""What an optimizer takes from a checkpoint, and what from the options of the run that goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

Options = dict[str, Any]  # texts and lists of texts: kept in checkpoints, and compared


def optimizer_options(optimizer: Optimizer) -> Options:
    """What an optimizer has been asked for, when it is new."""
    return {"class": type(optimizer).__name__, "groups": [_texts(group) for group in optimizer.param_groups]}


def resumed_optimizer(
    saved: Mapping[str, Any], optimizer: Optimizer, before: Options | None
) -> tuple[dict[str, Any], list[str]]:
    """The state in which an optimizer goes on: the saved one, with those options that are asked for anew.

    Options that are as before keep the values of the checkpoint, which a schedule may have changed. A new learning
    rate stands in the same proportion to the saved one as it does to that of before. An optimizer of another class
    starts without moments, at the place of the schedule.

    Args:
        saved: The saved state.
        optimizer: The new one.
        before: :func:`optimizer_options` of the optimizer that was saved; None: not known.

    Returns:
        The state, and what is new, in words.
    """
    now = optimizer_options(optimizer)
    fresh = optimizer.state_dict()
    groups: list[dict[str, Any]] = saved["param_groups"]
    known = now["groups"] if before is None else before["groups"]
    if (before or now)["class"] != now["class"] or set(groups[0]) - {"initial_lr"} != set(fresh["param_groups"][0]) - {
        "initial_lr"
    }:
        for group, old in zip(fresh["param_groups"], groups, strict=False):
            group["lr"] = group.get("initial_lr", group["lr"]) * old["lr"] / old.get("initial_lr", old["lr"])
        was = before["class"] if before else "another optimizer"
        return fresh, [f"{now['class']}, without moments, instead of {was}"]
    changes: dict[str, None] = {}
    merged = []
    for group, old, then, wanted in zip(fresh["param_groups"], groups, known, now["groups"], strict=False):
        new = dict(old)
        for name in wanted:
            if wanted[name] == then.get(name, wanted[name]):
                continue
            changes[f"{name} {then[name]} -> {wanted[name]}"] = None
            if name == "lr":
                base = group.get("initial_lr", group["lr"])
                new["lr"] = old["lr"] * base / float(then["lr"])
                if "initial_lr" in new:
                    new["initial_lr"] = base
            else:
                new[name] = group[name]
        merged.append(new)
    return {**saved, "param_groups": merged}, list(changes)


def schedule_options(scheduler: LRScheduler) -> Options:
    """What a schedule has been asked for, when it is new."""
    state = scheduler.state_dict()
    return {"class": type(scheduler).__name__, "state": {key: repr(state[key]) for key in state if key[0] != "_"}}


def resumed_schedule(
    saved: Mapping[str, Any], scheduler: LRScheduler, before: Options | None
) -> tuple[dict[str, Any], list[str]]:
    """The same of a schedule; one of another class starts at its beginning."""
    now, fresh = schedule_options(scheduler), scheduler.state_dict()
    if before is None:
        return dict(saved), []
    if before["class"] != now["class"]:
        return fresh, [f"{now['class']}, from its beginning, instead of {before['class']}"]
    was, wanted = before["state"], now["state"]
    changed = [name for name in sorted(wanted.keys() & was.keys()) if wanted[name] != was[name]]
    news = [
        f"{name} {was[name]} -> {wanted[name]}" for name in changed if name != "base_lrs"
    ]  # that is the optimizer's
    return {**saved, **{name: fresh[name] for name in changed}}, news


def _texts(group: Mapping[str, Any]) -> dict[str, str]:
    asked = {name: value for name, value in group.items() if name not in ("params", "param_names", "initial_lr")}
    return {name: _text(value) for name, value in {**asked, "lr": group.get("initial_lr", group["lr"])}.items()}


def _text(value: object) -> str:
    """A value as text: 0 and 0.0, the default and what the command line makes of it, are one."""
    return repr(int(value)) if isinstance(value, float) and value.is_integer() else repr(value)
