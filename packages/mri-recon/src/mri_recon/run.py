"""Reconstruct the volumes of a cohort by a classical method or a trained network, into the store."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mri_io.config import Config
from mri_io.prep import LoadsOnce, PrepSummary, already_there, known_affine, prepare_cohort, result_path
from mri_io.schema import Provenance
from mri_io.store import Element, Volume
from mri_io.torch import check_device
from mri_io.training import Checkpoint
from mri_recon.calibrate import CALIBRATIONS
from mri_recon.classical import Reconstruction
from mri_recon.config import RunConfig
from mri_recon.errors import ConfigError, ElementNotFoundError
from mri_recon.inference import apply_network, check_maps, load_network
from mri_recon.memory import reconstruction_memory
from mri_recon.methods import METHODS
from mri_recon.planes import Planes
from mri_recon.reconstruct import planes_at_once, reconstruct_planes
from mri_recon.stored_masks import MaskConfig, stored_mask

__all__ = ["outcome_lines", "run"]


def _stored_maps(volume: Volume, name: str) -> Element | None:
    if name == "none":
        return None
    path = f"sens/{name}"
    if path not in volume:
        found = ", ".join(p.partition("/")[2] for p in volume.elements() if p.startswith("sens/")) or "none"
        how = f"--method {name}" if name in CALIBRATIONS else f"--name {name}"
        raise ElementNotFoundError(
            f"{volume.path}: there are no coil maps {path!r}. Coil maps of this volume: {found}. "
            f"Make them: mri-cli recon calibrate {volume.path.parents[1]} {how}"
        )
    return volume[path]


@dataclass(frozen=True)
class _Work:
    """How planes are reconstructed, by a function of (kspace, mask, maps) on a batch, and what provenance says of it.

    `maps` names the coil maps, ``"none"`` where there are to be none.
    """

    function: Callable[[Tensor, Tensor, Tensor | None], Reconstruction]
    method: str
    settings: dict[str, Any]
    weights_sha256: str | None
    maps: str
    series: bool = False
    batches: bool = True


class _ReconstructVolume(LoadsOnce):
    """Reconstruct one volume plane by plane; runs in a worker."""

    def __init__(self, name: str, mask: MaskConfig, options: dict[str, Any]) -> None:
        self.name, self.mask, self.options = name, mask, options

    def load(self) -> tuple[torch.nn.Module, RunConfig, Checkpoint]:
        return load_network(self.options["checkpoint"], self.options["device"])

    def _by_network(self) -> _Work:
        network, config, checkpoint = self.loaded
        maps = self.options["maps"] or config.data.maps.partition("/")[2]

        def apply(kspace: Tensor, mask: Tensor, maps: Tensor | None) -> Reconstruction:
            return Reconstruction(apply_network(network, kspace, mask, maps))

        return _Work(
            apply,
            f"network {config.model.name}",
            {"model": config.model.model_dump(mode="json")},
            checkpoint.sha256,
            maps if config.model.coil_maps == "stored" else "none",
            batches=False,
        )

    def _by_method(self) -> _Work:
        name, config = self.options["method"], self.options["config"]
        method = METHODS[name]
        function = partial(method.load()[1], **{key: getattr(config, key) for key in type(config).model_fields})
        maps = self.options["maps"] or method.default_maps
        return _Work(function, name, config.model_dump(mode="json"), None, maps, method.series)

    def __call__(self, volume: Volume) -> dict[str, Any]:
        kspace = volume["kspace"]
        planes = Planes(volume, kspace, stored_mask(volume, self.mask))
        chosen = self._by_network() if self.options["checkpoint"] else self._by_method()
        if chosen.series and not planes.series:
            raise ConfigError(
                f"{chosen.method}: expected a series of frames, echoes or sets, got k-space of {kspace.dims} in "
                f"{volume.path}. Choose a method for single images."
            )
        maps = _stored_maps(volume, chosen.maps)
        inputs = [kspace, *planes.samples.masks, *([] if maps is None else [maps])]
        made = Provenance.of(
            "mri-recon", chosen.method, chosen.settings, inputs=inputs, weights_sha256=chosen.weights_sha256
        )
        target = f"recon/{self.name}"
        if already_there(volume, target, made, replace=self.options["replace"]):
            return {"status": "skipped", "volume": volume.id}
        at_once = planes_at_once(planes) if chosen.batches else 1
        outcome = reconstruct_planes(
            chosen.function, planes, maps, self.options["device"], at_once=at_once, series=chosen.series
        )
        stack, dims = planes.images(outcome.images)
        volume.write(
            target,
            stack,
            dims=dims,
            provenance=made,
            affine=known_affine(volume, stack.shape[-3:]),
            attributes={**outcome.attributes, **planes.facts()},
            replace=self.options["replace"],
        )
        sampled = float(np.mean([planes.mask(number).mean() for number in range(len(planes))]))
        return {"status": "done", "volume": volume.id, "acceleration": 1 / sampled, **outcome.attributes}


def outcome_lines(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the results of `run` say of the volumes together: acceleration achieved, iterations, choices."""
    lines = []
    done = [result for result in results if result["status"] == "done"]
    if done:
        lines.append(f"acceleration achieved: {_range([result['acceleration'] for result in done])}")
    iterated = [result for result in done if "iterations" in result]
    if iterated:
        stopped = Counter[str]()
        for result in iterated:
            stopped.update(result["stopped"])
        reasons = ", ".join(f"{reason} {count}" for reason, count in stopped.items())
        lines.append(
            f"iterations: {_range([result['iterations'] for result in iterated])}; planes stopped by: {reasons}"
        )
    for name in dict.fromkeys(key for result in done for key in result.get("chosen", {})):
        values = [value for result in done for value in result["chosen"][name]]
        lines.append(f"{name.replace('_', ' ')}: {_range(values)}")
    return lines


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


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
        Name of the coil maps, by default what the network was trained with, or the method's `Method.default_maps`;
        ``"none"`` combines by root sum of squares.
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
    if method is not None and maps == "none" and METHODS[method].needs_maps:
        raise ConfigError(f"{method}: expected coil maps, got --maps none. Make them: mri-cli recon calibrate")
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
        memory=lambda volume: reconstruction_memory(volume, model, method or ""),
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
    kind = METHODS[method].load()[0] if method else None
    if config is not None and (kind is None or not isinstance(config, kind)):
        wanted = f"{kind.__name__} for {method}" if kind else "none: a checkpoint has its own"
        raise ConfigError(f"config: expected {wanted}, got {type(config).__name__}.")
    return config or (kind() if kind else None)
