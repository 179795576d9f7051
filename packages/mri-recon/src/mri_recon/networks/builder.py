"""From a model configuration to a network."""

from torch import nn

from mri_recon.config import ModelConfig, VarNetConfig
from mri_recon.networks.varnet import VarNet

__all__ = ["build_network"]


def _varnet(config: VarNetConfig) -> nn.Module:
    return VarNet(
        cascades=config.cascades,
        channels=config.channels,
        pools=config.pools,
        sens_channels=config.sens_channels if config.coil_maps == "estimated" else 0,
        sens_pools=config.sens_pools,
        combination=config.combination,
        residual=config.residual,
        start_iterations=config.start_iterations,
    )


_BUILDERS = {VarNetConfig: _varnet}


def build_network(config: ModelConfig) -> nn.Module:
    """Build the network of a configuration, a module ``(kspace, mask, maps) -> ReconOutput``."""
    return _BUILDERS[type(config)](config)
