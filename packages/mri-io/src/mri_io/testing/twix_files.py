"""Siemens raw data files written byte by byte, after the layouts of software VB and VD, a patient planted in them."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.testing.raw_files import NAME, PATIENT

__all__ = ["BIRTHDAY", "Readout", "TwixScan", "kspace_readouts", "write_twix"]

BIRTHDAY = "19500203"
FLAGS = {
    "ACQEND": 0,
    "RTFEEDBACK": 1,
    "ONLINE": 3,
    "SYNCDATA": 5,
    "PHASCOR": 21,
    "PATREFSCAN": 22,
    "PATREFANDIMASCAN": 23,
    "REFLECT": 24,
    "NOISEADJSCAN": 25,
}
"""Bits of the evaluation mask."""
COUNTERS = ("Lin", "Ave", "Sli", "Par", "Eco", "Phs", "Rep", "Set", "Seg", "Ida", "Idb", "Idc", "Idd", "Ide")
VD_READOUT = struct.Struct("<IiIIIHHiiiiQHH14H2HHHfIHH7f24H4HHHI")
VD_CHANNEL = struct.Struct("<IiIiIIHHI")
VB_READOUT = struct.Struct("<IiIIIQHH14H2HHHfIHH4H4H7fHH")


@dataclass(frozen=True)
class Readout:
    """One readout: samples (coil, sample), counters, flags, centre of k-space (column, line, partition), place."""

    data: np.ndarray
    counters: Mapping[str, int] = field(default_factory=dict)
    flags: Sequence[str] = ("ONLINE",)
    centre: tuple[int, int, int] = (0, 0, 0)
    cut_off: tuple[int, int] = (0, 0)
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quaternion: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class TwixScan:
    """One measurement: parameters of the sequence and of the reconstruction by their names, and readouts."""

    readouts: Sequence[Readout]
    yaps: Mapping[str, Any] = field(default_factory=dict)
    meas: Mapping[str, Any] = field(default_factory=dict)
    finished: bool = True

    def protocol(self) -> bytes:
        """Return the buffers of the protocol."""
        yaps = {
            "tSequenceFileName": '"%SiemensSeq%\\gre"',
            "tProtocolName": f'"{NAME}"',
            "lContrasts": 1,
            "alTR[0]": 10000,
            "alTE[0]": 3000,
            "sKSpace.ucDimension": 2,
            "sKSpace.ucTrajectory": "0x1",
            "sRXSPEC.alDwellTime[0]": 10000,
            "sSliceArray.asSlice[0].dReadoutFOV": 200.0,
            "sSliceArray.asSlice[0].dPhaseFOV": 160.0,
            "sSliceArray.asSlice[0].dThickness": 4.0,
            "sPrepPulses.ucInversion": "0x4",
            **self.yaps,
        }
        meas = {"alRegridMode": "1 1", "flReadoutOSFactor": 2.0, "flMagneticFieldStrength": 2.89, **self.meas}
        lines = "\n".join(f"{name}\t = \t{value}" for name, value in yaps.items())
        long = "\n".join(_parameter(name, value) for name, value in meas.items())
        personal = {"PatientID": PATIENT, "PatientBirthDay": BIRTHDAY, "tPatientName": NAME}
        person = "\n".join(f'<ParamString."{name}">  {{ "{value}"  }}' for name, value in personal.items())
        buffers = {
            "Config": f'<XProtocol> {{ <ParamMap."">\n {{\n{person}\n}}\n}}',
            "Dicom": f'<ParamString."InstitutionName"> {{ "Hospital of {NAME}" }}',
            "Meas": f'<XProtocol>\n{{\n{long}\n<ParamString."PatientsName">\n{{\n<Visible> "true"\n"{NAME}"\n}}\n}}\n',
            "MeasYaps": f"### ASCCONV BEGIN object=MrProtDataImpl ###\n{lines}\n### ASCCONV END ###",
        }
        body = b"".join(
            name.encode() + b"\0" + struct.pack("<I", len(text)) + text.encode("latin1")
            for name, text in buffers.items()
        )
        # Readers tell VB from later versions by a protocol of more than 10,000 bytes, as all real ones have.
        length = max(12800, 8 + len(body) + -(8 + len(body)) % 32)
        return (struct.pack("<II", length, len(buffers)) + body).ljust(length, b"\0")

    def bytes(self, vd: bool) -> bytes:
        """Return the measurement as it lies in a file."""
        parts = [self.protocol()]
        for number, readout in enumerate(self.readouts, 1):
            parts.append(_readout_vd(readout, number) if vd else _readout_vb(readout, number))
        if self.finished:
            end = Readout(np.zeros((1, 0)), flags=("ACQEND",))
            header = _header(end, len(self.readouts) + 1, vd, length=VD_READOUT.size + 160 if vd else VB_READOUT.size)
            parts.append(header + bytes(160 if vd else 0))
        return b"".join(parts)


def _parameter(name: str, value: Any) -> str:
    kind = "Double" if isinstance(value, float) else "Long"
    precision = "<Precision> 6 \n" if kind == "Double" else ""
    return f'<Param{kind}."{name}"> \n{{\n{precision}{value} \n}}\n'


def _header(readout: Readout, number: int, vd: bool, length: int, channel: int = 0) -> bytes:
    coils, samples = readout.data.shape
    mask = sum(1 << FLAGS[flag] for flag in readout.flags)
    counters = [readout.counters.get(name, 0) for name in COUNTERS]
    column, line, partition = readout.centre
    common = (samples, coils, *counters, *readout.cut_off, column, 0, 0.0, 0, line, partition)
    place = (*readout.position, *readout.quaternion)
    if vd:
        return VD_READOUT.pack(length, 1, number, 0, 0, *[0] * 6, mask, *common, *place, *[0] * 31)
    return VB_READOUT.pack(length, 1, number, 0, 0, mask, *common, *[0] * 8, *place, channel, 0)


def _readout_vd(readout: Readout, number: int) -> bytes:
    coils, samples = readout.data.shape
    length = VD_READOUT.size + coils * (VD_CHANNEL.size + 8 * samples)
    if "SYNCDATA" in readout.flags:
        return _header(readout, number, True, VD_READOUT.size + readout.data.nbytes) + readout.data.tobytes()
    parts = [_header(readout, number, True, length)]
    for channel, line in enumerate(readout.data):
        parts += [VD_CHANNEL.pack(0, 1, number, 0, 0, 0, channel, 0, 0), line.astype("<c8").tobytes()]
    return b"".join(parts)


def _readout_vb(readout: Readout, number: int) -> bytes:
    length = VB_READOUT.size + 8 * readout.data.shape[1]
    return b"".join(
        _header(readout, number, False, length, channel) + line.astype("<c8").tobytes()
        for channel, line in enumerate(readout.data)
    )


def write_twix(path: Path, *scans: TwixScan, vd: bool = True) -> Path:
    """Write measurements, with a table of them as software VD and later do, or a single one as VB does."""
    if not vd:
        path.write_bytes(scans[0].bytes(vd=False))
        return path
    table, body = [struct.pack("<II", 0, len(scans))], b""
    for number, scan in enumerate(scans):
        content = scan.bytes(vd=True)
        table.append(struct.pack("<IIQQ64s64s", number, number, 10240 + len(body), len(content), NAME.encode(), b"gre"))
        body += content + bytes(-len(content) % 512)
    path.write_bytes(b"".join(table).ljust(10240, b"\0") + body)
    return path


def kspace_readouts(kspace: np.ndarray, **more: Any) -> list[Readout]:
    """Return one readout for every line of k-space (coil, ky, kx) or (kz, coil, ky, kx), centre in the middle.

    `more` are fields of `Readout`; counters are joined.
    """
    counters = more.pop("counters", {})
    partitions = kspace if kspace.ndim == 4 else kspace[None]
    centre = (kspace.shape[-1] // 2, kspace.shape[-2] // 2, len(partitions) // 2)
    options = {"centre": centre, **more}
    return [
        Readout(partition[:, line], {"Lin": line, "Par": number, **counters}, **options)
        for number, partition in enumerate(partitions)
        for line in range(partition.shape[1])
    ]
