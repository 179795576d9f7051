"""The protocol of a Siemens measurement: sizes of its grid, acquisition parameters, and whose scan it is."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import import_extra, personal_texts
from mri_io.formats.names import is_anonymous
from mri_io.formats.twix.measurement import Measurement, read_buffers
from mri_io.formats.vocabulary import known_sequence
from mri_io.schema.attributes import Header

__all__ = ["Protocol", "read_protocol"]

CARTESIAN, TRAJECTORIES = 1, {2: "radial", 4: "spiral", 8: "BLADE"}
THREE_D = 4
RAMP_SAMPLED = 2
INVERSIONS = (1, 2)
"""Slice-selective and non-selective inversion; only with these the inversion time is one of this scan."""
_HUGE_INDEX = re.compile(r"\[\d{5,}\]")
_PERSONAL = re.compile(
    r'<ParamString\."(?P<name>t?PatientID|t?Patients?Name|PatientBirthDay)">\s*\{\s*(?:<\w+>[^\n]*\n\s*)*"(?P<value>[^"]*)"'
)


@dataclass(frozen=True)
class Protocol:
    """Parameters by the names that Siemens gives them.

    `yaps` holds those of the sequence, `meas` those of the reconstruction; `patient` and `aliases` what the file calls
    the patient, the id where there is one and the rest.
    """

    path: Path
    yaps: Mapping[str, Any]
    meas: Mapping[str, Any]
    patient: str | None
    aliases: tuple[str, ...]

    def get(self, *names: str | int, default: Any = None) -> Any:
        """Return a parameter of the sequence, e.g. ``("sKSpace", "lBaseResolution")``, or the default."""
        value: Any = self.yaps
        for name in names:
            try:
                value = value[name]
            except (KeyError, IndexError, TypeError):
                return default
        return default if isinstance(value, (dict, list)) and not value else value

    def number(self, *names: str | int, default: float = 0.0) -> float:
        """Return a number of the sequence, the default where there is none."""
        return _number(self.get(*names), default)

    @cached_property
    def is_3d(self) -> bool:
        """Whether partitions are encoded."""
        return self.number("sKSpace", "ucDimension") == THREE_D

    @cached_property
    def base_columns(self) -> int:
        """Columns of the image, without oversampling."""
        return int(self.number("sKSpace", "lBaseResolution"))

    @cached_property
    def oversampling(self) -> float:
        """Factor by which the readout is oversampled."""
        factor = _number(self.meas.get("flReadoutOSFactor"))
        return factor if factor >= 1 else 2.0

    def length(self, name: str, fallback: str) -> int:
        """Return a length of k-space, from the reconstruction's parameters or those of the sequence."""
        found = int(_number(self.meas.get(name)))
        return found if found >= 1 else max(1, int(self.number("sKSpace", fallback)))

    @cached_property
    def lines(self) -> int:
        """Lines of fully sampled k-space, oversampling included."""
        return self.length("iNoOfFourierLines", "lPhaseEncodingLines")

    @cached_property
    def partitions(self) -> int:
        """Partitions of fully sampled k-space, oversampling included; one of 2-D scans."""
        return self.length("iNoOfFourierPartitions", "lPartitions") if self.is_3d else 1

    @cached_property
    def sequence(self) -> str | None:
        """Name of the sequence's program without its folder, as far as it is of known words."""
        name = re.split(r"[\\/%]", str(self.get("tSequenceFileName", default="")).strip('"'))[-1]
        return known_sequence(name, personal_texts([text for text in (self.patient, *self.aliases) if text]))

    def dwell_us(self) -> float | None:
        """Return the time from sample to sample of the image's readouts."""
        return self.number("sRXSPEC", "alDwellTime", 0) / 1000 or None

    def refuse_unsupported(self) -> None:
        """Raise FormatError for what is no Cartesian k-space as it lies in the file."""
        trajectory = self.number("sKSpace", "ucTrajectory", default=CARTESIAN)
        regridding = _number(self.meas.get("alRegridMode"))
        factor = int(self.number("sFastImaging", "lEPIFactor", default=1))
        bands = int(self.number("sSliceAcceleration", "lMultiBandFactor", default=1))
        epi = "line-by-line Cartesian readouts"
        for wrong, what, expected, got in (
            (trajectory != CARTESIAN, "trajectory", "Cartesian", TRAJECTORIES.get(int(trajectory), f"{trajectory:g}")),
            (factor > 1, "sequence", epi, f"echo-planar imaging (factor {factor}), which needs phase correction"),
            (regridding >= RAMP_SAMPLED, "readout", epi, "samples on gradient ramps (echo-planar imaging)"),
            (bands > 1, "slices", "one excited at a time", f"simultaneous multi-slice, {bands} bands"),
            (self.number("sSpecPara", "lVectorSize") > 1, "scan", "imaging", "spectroscopy"),
        ):
            if wrong:
                raise FormatError(
                    expected_got(
                        what,
                        expected=expected,
                        got=got,
                        where=self.path,
                        fix="This reader takes Cartesian imaging; leave the file out.",
                    )
                )

    def header(self, encoded: tuple[int, int, int]) -> Header:
        """Return the acquisition parameters of k-space of `encoded` columns, rows and partitions."""
        k, os_ = "sKSpace", (1 + self.number("sKSpace", "dPhaseOversamplingForDialog"))
        read, phase, depth = (
            self.number("sSliceArray", "asSlice", 0, name) / 1000 for name in ("dReadoutFOV", "dPhaseFOV", "dThickness")
        )
        slab = 1 + self.number(k, "dSliceOversamplingForDialog") if self.is_3d else 1.0
        recon = (round(encoded[0] / self.oversampling), round(encoded[1] / os_), max(1, round(encoded[2] / slab)))
        known = min(read, phase, depth) > 0
        contrasts = int(self.number("lContrasts", default=1))
        times = [self.number("alTE", echo) * 1e-6 for echo in range(max(1, min(contrasts, 64)))]
        inverted = self.number("sPrepPulses", "ucInversion") in INVERSIONS
        degrees = _number(self.meas.get("adFlipAngleDegree")) or self.number("adFlipAngleDegree")
        field = _number(self.meas.get("flMagneticFieldStrength")) or self.number("sProtConsistencyInfo", "flNominalB0")
        return Header(
            encoded_matrix=encoded,
            recon_matrix=recon,
            encoded_fov_m=(read * self.oversampling, phase * os_, depth * slab) if known else None,
            recon_fov_m=(read, phase, depth) if known else None,
            te_s=tuple(times) if all(times) else None,
            tr_s=_seconds(self.number("alTR", 0)),
            ti_s=_seconds(self.number("alTI", 0)) if inverted else None,
            flip_angle_rad=(math.radians(degrees),) if degrees else None,
            field_T=field or None,
            vendor="SIEMENS",
            sequence=self.sequence,
            trajectory="cartesian",
        )


