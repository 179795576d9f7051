"""Where PyTorch computes."""

import torch

from mri_io.errors import ConfigError

__all__ = ["check_device"]


def check_device(device: str, scheduler: str = "sync") -> None:
    """Check a device before work is given out.

    Parameters
    ----------
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
    scheduler
        Of the work: whether a cluster's workers have a device is not known here.

    Raises
    ------
    ConfigError
        When the device is unknown, or not there where the work is done on this machine.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = None
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"device: expected cpu, cuda, cuda:1, ..., got {device!r}.")
    if kind == "cuda" and "://" not in scheduler and not torch.cuda.is_available():
        raise ConfigError("device: cuda: PyTorch finds no CUDA device on this machine. Use --device cpu.")
