"""Reconstruct and segment the volumes of a cohort with a jointly trained network, into the store."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mri_io.prep import LoadsOnce, PrepSummary, already_there, known_affine, prepare_cohort, result_path
from mri_io.schema import Provenance
from mri_io.store import Volume
from mri_io.torch import check_device
from mri_joint.errors import ConfigError
from mri_joint.memory import joint_memory
from mri_joint.models import load_network
from mri_recon.classical import Reconstruction
from mri_recon.inference import apply_network, check_maps
from mri_recon.planes import Planes
from mri_recon.reconstruct import reconstruct_planes
from mri_recon.stored_masks import MaskConfig, stored_mask
from mri_seg.inference import predict

__all__ = ["run"]


class _ProcessVolume(LoadsOnce):
    """Reconstruct and segment one volume; runs in a worker."""

    def __init__(self, checkpoint: Path, name: str, mask: MaskConfig, options: dict[str, Any]) -> None:
        self.checkpoint, self.name, self.mask, self.options = checkpoint, name, mask, options

    def load(self) -> Any:
        return load_network(self.checkpoint, self.options["device"])

    def __call__(self, volume: Volume) -> dict[str, Any]:
        network, config, checkpoint = self.loaded
        kspace = volume["kspace"]
        planes = Planes(volume, kspace, stored_mask(volume, self.mask))
        maps = None
        if config.reconstruction.coil_maps == "stored":
            name = self.options["maps"]
            maps = volume[f"sens/{name}" if name else config.data.maps]
        replace: bool = self.options["replace"]
        image_path, label_path = f"recon/{self.name}", f"seg/{self.name}"
        settings = {key: getattr(config, key).model_dump(mode="json") for key in ("reconstruction", "segmentation")}
        inputs = [kspace, *planes.samples.masks, *([] if maps is None else [maps])]
        made = Provenance.of("mri-joint", "reconstruct", settings, inputs=inputs, weights_sha256=checkpoint.sha256)
        present = already_there(volume, image_path, made, replace=replace)
        if not present and not replace and label_path in volume:
            raise ConfigError(
                f"{volume.path}: {label_path} exists without its {image_path}. Choose another --name, or --replace it."
            )
        if not present:

            def reconstruct(kspace: Tensor, mask: Tensor, maps: Tensor | None) -> Reconstruction:
                return Reconstruction(apply_network(network.reconstruction, kspace, mask, maps))

            outcome = reconstruct_planes(reconstruct, planes, maps, self.options["device"])
            images, dims = planes.images(outcome.images)
            affine = known_affine(volume, images.shape)
            volume.write(image_path, images, dims=dims, provenance=made, affine=affine, replace=replace)
        image = volume[image_path]
        made = Provenance.of("mri-joint", "segment", settings, inputs=[image], weights_sha256=checkpoint.sha256)
        if present and already_there(volume, label_path, made, replace=replace):
            return {"status": "skipped", "volume": volume.id}
        magnitudes = torch.from_numpy(np.abs(image.numpy()).astype(np.float32))[:, None]
        labels = predict(network.segmentation, magnitudes).numpy().astype(np.uint8)
        volume.write(
            label_path,
            labels,
            dims=image.dims,
            provenance=made,
            affine=image.affine,
            labels=config.labels,
            replace=replace,
        )
        return {"status": "done", "volume": volume.id}


def run(
    cohort: str | Path,
    checkpoint: str | Path,
    *,
    mask: MaskConfig | None = None,
    maps: str | None = None,
    name: str | None = None,
    split: str | None = None,
    part: str | None = None,
    scheduler: str = "sync",
    device: str = "cpu",
    replace: bool = False,
) -> PrepSummary:
    """Reconstruct and segment every volume, or those of a part; write ``recon/<name>`` and ``seg/<name>``.

    Parameters
    ----------
    cohort, checkpoint
        The checkpoint is all that is needed of the training.
    mask
        Which of the acquired samples are used; by default all.
    maps
        Name of the coil maps; by default those of the training.
    name
        Of both results, by default ``joint`` and the mask.
    split, part
        Restricts to a part of a split, of ``default`` where none is named.
    scheduler, device
        See `mri_io.prep.prepare_cohort`; ``"cuda"`` works with ``sync``.
    replace
        Replace results that exist. Without it those of the same weights and inputs are skipped.

    Returns
    -------
    mri_io.prep.PrepSummary

    Raises
    ------
    FormatError
        When the checkpoint is none of a joint run.
    ConfigError
        For an unknown device, maps that the network does not take, or a name that cannot be one.
    """
    check_device(device, scheduler)
    config, weights = load_network(checkpoint)[1], Path(checkpoint).stat().st_size
    check_maps(config.reconstruction, maps)
    chosen = mask or MaskConfig()
    target = name or "-".join(item for item in ("joint", chosen.stored_name) if item and item != "none")
    result_path("recon", target)
    options = {"maps": maps, "device": device, "replace": replace}
    work = _ProcessVolume(Path(checkpoint).resolve(), target, chosen, options)
    return prepare_cohort(
        cohort,
        work,
        split=split,
        part=part,
        scheduler=scheduler,
        description=f"reconstruct and segment {target}",
        memory=lambda volume: joint_memory(volume, config, weights),
    )
