"""Masks that a reconstruction is asked to use: which, and the element that holds it, made where it is a kind."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from mri_io.config import Config, load_config, validate_config
from mri_io.formats.kspace.sampling import mask_from_zeros
from mri_io.schema import Provenance
from mri_io.store import Element, Volume
from mri_recon.config import check_acceleration
from mri_recon.errors import ConfigError
from mri_recon.physics.masks import MASKS, MaskSettings, acceleration

__all__ = ["MaskConfig", "stored_mask"]

_log = logging.getLogger(__name__)
_COMMON = ("acceleration", "center_fraction", "seed")
ZEROS = "zeros"


class MaskConfig(Config):
    """Which k-space samples a reconstruction may use.

    `name` is ``none`` (all that was measured), ``acquired``, ``zeros`` (found from the zeros of the data), the name
    of a stored mask, or a kind of `MASKS`, which makes a stored mask by the other fields; see `stored_name`. `settings`
    are the parameters of a kind beside the other fields. Fields that would do nothing are refused.
    """

    name: str | None = None
    acceleration: float = Field(default=4, ge=1)
    center_fraction: float = Field(default=0.08, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _every_field_counts(self) -> "MaskConfig":
        if self.name in MASKS:
            fields = MASKS[self.name].config.model_fields
            if unused := sorted(set(_COMMON) & self.model_fields_set - set(fields)):
                raise ConfigError(f"{', '.join(unused)}: expected none with {self.name}, which has no use for it.")
            if "acceleration" in fields:
                check_acceleration(self.name, self.acceleration)
            self._made()
        elif given := sorted(self.model_fields_set - {"name"}):
            raise ConfigError(
                f"{', '.join(given)}: expected only with a mask that is made ({', '.join(MASKS)}), got with the mask "
                f"{self.name or 'acquired'}. Leave out, or choose such a mask."
            )
        return self

    @classmethod
    def of_options(
        cls,
        name: str | None,
        acceleration: float | None,
        center_fraction: float | None,
        seed: int | None,
        settings: Sequence[str] | None = None,
    ) -> "MaskConfig":
        """Return the configuration of a command's options, None where one was left out.

        Parameters
        ----------
        settings
            Of the form ``name=value``.
        name, acceleration, center_fraction, seed
            The fields.

        Raises
        ------
        ConfigError
            When a value is out of range or would do nothing.
        """
        options = {"name": name, "acceleration": acceleration, "center_fraction": center_fraction, "seed": seed}
        given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
        if settings:
            given["settings"] = _parsed(name, settings)
        return validate_config(cls, given, where="mask")

    def _made(self) -> MaskSettings:
        """Return the parameters of the kind that this names."""
        kind = MASKS[str(self.name)].config
        given = {key: getattr(self, key) for key in _COMMON if key in self.model_fields_set}
        if twice := sorted(set(given) & set(self.settings)):
            raise ConfigError(f"{', '.join(twice)}: expected once, got as an option and among the settings.")
        return validate_config(kind, given | self.settings, where=f"mask {self.name}")

    @property
    def stored_name(self) -> str | None:
        """Name of the stored mask: ``<kind>-r<acceleration>`` of one that is made.

        Where they are not the defaults ``-c<center fraction>``, ``-s<seed>`` and ``-<name><value>`` of the settings
        follow.
        """
        if self.name not in MASKS:
            return self.name
        made = self._made()
        values = made.model_dump(mode="json")
        changed = made.model_dump(mode="json", exclude_defaults=True)
        if "acceleration" in values:
            changed.pop("acceleration", None)
            changed = {"r": values["acceleration"], **changed}
        short = {"center_fraction": "c", "seed": "s"}
        parts = [f"{short.get(key, key)}{_spelt(value)}" for key, value in sorted(changed.items(), key=_rank)]
        return "-".join([self.name, *parts])


def _parsed(name: str | None, settings: Sequence[str]) -> dict[str, Any]:
    """Return the values of ``name=value``, which are read as YAML."""
    if wrong := [text for text in settings if "=" not in text]:
        raise ConfigError(f"--mask-set {wrong[0]!r}: expected the form name=value.")
    if name not in MASKS:  # refused by the configuration, which says so
        return dict.fromkeys(settings)
    return load_config(MASKS[name].config, None, settings).model_dump(exclude_unset=True)


def _rank(item: tuple[str, Any]) -> tuple[int, str]:
    order = ("r", "center_fraction", "seed")
    return (order.index(item[0]) if item[0] in order else len(order)), item[0]


def _spelt(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def stored_mask(volume: Volume, config: MaskConfig) -> Element | None:
    """Return the mask element that a configuration names, made when it is a kind; None for all that was measured.

    Raises
    ------
    ConfigError
        When a stored mask of that name was not made so, or the kind does not fit k-space.
    """
    name = config.name or ("acquired" if "mask/acquired" in volume else "none")
    if name == "none":
        if "mask/acquired" in volume:
            lines = volume["mask/acquired"].numpy() != 0
            if lines.size > 1.5 * lines.sum():
                _log.warning(
                    "%s: the result of --mask none is no fully sampled reference: mask/acquired has %d of %d samples",
                    volume.path, lines.sum(), lines.size,
                )  # fmt: skip
        return None
    if name == ZEROS and f"mask/{ZEROS}" not in volume:
        return _from_zeros(volume)
    return volume[f"mask/{name}"] if name not in MASKS else _made_mask(volume, config)


def _made_mask(volume: Volume, config: MaskConfig) -> Element:
    kspace, kind, made = volume["kspace"], MASKS[str(config.name)], config._made()
    values = made.model_dump(mode="json")
    # What is not among the defaults, but for what every mask has said from the beginning.
    told: dict[str, Any] = {key: values[key] for key in _COMMON[:2] if key in values}
    told |= made.model_dump(mode="json", exclude_defaults=True, exclude={"seed"})
    provenance = Provenance.of(
        "mri-recon", f"mask {config.name}", {"kind": config.name, **told}, seed=values.get("seed")
    )
    path = f"mask/{config.stored_name}"
    if path in volume and not volume.is_current(path, provenance):
        fold = f"{values.pop('acceleration'):g}-fold acceleration, " if "acceleration" in values else ""
        wanted = ", ".join(f"{key} {_spelt(value)}" for key, value in values.items() if value is not None)
        raise ConfigError(
            f"{volume.path}: {path} exists and was not made as {config.name} with {fold}{wanted}. "
            f"To use it as it is: --mask {config.stored_name}"
        )
    if path not in volume:
        mask = kind.make(dict(zip(kspace.dims, kspace.shape, strict=True)), made)
        achieved = {"acceleration": acceleration(mask)}
        volume.write(path, mask, dims=kind.dims_of(made), provenance=provenance, attributes=achieved)
    return volume[path]


def _from_zeros(volume: Volume) -> Element | None:
    """Find the mask of a scan from the zeros of its data, and keep it; None when nothing is missing."""
    kspace = volume["kspace"]
    if kspace.dims[-3:] != ("coil", "ky", "kx"):
        raise ConfigError(f"{kspace.folder}: --mask zeros: expected Cartesian k-space, got {', '.join(kspace.dims)}.")
    blocks = (kspace[index][None] for index in np.ndindex(*kspace.shape[:-3]))
    found = mask_from_zeros(blocks, dict(zip(kspace.dims, kspace.shape, strict=True)))
    if found is None:
        return None
    made = Provenance.of("mri-recon", "mask zeros", {}, inputs=[kspace])
    (pattern,) = found.blocks()
    volume.write(f"mask/{ZEROS}", pattern, dims=found.dims, provenance=made, attributes=found.attributes)
    return volume[f"mask/{ZEROS}"]
