"""Random numbers that are a pure function of the seed and the step, so that a resumed run repeats them."""

import random

import numpy as np
import torch

__all__ = ["set_seed"]


def set_seed(seed: int, *stream: int) -> None:
    """Seed python's, NumPy's and torch's global generators (all devices).

    Call it before building a network, so that its initial weights are repeatable.

    Parameters
    ----------
    seed
        The run's seed, 0 or more.
    stream
        Further non-negative integers that select an independent stream, e.g. step and rank.
    """
    state = np.random.SeedSequence([seed, *stream]).generate_state(4, np.uint32)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))
    torch.manual_seed((int(state[2]) << 32) | int(state[3]))
