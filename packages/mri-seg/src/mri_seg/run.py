"""Segment elements of a cohort with a trained network, back into the store."""

from pathlib import Path
from typing import Any

import numpy as np

from mri_io.prep import LoadsOnce, PrepSummary, already_there, prepare_cohort, result_path
from mri_io.schema import Provenance
from mri_io.store import Volume
from mri_io.torch import check_device
from mri_seg.data import magnitude_channels
from mri_seg.errors import ConfigError
from mri_seg.inference import load_network, predict
from mri_seg.memory import segmentation_memory

__all__ = ["run"]


class _SegmentVolume(LoadsOnce):
    """Segment one volume; runs in a worker."""

    def __init__(self, checkpoint: Path, name: str, options: dict[str, Any], *, replace: bool) -> None:
        self.checkpoint, self.name, self.options, self.replace = checkpoint, name, options, replace

    def load(self) -> Any:
        return load_network(self.checkpoint, self.options["device"])

    def __call__(self, volume: Volume) -> dict[str, Any]:
        network, config, checkpoint = self.loaded
        inputs: tuple[str, ...] = self.options["inputs"] or config.data.inputs
        if len(inputs) != len(config.data.inputs):
            raise ConfigError(
                f"inputs: the network takes {len(config.data.inputs)} ({', '.join(config.data.inputs)}), "
                f"got {len(inputs)}."
            )
        elements = [volume[path] for path in inputs]
        target = f"seg/{self.name}"
        made = Provenance.of(
            "mri-seg",
            f"network {config.model.name}",
            {"model": config.model.model_dump(mode="json"), "inputs": list(inputs), "window": self.options["window"]},
            inputs=elements,
            weights_sha256=checkpoint.sha256,
        )
        if already_there(volume, target, made, replace=self.replace):
            return {"status": "skipped", "volume": volume.id}
        sample = {element.path: element.numpy() for element in elements}
        images = magnitude_channels(sample, inputs).transpose(0, 1)
        labels = predict(network, images, window=self.options["window"]).numpy()
        affine = next((element.affine for element in elements if element.affine is not None), None)
        volume.write(
            target,
            labels.astype(np.uint8),
            provenance=made,
            affine=affine,
            labels=config.labels,
            dims=elements[0].dims,
            replace=self.replace,
        )
        return {"status": "done", "volume": volume.id}


def run(
    cohort: str | Path,
    checkpoint: str | Path,
    *,
    inputs: tuple[str, ...] = (),
    name: str | None = None,
    split: str | None = None,
    part: str | None = None,
    window: tuple[int, int] | None = None,
    device: str = "cpu",
    scheduler: str = "sync",
    replace: bool = False,
) -> PrepSummary:
    """Segment every volume, or those of a part, and write ``seg/<name>``.

    Parameters
    ----------
    cohort, checkpoint
        The checkpoint is all that is needed of the training.
    inputs
        Elements to segment in place of those that the network was trained on, e.g. ``("recon/varnet-r4",)``.
    name
        Of the result, by default ``<model>-<first input's name>``.
    split, part
        Restricts to a part of a split, of ``default`` where none is named.
    window
        See `mri_seg.inference.predict`.
    device
        ``"cpu"``, ``"cuda"``, ...
    scheduler
        See `mri_io.prep.prepare_cohort`.
    replace
        Replace results that exist. Without it those of the same weights and inputs are skipped.

    Returns
    -------
    mri_io.prep.PrepSummary

    Raises
    ------
    FormatError
        When the checkpoint is none of a segmentation run.
    ConfigError
        For an unknown device, or a name that cannot be one.
    ElementNotFoundError
        When no volume is chosen.
    """
    check_device(device, scheduler)
    config = load_network(checkpoint)[1]
    chosen = inputs or config.data.inputs
    target = name or f"{config.model.name}-{chosen[0].partition('/')[2]}"
    result_path("seg", target)
    work = _SegmentVolume(
        Path(checkpoint).resolve(), target, {"inputs": inputs, "window": window, "device": device}, replace=replace
    )
    labels, weights = len(config.labels or ()) + 1, Path(checkpoint).stat().st_size

    def memory(volume: Volume) -> int:
        shape, channels = volume[chosen[0]].shape, len(chosen)
        return segmentation_memory(
            shape, config.model, labels=labels, channels=channels, window=window, weights=weights
        )

    return prepare_cohort(
        cohort,
        work,
        split=split,
        part=part,
        scheduler=scheduler,
        description=f"segment {target}",
        memory=memory,
    )
