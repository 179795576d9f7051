"""Schedules against torch's own schedulers, and parameter groups."""

import pytest
import torch

from mri_io.errors import ConfigError
from mri_io.training import TrainingConfig, make_optimizer


def rates(config: TrainingConfig) -> list[float]:
    parts = make_optimizer([torch.nn.Parameter(torch.zeros(1))], config)
    optimizer, scheduler = parts["optimizer"], parts["lr_scheduler"]["scheduler"]
    values = []
    for _ in range(config.steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


def torch_rates(steps: int, rate: float, make) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler, values = make(optimizer), []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


@pytest.mark.parametrize("steps", [10, 37])
def test_onecycle_is_torchs(steps: int):
    expected = torch_rates(
        steps + 1,  # torch refuses to step beyond its total
        0.02,
        lambda o: _Bounded(torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.02, total_steps=steps), steps),
    )[:steps]
    found = rates(TrainingConfig(steps=steps, learning_rate=0.02, schedule="onecycle"))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


class _Bounded:
    def __init__(self, scheduler, steps: int) -> None:
        self.scheduler, self.left = scheduler, steps - 1

    def step(self) -> None:
        if self.left > 0:
            self.left -= 1
            self.scheduler.step()


def test_cosine_is_torchs():
    expected = torch_rates(30, 0.1, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=30))
    assert rates(TrainingConfig(steps=30, learning_rate=0.1, schedule="cosine")) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_warmup_rises_linearly_to_the_rate(schedule: str):
    found = rates(TrainingConfig(steps=10, learning_rate=1.0, schedule=schedule, warmup_steps=4))
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_groups_have_their_own_rates_and_frozen_parameters_are_left_out():
    a, b, c = (torch.nn.Parameter(torch.zeros(1)) for _ in range(3))
    b.requires_grad_(False)
    groups = [{"params": [a, b], "name": "recon"}, {"params": [c], "lr": 0.5, "name": "seg"}]
    optimizer = make_optimizer(groups, TrainingConfig(steps=4, learning_rate=0.1))["optimizer"]
    assert [(g["name"], len(g["params"]), g["lr"]) for g in optimizer.param_groups] == [
        ("recon", 1, 0.1),
        ("seg", 1, 0.5),
    ]


def test_nothing_to_train_is_an_error():
    with pytest.raises(ConfigError, match="nothing to train"):
        make_optimizer([torch.nn.Parameter(torch.zeros(1), requires_grad=False)], TrainingConfig())
