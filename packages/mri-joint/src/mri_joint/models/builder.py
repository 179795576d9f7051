"""From the configuration of a joint run to a network, with the weights it starts from."""

from pathlib import Path
from typing import Any

from mri_io.config import validate_config
from mri_io.training import Checkpoint, load_checkpoint
from mri_joint.config import RunConfig
from mri_joint.errors import ConfigError, expected_got
from mri_joint.models.sequential import ReconstructThenSegment
from mri_recon.networks import build_network as build_reconstruction
from mri_seg.networks import build_network as build_segmentation

__all__ = ["build_network", "load_network", "warm_start"]


def build_network(config: RunConfig) -> ReconstructThenSegment:
    """Build the network of a run, with random weights.

    Raises
    ------
    ConfigError
        When the run does not say its labels.
    """
    if not config.labels:
        raise ConfigError("labels: expected ids and names of the classes, e.g. {1: liver}, got none.")
    return ReconstructThenSegment(
        build_reconstruction(config.reconstruction),
        build_segmentation(config.segmentation, channels=1, labels=len(config.labels) + 1),
    )


def warm_start(network: ReconstructThenSegment, config: RunConfig) -> None:
    """Load the weights of the checkpoints that ``config.init`` names; parts without one keep theirs.

    Raises
    ------
    ConfigError
        When a checkpoint holds another network or other labels than the configuration, or was replaced since the run
        began.
    FormatError
        When a file is no checkpoint of its kind.
    """
    init = config.init
    parts: tuple[tuple[str, str, str | None, str | None, dict[str, Any]], ...] = (
        (
            "reconstruction",
            "recon",
            init.reconstruction,
            init.reconstruction_sha256,
            {"model": config.reconstruction.model_dump(mode="json")},
        ),
        (
            "segmentation",
            "seg",
            init.segmentation,
            init.segmentation_sha256,
            {"model": config.segmentation.model_dump(mode="json"), "labels": _text_keys(config.labels)},
        ),
    )
    for name, kind, path, sha256, expected in parts:
        if path is None:
            continue
        checkpoint = load_checkpoint(path, kind)
        got = {key: checkpoint.config[key] for key in expected}
        if isinstance(got.get("labels"), dict):
            got["labels"] = _text_keys(got["labels"])
        if got != expected:
            fix = f"Leave {name} out of the configuration: the checkpoint brings its own."
            raise ConfigError(expected_got(f"init.{name}", expected=expected, got=got, where=path, fix=fix))
        if sha256 is not None and sha256 != checkpoint.sha256:
            fix = "The file was replaced after the run began; give another --out."
            raise ConfigError(
                expected_got(f"init.{name} weights", expected=sha256, got=checkpoint.sha256, where=path, fix=fix)
            )
        getattr(network, name).load_state_dict(checkpoint.part("network"))


def _text_keys(labels: Any) -> dict[str, str] | None:
    """Return labels as they are in a stored configuration, whose keys are text."""
    return None if labels is None else {str(number): name for number, name in labels.items()}


def load_network(path: str | Path, device: str = "cpu") -> tuple[ReconstructThenSegment, RunConfig, Checkpoint]:
    """Load a trained network from its checkpoint, which needs nothing else.

    Returns
    -------
    network, config, checkpoint
        The network is in evaluation mode on `device`.

    Raises
    ------
    FormatError
        When the file is no checkpoint of a joint run.
    """
    checkpoint = load_checkpoint(path, "joint")
    config = validate_config(RunConfig, checkpoint.config, where=str(path))
    network = build_network(config)
    network.load_state_dict(checkpoint.part("network"))
    return network.to(device).eval(), config, checkpoint
