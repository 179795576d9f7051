"""Where PyTorch computes."""

import torch

from mri_io.errors import ConfigError, expected_got

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
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ConfigError(f"device: expected cpu, cuda, cuda:1, ..., got {device!r}.")
    here = scheduler == "sync" or scheduler.startswith("local")
    if found.type == "cpu" or not here:
        return
    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not number:
        raise ConfigError("device: cuda: PyTorch finds no CUDA device on this machine. Use --device cpu.")
    if (found.index or 0) >= number:
        raise ConfigError(expected_got("device", expected=f"cuda:0 to cuda:{number - 1} on this machine", got=device))
