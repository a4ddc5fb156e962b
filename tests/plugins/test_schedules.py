from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, StepLR

from reblurkit.plugins.resumed_optimizer import (
    optimizer_options,
    resumed_optimizer,
    resumed_schedule,
    schedule_options,
)
from reblurkit.plugins.schedules import OverTraining, constant_then_linear, cosine, halved


def parameters():
    return [torch.nn.Parameter(torch.ones(3))]


def rates(make, steps, lr=1e-4):
    optimizer = torch.optim.SGD(parameters(), lr)
    schedule, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_the_papers_halving_and_a_cosine(steps):
    milestones = [int(share * steps) for share in (0.5, 0.75, 0.9)]
    assert rates(lambda o: OverTraining(o, steps, halved), steps) == rates(
        lambda o: MultiStepLR(o, milestones, 0.5), steps
    )
    torch.testing.assert_close(
        rates(lambda o: OverTraining(o, steps, cosine), steps),
        rates(lambda o: CosineAnnealingLR(o, steps), steps),
        rtol=1e-9,
        atol=1e-18,
    )
    assert constant_then_linear(steps, steps) == 0
    assert constant_then_linear(steps // 3, steps) == 1


@pytest.mark.parametrize("factor", [halved, constant_then_linear, cosine])
@pytest.mark.parametrize("lr", [1e-4, 3e-4])
def test_a_resumed_schedule_follows_the_new_length_and_learning_rate(factor, lr):
    expected = rates(lambda o: OverTraining(o, 8, factor), 8, lr)
    optimizer = torch.optim.SGD(parameters(), 1e-4)
    schedule = OverTraining(optimizer, 4, factor)
    for _ in range(4):
        optimizer.step()
        schedule.step()
    saved = optimizer.state_dict(), schedule.state_dict()

    def resumed(new):
        new.load_state_dict(saved[0])
        schedule = OverTraining(torch.optim.SGD(parameters(), lr), 8, factor)
        schedule.optimizer = new
        schedule.load_state_dict(saved[1])
        return schedule

    torch.testing.assert_close(rates(lambda o: resumed(o), 4), expected[4:], rtol=1e-12, atol=0)


def stepped(optimizer):
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
    optimizer.step()
    return optimizer


def test_options_that_are_asked_for_anew_are_followed_and_the_others_kept():
    first = torch.optim.Adam(parameters(), 1e-4, weight_decay=0.1)
    schedule, asked = StepLR(first, 1, 0.5), optimizer_options(first)
    stepped(first)
    schedule.step()
    saved, asked_schedule = first.state_dict(), schedule_options(StepLR(torch.optim.SGD(parameters(), 1e-4), 1, 0.5))

    same = torch.optim.Adam(parameters(), 1e-4, weight_decay=0.1)
    assert resumed_optimizer(saved, same, asked) == (saved, [])
    whole, float_ = (optimizer_options(torch.optim.Adam(parameters(), weight_decay=zero)) for zero in (0, 0.0))
    assert whole == float_  # of the default, and of the command line

    new = torch.optim.Adam(parameters(), 3e-4, weight_decay=0.2)
    state, news = resumed_optimizer(saved, new, asked)
    new.load_state_dict(state)
    group = new.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (pytest.approx(1.5e-4), 0.2)
    assert news == ["lr 0.0001 -> 0.0003", "weight_decay 0.1 -> 0.2"]
    assert new.state[group["params"][0]]["step"] == 1

    later = StepLR(torch.optim.SGD(parameters(), 1e-4), 3, 0.5)
    state, news = resumed_schedule(schedule.state_dict(), later, asked_schedule)
    assert (state["step_size"], state["last_epoch"], news) == (3, 1, ["step_size 1 -> 3"])
    other = CosineAnnealingLR(torch.optim.SGD(parameters(), 1e-4), 9)
    state, news = resumed_schedule(schedule.state_dict(), other, asked_schedule)
    assert (state["last_epoch"], news) == (0, ["CosineAnnealingLR, from its beginning, instead of StepLR"])


def test_what_is_new_is_told_in_the_optimizers_order_and_equal_numbers_are_not_new():
    first, new = (
        torch.optim.Adam(parameters(), lr, weight_decay=decay, eps=eps)
        for lr, decay, eps in ((1, 0, 1e-8), (0.5, 0.0, 1e-6))
    )
    _, news = resumed_optimizer(first.state_dict(), new, optimizer_options(first))
    assert news == ["lr 1 -> 0.5", "eps 1e-08 -> 1e-06"]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("was", "now"), [(torch.optim.Adam, torch.optim.SGD), (torch.optim.SGD, torch.optim.Adam)])
def test_an_optimizer_of_another_class_starts_without_moments(was, now, known):
    first = stepped(was(parameters(), 1e-4))
    asked, saved = optimizer_options(first), first.state_dict()
    saved["param_groups"][0] |= {"initial_lr": 2e-4}  # of which the schedule has made half
    new = now(parameters(), 1e-2)
    state, (news,) = resumed_optimizer(saved, new, asked if known else None)
    new.load_state_dict(state)
    assert new.param_groups[0]["lr"] == pytest.approx(5e-3)
    assert not new.state
    assert news.startswith(f"{now.__name__}, without moments, instead of ")
    stepped(new)