def _number(value: Any, default: float = 0.0) -> float:
    """Return a finite number, the first of a list of them, or the default."""
    first = value[0] if isinstance(value, list) and value else value
    return float(first) if isinstance(first, (int, float)) and math.isfinite(first) else default


def _seconds(microseconds: float) -> tuple[float] | None:
    return (microseconds * 1e-6,) if microseconds else None


def read_protocol(measurement: Measurement) -> Protocol:
    """Parse the protocol of a measurement.

    Raises
    ------
    FormatError
        When the sequence's parameters are missing or have no sense.
    """
    parser = import_extra("twixtools.twixprot", "twix")
    buffers, path = read_buffers(measurement), measurement.path
    if "MeasYaps" not in buffers:
        got = ", ".join(buffers) or "none"
        raise FormatError(expected_got("protocol", expected="a buffer MeasYaps", got=got, where=path))
    parsed = {}
    for name in ("MeasYaps", "Meas"):
        text = buffers.get(name, "")
        huge = _HUGE_INDEX.search(text)
        try:
            if huge:
                raise ValueError(f"an array index {huge[0]}")
            parsed[name] = parser.parse_buffer(text)
        except (TypeError, KeyError, ValueError, IndexError, AttributeError) as error:
            raise FormatError(
                expected_got("protocol", expected=f"readable parameters {name}", got=str(error), where=path)
            ) from error
    personal = [(found["name"], found["value"]) for text in buffers.values() for found in _PERSONAL.finditer(text)]
    stated = [*personal, ("PatientName", measurement.patient)]
    values = {value: name for name, value in stated if not is_anonymous(value)}
    patient = next((value for value, name in values.items() if name.endswith("PatientID")), next(iter(values), None))
    return Protocol(path, parsed["MeasYaps"], parsed["Meas"], patient, tuple(values))
