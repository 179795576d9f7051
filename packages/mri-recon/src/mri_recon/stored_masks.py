"""Masks that a reconstruction is asked to use: which, and the element that holds it, made where it is a kind."""

import logging

from pydantic import Field, model_validator

from mri_io.config import Config, validate_config
from mri_io.schema import Provenance
from mri_io.store import Element, Volume
from mri_recon.config import check_acceleration
from mri_recon.errors import ConfigError
from mri_recon.physics import MASKS

__all__ = ["MaskConfig", "stored_mask"]

_log = logging.getLogger(__name__)


class MaskConfig(Config):
    """Which k-space samples a reconstruction may use.

    `name` is ``none`` (all that was measured), ``acquired``, the name of a stored mask, or a kind of `MASKS`, which
    makes a stored mask by the other fields; see `stored_name`. With any other name the other fields
    would do nothing and are refused.
    """

    name: str | None = None
    acceleration: float = Field(default=4, ge=1)
    center_fraction: float = Field(default=0.08, gt=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _every_field_counts(self) -> "MaskConfig":
        if self.name in MASKS:
            check_acceleration(self.name, self.acceleration)
        elif given := sorted(self.model_fields_set - {"name"}):
            raise ConfigError(
                f"{', '.join(given)}: expected only with a mask that is made ({', '.join(MASKS)}), got with the mask "
                f"{self.name or 'acquired'}. Leave out, or choose such a mask."
            )
        return self

    @classmethod
    def of_options(
        cls, name: str | None, acceleration: float | None, center_fraction: float | None, seed: int | None
    ) -> "MaskConfig":
        """Return the configuration of a command's options, None where one was left out.

        Raises
        ------
        ConfigError
            When a value is out of range or would do nothing.
        """
        options = {"name": name, "acceleration": acceleration, "center_fraction": center_fraction, "seed": seed}
        given = {key: value for key, value in options.items() if value is not None}
        return validate_config(cls, given, where="mask")

    @property
    def stored_name(self) -> str | None:
        """Name of the stored mask: ``<kind>-r<acceleration>`` of one that is made.

        Where they are not the defaults ``-c<center fraction>`` and ``-s<seed>`` follow.
        """
        if self.name not in MASKS:
            return self.name
        default = type(self)()
        centre = f"-c{self.center_fraction:g}" if self.center_fraction != default.center_fraction else ""
        return f"{self.name}-r{self.acceleration:g}{centre}" + (f"-s{self.seed}" if self.seed else "")


def stored_mask(volume: Volume, config: MaskConfig) -> Element | None:
    """Return the mask element that a configuration names, made when it is a kind; None for all that was measured.

    Raises
    ------
    ConfigError
        When a stored mask of that name was not made so.
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
    if name not in MASKS:
        return volume[f"mask/{name}"]
    columns = volume["kspace"].shape[-1]
    settings = {"kind": name, **config.model_dump(mode="json", exclude={"name", "seed"})}
    made = Provenance.of("mri-recon", f"mask {name}", settings, seed=config.seed)
    path = f"mask/{config.stored_name}"
    if path in volume and not volume.is_current(path, made):
        raise ConfigError(
            f"{volume.path}: {path} exists and was not made as {name} with {config.acceleration:g}-fold acceleration, "
            f"centre {config.center_fraction:g} and seed {config.seed}. To use it as it is: --mask {config.stored_name}"
        )
    if path not in volume:
        mask = MASKS[name](columns, config.acceleration, config.center_fraction, config.seed)
        achieved = {"acceleration": float(columns / mask.sum())}
        volume.write(path, mask, dims=("kx",), provenance=made, attributes=achieved)
    return volume[path]
