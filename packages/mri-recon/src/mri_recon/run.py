"""Reconstruct the volumes of a cohort by a classical method or a trained network, into the store."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Shaped
from torch import Tensor

from mri_io.config import Config, validate_config
from mri_io.prep import LoadsOnce, PrepSummary, already_there, known_affine, prepare_cohort, result_path
from mri_io.schema import Provenance
from mri_io.store import Element, Volume
from mri_io.torch import check_device
from mri_io.training import Checkpoint, load_checkpoint
from mri_recon.classical import CgSenseConfig, cg_sense, zero_filled
from mri_recon.config import ModelConfig, RunConfig
from mri_recon.data import input_scale
from mri_recon.errors import ConfigError, ElementNotFoundError
from mri_recon.memory import reconstruction_memory
from mri_recon.networks import build_network
from mri_recon.sampling import Samples
from mri_recon.stored_masks import MaskConfig, stored_mask

__all__ = [
    "METHODS",
    "ZeroFilledConfig",
    "apply_network",
    "check_maps",
    "load_network",
    "reconstruct_slices",
    "run",
]


class ZeroFilledConfig(Config):
    """Zero-filled reconstruction has nothing to choose."""


def _zero_filled(kspace: Tensor, mask: Tensor, maps: Tensor | None, config: ZeroFilledConfig) -> Tensor:
    return zero_filled(kspace, maps)


def _cg_sense(kspace: Tensor, mask: Tensor, maps: Tensor | None, config: CgSenseConfig) -> Tensor:
    if maps is None:
        raise ConfigError("cg-sense: expected coil maps, got --maps none. Make them: mri-cli recon calibrate")
    image = cg_sense(kspace, mask, maps, **config.model_dump()).image
    return image if maps.shape[-4] == 1 else image[..., 0, :, :]


METHODS: dict[str, tuple[type[Config], Callable[..., Tensor]]] = {
    "zero-filled": (ZeroFilledConfig, _zero_filled),
    "cg-sense": (CgSenseConfig, _cg_sense),
}
"""Classical methods by name: configuration, and function of (kspace, mask, maps, configuration) on a batch."""


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


def _stored_maps(volume: Volume, name: str) -> Element | None:
    if name == "none":
        return None
    path = f"sens/{name}"
    if path not in volume:
        found = ", ".join(p.partition("/")[2] for p in volume.elements() if p.startswith("sens/")) or "none"
        raise ElementNotFoundError(
            f"{volume.path}: there are no coil maps {path!r}. Coil maps of this volume: {found}. "
            f"Make them: mri-cli recon calibrate {volume.path.parents[1]} --name {name}"
        )
    return volume[path]


@dataclass(frozen=True)
class _Reconstruction:
    """How slices are reconstructed, by a function of (kspace, mask, maps) on a batch, and what provenance says of it.

    `maps` names the coil maps, ``"none"`` where there are to be none.
    """

    function: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    method: str
    settings: dict[str, Any]
    weights_sha256: str | None
    maps: str


class _ReconstructVolume(LoadsOnce):
    """Reconstruct one volume slice by slice; runs in a worker."""

    def __init__(self, name: str, mask: MaskConfig, options: dict[str, Any]) -> None:
        self.name, self.mask, self.options = name, mask, options

    def load(self) -> tuple[torch.nn.Module, RunConfig, Checkpoint]:
        return load_network(self.options["checkpoint"], self.options["device"])

    def _by_network(self) -> _Reconstruction:
        network, config, checkpoint = self.loaded
        maps = self.options["maps"] or config.data.maps.partition("/")[2]
        return _Reconstruction(
            partial(apply_network, network),
            f"network {config.model.name}",
            {"model": config.model.model_dump(mode="json")},
            checkpoint.sha256,
            maps if config.model.coil_maps == "stored" else "none",
        )

    def _by_method(self) -> _Reconstruction:
        method, config = self.options["method"], self.options["config"]
        function = partial(METHODS[method][1], config=config)
        return _Reconstruction(
            function, method, config.model_dump(mode="json"), None, self.options["maps"] or "espirit"
        )

    def __call__(self, volume: Volume) -> dict[str, Any]:
        kspace = volume["kspace"]
        samples = Samples(volume, kspace, stored_mask(volume, self.mask))
        chosen = self._by_network() if self.options["checkpoint"] else self._by_method()
        maps = _stored_maps(volume, chosen.maps)
        inputs = [kspace, *samples.masks, *([] if maps is None else [maps])]
        made = Provenance.of(
            "mri-recon", chosen.method, chosen.settings, inputs=inputs, weights_sha256=chosen.weights_sha256
        )
        target = f"recon/{self.name}"
        if already_there(volume, target, made, replace=self.options["replace"]):
            return {"status": "skipped", "volume": volume.id}
        stack = np.stack(reconstruct_slices(chosen.function, kspace, samples, maps, self.options["device"]))
        volume.write(
            target,
            stack,
            dims=("slice", "y", "x"),
            provenance=made,
            affine=known_affine(volume, stack.shape),
            replace=self.options["replace"],
        )
        return {"status": "done", "volume": volume.id}


def reconstruct_slices(
    reconstruct: Callable[..., Tensor], kspace: Element, samples: Samples, maps: Element | None, device: str
) -> list[np.ndarray]:
    """Return the reconstructed slices of a volume, one slice of k-space in memory at a time.

    Parameters
    ----------
    reconstruct
        Function of (kspace, mask, maps) on a batch of one; k-space is zero outside the mask.
    kspace, maps
        Elements of the volume.
    samples
        Of `kspace`, that may be used.
    device
        Where `reconstruct` runs.

    Raises
    ------
    ConfigError
        When the mask samples nothing that was measured.
    """
    if not any(samples.of_slice(number).any() for number in range(kspace.shape[0])):
        where = " and ".join(str(mask.folder) for mask in samples.masks) or kspace.folder
        raise ConfigError(f"{where}: the mask samples nothing that was measured. Choose another --mask.")
    images = []
    with torch.inference_mode():
        for number in range(kspace.shape[0]):
            m = torch.from_numpy(samples.of_slice(number).astype(np.float32)).to(device)[None, None]
            k = torch.from_numpy(kspace[number]).to(device)[None] * m
            s = None if maps is None else torch.from_numpy(maps[number]).to(device)[None]
            images.append(reconstruct(k, m, s)[0].cpu().numpy())
    return images


def run(
    cohort: str | Path,
    *,
    method: str | None = None,
    config: Config | None = None,
    checkpoint: str | Path | None = None,
    mask: MaskConfig | None = None,
    maps: str | None = None,
    name: str | None = None,
    split: str | None = None,
    part: str | None = None,
    scheduler: str = "sync",
    device: str = "cpu",
    replace: bool = False,
) -> PrepSummary:
    """Reconstruct every volume, or those of a part, and write ``recon/<name>``.

    Parameters
    ----------
    cohort
        The cohort's folder.
    method, config
        A key of `METHODS` with its configuration, or
    checkpoint
        a trained network; the checkpoint is all that is needed of the training.
    mask
        Which of the acquired samples are used; by default all.
    maps
        Name of the coil maps, by default ``espirit`` or what the network was trained with; ``"none"`` combines by
        root sum of squares.
    name
        Of the result, by default the method and the mask.
    split, part
        Restricts to a part of a split, of ``default`` where none is named.
    scheduler, device
        See `mri_io.prep.prepare_cohort`; ``"cuda"`` works with ``sync``.
    replace
        Replace results that exist. Without it those of the same computation are skipped.

    Returns
    -------
    mri_io.prep.PrepSummary

    Raises
    ------
    ConfigError
        For an unknown method or device, both a method and a checkpoint, a configuration that is not the method's, maps
        that the network does not take, or a name that cannot be one.
    ElementNotFoundError
        When no volume is chosen.
    """
    settings = _method_config(method, config, checkpoint)
    check_device(device, scheduler)
    chosen = mask or MaskConfig()
    label, model = method, None
    if checkpoint is not None:
        model = load_network(checkpoint)[1].model
        check_maps(model, maps)
        label = model.name
    target = name or "-".join(part for part in (label, chosen.stored_name) if part and part != "none")
    result_path("recon", target)
    options = {
        "method": method,
        "config": settings,
        "checkpoint": None if checkpoint is None else Path(checkpoint).resolve(),
        "maps": maps,
        "device": device,
        "replace": replace,
    }
    work = _ReconstructVolume(target, chosen, options)
    return prepare_cohort(
        cohort,
        work,
        split=split,
        part=part,
        scheduler=scheduler,
        description=f"reconstruct {target}",
        memory=lambda volume: reconstruction_memory(volume, model),
    )


def _method_config(method: str | None, config: Config | None, checkpoint: str | Path | None) -> Config | None:
    """Return the configuration of a method, its defaults where none is given; None for a checkpoint, which has its own.

    Raises
    ------
    ConfigError
        For an unknown method, both a method and a checkpoint or neither, or a configuration that is not the method's.
    """
    if (method is None) == (checkpoint is None):
        raise ConfigError("recon run: expected either a method or a checkpoint.")
    if method is not None and method not in METHODS:
        raise ConfigError(f"method: expected one of {', '.join(METHODS)}, got {method!r}.")
    kind = METHODS[method][0] if method else None
    if config is not None and (kind is None or not isinstance(config, kind)):
        wanted = f"{kind.__name__} for {method}" if kind else "none: a checkpoint has its own"
        raise ConfigError(f"config: expected {wanted}, got {type(config).__name__}.")
    return config or (kind() if kind else None)


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
