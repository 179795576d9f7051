"""The stabilisation curriculum: from nearly complete sampling to the target mask, geometrically (Acar 2022)."""

import numpy as np
from numpy.typing import NDArray

from mri_io.errors import ConfigError, expected_got
from mri_joint.config import CurriculumConfig

__all__ = ["epoch_of", "mask_at_rate", "sampled_fraction"]


def epoch_of(step: int, config: CurriculumConfig, steps: int) -> int:
    """Return the epoch, counted from 1, of a training step, counted from 0.

    Parameters
    ----------
    step
        Optimiser steps taken.
    config
        Its ``steps_per_epoch``, or None so that the epochs of the curriculum take half of the run.
    steps
        Length of the run.
    """
    length = config.steps_per_epoch or steps / (2 * config.epochs)
    return 1 + int(step / length)


def sampled_fraction(epoch: int, target: float, config: CurriculumConfig) -> float:
    r"""Return the sampled fraction of k-space in an epoch of the curriculum.

    .. math:: r_i = (1 - \epsilon) \left(\frac{r}{1 - \epsilon}\right)^{(i - 1) / P} \text{ for } i \le P,
              \quad r_i = r \text{ after,}

    so that the fraction falls by the same factor from one epoch to the next.

    Parameters
    ----------
    epoch
        i, from 1.
    target
        Sampled fraction r of the target mask, 0 < r <= 1. Above ``1 - epsilon`` there is nothing to ease in: r.
    config
        P is ``epochs``.

    Returns
    -------
    float
        r_i, never below `target`.

    References
    ----------
    Acar, Cukur, Oksuz 2022, "Segmentation-aware MRI reconstruction", MLMIR.
    """
    if not 0 < target <= 1 or epoch < 1:
        raise ConfigError(
            expected_got("curriculum", expected="0 < fraction <= 1, epoch >= 1", got=f"{target}, {epoch}")
        )
    start = 1 - config.epsilon
    if epoch > config.epochs or target >= start:
        return target
    return float(start * (target / start) ** ((epoch - 1) / config.epochs))


def mask_at_rate(
    mask: NDArray[np.number] | NDArray[np.bool_],
    rate: float,
    rng: np.random.Generator,
    measured: NDArray[np.number] | NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Add positions to a sampling mask, at random, until a fraction `rate` of all positions is sampled.

    The target's positions are always kept, so that the curriculum ends in exactly the target mask, whatever its
    pattern; the positions are lines for a mask of lines and points for a mask of points.

    Parameters
    ----------
    mask
        Target mask, non-zero where sampled, any shape, e.g. (1, kx) for lines.
    rate
        Wanted sampled fraction; no position is taken away if it is below that of `mask`.
    rng
        Chooses the positions.
    measured
        Same shape, not zero where positions may be added; None for anywhere.

    Returns
    -------
    ndarray
        uint8, 1 where sampled, same shape.
    """
    sampled = np.asarray(mask) != 0
    free = ~sampled if measured is None else ~sampled & (measured != 0)
    missing = np.flatnonzero(free.ravel())
    wanted = round(rate * sampled.size) - int(sampled.sum())
    result = sampled.ravel().astype(np.uint8)
    if wanted > 0:
        result[rng.choice(missing, size=min(wanted, missing.size), replace=False)] = 1
    return result.reshape(sampled.shape)
