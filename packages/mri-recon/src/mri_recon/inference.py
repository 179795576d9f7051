"""Trained networks: loaded from their checkpoints, and applied to k-space in any units."""

from pathlib import Path

import torch
from jaxtyping import Complex, Shaped
from torch import Tensor

from mri_io.config import validate_config
from mri_io.training import Checkpoint, load_checkpoint
from mri_recon.config import ModelConfig, RunConfig
from mri_recon.data import input_scale
from mri_recon.errors import ConfigError
from mri_recon.networks import build_network

__all__ = ["apply_network", "check_maps", "load_network"]


def load_network(path: str | Path, device: str = "cpu") -> tuple[torch.nn.Module, RunConfig, Checkpoint]:
    """Load a trained network from its checkpoint, which needs nothing else; it is in evaluation mode.

    Raises
    ------
    FormatError
        When the file is no checkpoint of a reconstruction run.
    """
    checkpoint = load_checkpoint(path, kind="recon")
    config = validate_config(RunConfig, checkpoint.config, where=str(path))
    network = build_network(config.model)
    network.load_state_dict(checkpoint.part("network"))
    return network.to(device).eval(), config, checkpoint


def apply_network(
    network: torch.nn.Module,
    kspace: Complex[Tensor, "batch coil ky kx"],
    mask: Tensor,
    maps: Complex[Tensor, "batch map coil y x"] | None,
) -> Shaped[Tensor, "batch y x"]:
    """Return what a network makes of k-space in any units, in those units.

    Parameters
    ----------
    network, kspace, mask, maps
        See the network; it is given k-space divided by `mri_recon.data.input_scale`, as in training.
    """
    scale = input_scale(kspace, maps)
    image: Tensor = network(kspace / scale, mask, maps).image
    return image * scale[:, 0]


def check_maps(model: ModelConfig, maps: str | None) -> None:
    """Check that a network can do with the coil maps that are asked for, None for those of its training.

    Raises
    ------
    ConfigError
        When it needs maps and is to have none, or estimates its own.
    """
    if model.coil_maps == "stored" and maps == "none":
        raise ConfigError("maps: the network was trained with stored coil maps, got none. Leave --maps out.")
    if model.coil_maps == "estimated" and maps not in (None, "none"):
        raise ConfigError(f"maps: the network estimates its coil maps, got {maps!r}. Leave --maps out.")
