"""AdamW and the learning-rate schedules, in steps."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from mri_io.errors import ConfigError
from mri_io.training.config import TrainingConfig

__all__ = ["make_optimizer", "schedule_factor"]


def make_optimizer(
    params: Iterable[torch.nn.Parameter] | Iterable[Mapping[str, Any]], config: TrainingConfig
) -> dict[str, Any]:
    """Build AdamW with the schedule of `config`, in the form `LightningModule.configure_optimizers` returns.

    Parameters
    ----------
    params
        Parameters, or groups ``{"params": [...], "lr": ...}``; a group without ``lr`` gets
        ``config.learning_rate``. Frozen parameters (``requires_grad`` false) are left out.
    config
        Learning rate, weight decay, schedule, warm-up and number of steps.

    Returns
    -------
    dict
        ``{"optimizer": ..., "lr_scheduler": {"scheduler": ..., "interval": "step"}}``.

    Raises
    ------
    ConfigError
        If nothing is left to train.
    """
    groups = []
    for item in params:
        group = dict(item) if isinstance(item, Mapping) else {"params": [item]}
        group["params"] = [p for p in group["params"] if p.requires_grad]
        if group["params"]:
            groups.append(group)
    if groups and all(set(group) == {"params"} for group in groups):
        groups = [{"params": [p for group in groups for p in group["params"]]}]
    if not groups:
        raise ConfigError("nothing to train: every parameter of the network is frozen; switch on at least one part.")
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule_factor(config))
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step", "frequency": 1},
    }


def schedule_factor(config: TrainingConfig) -> Callable[[int], float]:
    """Return the function step -> factor on the learning rate, for steps counted from 0.

    ``constant``: 1. ``cosine``: half a cosine from 1 to 0 over the steps after the warm-up (Loshchilov &
    Hutter 2017, arXiv:1608.03983, eq. 5 without restarts). ``onecycle``: cosine from 1/25 to 1 over the first
    30 % and from 1 to 4e-6 over the rest, the values of torch's OneCycleLR (Smith & Topin 2018,
    arXiv:1708.07120). The warm-up of the first two rises linearly, ``(step + 1) / (warmup_steps + 1)``.
    """

    def cosine(start: float, end: float, fraction: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * min(fraction, 1.0))) / 2

    def factor(step: int) -> float:
        if config.schedule == "onecycle":
            # As torch does: the peak is at step 0.3 * steps - 1 and the lowest value at the last step.
            peak, last = 0.3 * config.steps - 1, config.steps - 1
            if step <= peak:
                return cosine(1 / 25, 1.0, step / peak if peak > 0 else 1.0)
            return cosine(1.0, 4e-6, (step - peak) / (last - peak) if last > peak else 1.0)
        if step < config.warmup_steps:
            return (step + 1) / (config.warmup_steps + 1)
        if config.schedule == "cosine":
            return cosine(1.0, 0.0, (step - config.warmup_steps) / (config.steps - config.warmup_steps))
        return 1.0

    return factor
