"""The configuration of a run, with what its starting checkpoints and its cohort bring."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mri_io.config import load_config
from mri_io.training import load_checkpoint
from mri_joint.config import InitConfig, RunConfig
from mri_seg.training import label_names

__all__ = ["load_run_config", "with_labels"]


def load_run_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's configuration; networks, data and labels come from the checkpoints of ``init`` where it names them.

    Precedence, from low to high: defaults, the checkpoints, the file, the overrides.

    Parameters
    ----------
    path
        A YAML file, or None.
    overrides
        Strings ``"a.b=value"``.

    Returns
    -------
    RunConfig
        Complete except for labels, if no segmentation checkpoint gives them (see `with_labels`).

    Raises
    ------
    ConfigError
        Listing all unknown keys and values out of range.
    FormatError
        When a file is no checkpoint of its kind.
    """
    first = load_config(RunConfig, path, overrides)
    return load_config(RunConfig, path, overrides, base=_starting_values(first.init))


def _starting_values(init: InitConfig) -> dict[str, Any]:
    values: dict[str, Any] = {"init": {}, "data": {}}
    if init.reconstruction is not None:
        checkpoint = load_checkpoint(init.reconstruction, "recon")
        values["reconstruction"] = checkpoint.config["model"]
        values["data"] |= checkpoint.config["data"]
        values["init"]["reconstruction_sha256"] = checkpoint.sha256
    if init.segmentation is not None:
        checkpoint = load_checkpoint(init.segmentation, "seg")
        values["segmentation"], values["labels"] = checkpoint.config["model"], checkpoint.config["labels"]
        values["data"]["labels"] = checkpoint.config["data"]["labels"]
        values["init"]["segmentation_sha256"] = checkpoint.sha256
    return values


def with_labels(config: RunConfig, cohort: str | Path) -> RunConfig:
    """Return the configuration with the label names of the cohort, if it has none.

    Raises
    ------
    ElementNotFoundError
        When the cohort declares no labels.
    """
    if config.labels is not None:
        return config
    return config.model_copy(update={"labels": label_names(cohort, config.data.labels, config.data.split)})
