"""The reader of ISMRMRD HDF5 files (Inati et al. 2017, doi:10.1002/mrm.26089)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import Identity, RawElement, RawVolume, SourceItem, identify, plain
from mri_io.formats.hdf5 import Hdf5Based, hdf5_outline
from mri_io.formats.ismrmrd.acquisitions import BATCH_BYTES, open_acquisitions, read_xml
from mri_io.formats.ismrmrd.cartesian import Grid, acquired_mask, make_grid
from mri_io.formats.ismrmrd.geometry import scan_affine
from mri_io.formats.ismrmrd.images import holds_images, image_elements
from mri_io.formats.ismrmrd.noise import noise_element, whitening_of
from mri_io.formats.ismrmrd.noncartesian import make_shots
from mri_io.formats.ismrmrd.scan import Scan, sort_scan
from mri_io.formats.kspace.xml_header import aliases_of, deidentified_xml, header_from_xml, patient_of, scan_facts

__all__ = ["IsmrmrdFormat", "data_sets"]

_ON_GRID = (None, "cartesian", "epi")  # echo-planar imaging is refused where its readouts alternate


class IsmrmrdFormat(Hdf5Based):
    """Acquisitions sorted into k-space by their counters; rows are phase encoding, columns readout.

    Cartesian readouts give (slice, coil, ky, kx), 3-D ones (kz, coil, ky, kx), several slabs (slice, kz, coil, ky, kx);
    others (slice, coil, shot, sample) with the element ``trajectory``. Sets, frames and echoes stand in front. Data are
    read plane by plane.

    Readers of data sets in this format derive from it, and change `prepare`, `check` and `corrections`.
    """

    name = "ismrmrd"
    summary = "ISMRMRD HDF5: 2-D, 3-D, series, Cartesian and not, noise scans, images"
    options = frozenset({"oversampling", "noise"})

    def sniff(self, path: Path) -> bool:
        """Whether the file is HDF5 with a group that holds ``xml``, or groups of images."""
        return bool(data_sets(path))

    def find(self, path: Path) -> list[SourceItem]:
        """Return one volume per data set group of the file."""
        groups = data_sets(path)
        return [
            SourceItem(self.name, path, (path,), path.name if len(groups) == 1 else f"{path.name}:{g}", {"group": g})
            for g in groups
        ]

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the header's subject and sequence."""
        xml = self._xml(item)
        acquisition = plain(header_from_xml(xml).sequence or "") or self.name
        return identify(item.path, item.path.stem, acquisition, patient_of(xml), aliases=aliases_of(xml))

    def read(self, item: SourceItem) -> RawVolume:
        """Sort the acquisitions of one data set by their heads; k-space is read when it is asked for."""
        xml = self._xml(item)
        scan = self._scan(item, xml)
        attributes: dict[str, Any] = {"ismrmrd_xml": deidentified_xml(xml)} if xml else {}
        images, left_out = image_elements(item.path, item.options["group"], "image" if scan is None else "recon")
        if left_out:
            attributes["images_left_out"] = left_out
        if scan is None:
            if not images:
                got = "no acquisitions" + (
                    f" and images that are left out: {left_out}" if left_out else " and no images"
                )
                raise FormatError(expected_got("data set", expected="acquisitions or images", got=got, where=item.path))
            return RawVolume(tuple(images), header_from_xml(xml), attributes)
        affine = scan_affine(scan)
        if affine is not None:
            attributes["recon_affine"] = affine.tolist()
        return RawVolume((*self._measured(item, scan), *images), scan.header, attributes)

    def memory(self, item: SourceItem) -> int:
        """Return the bytes of all heads, of some planes of k-space, and of what is read at once."""
        scan = self._scan(item, self._xml(item))
        if scan is None:
            return super().memory(item)
        layout = make_grid(scan, keep_oversampling=True) if self._on_grid(scan) else make_shots(scan)
        plane = 8 * int(np.prod(layout.shape[-3:]))
        mask = int(np.prod(layout.shape[:-3])) * layout.shape[-2] * layout.shape[-1]
        return 8 * plane + 4 * BATCH_BYTES + 8 * scan.of.heads.nbytes + mask + 2**28

    def prepare(self, scan: Scan) -> Scan:
        """Return a scan with what the data set does differently put right in its heads."""
        return scan

    def check(self, scan: Scan, grid: Grid) -> None:
        """Raise FormatError when a Cartesian scan is not as the data set has them; any scan will do here."""

    def corrections(self, scan: Scan) -> tuple[np.ndarray | None, dict[str, Any]]:
        """Return a factor for each imaging readout, where the data set needs one, and what is stated of it."""
        return None, {}

    def _xml(self, item: SourceItem) -> str:
        """Return the header; files of images alone may lack it."""
        try:
            return read_xml(item.path, item.options["group"])
        except FormatError:
            if open_acquisitions(item.path, item.options["group"]) is not None:
                raise
            return ""

    def _scan(self, item: SourceItem, xml: str) -> Scan | None:
        acquisitions = open_acquisitions(item.path, item.options["group"])
        if acquisitions is None:
            return None
        facts = scan_facts(xml)
        if facts is None:
            expected, got = "an ISMRMRD header with an encoding", "none that can be read"
            raise FormatError(expected_got("xml", expected=expected, got=got, where=item.path))
        return self.prepare(sort_scan(acquisitions, header_from_xml(xml), facts))

    def _on_grid(self, scan: Scan) -> bool:
        return scan.header.trajectory in _ON_GRID

    def _measured(self, item: SourceItem, scan: Scan) -> list[RawElement]:
        """Return k-space, what was acquired of it, and the noise."""
        noise = noise_element(scan)
        whitener: np.ndarray | None = None
        stated: dict[str, Any] = {}
        if item.choices.noise == "prewhiten":
            whitener, stated = whitening_of(scan, noise)
        kind = np.dtype(np.complex64)
        if self._on_grid(scan):
            grid = make_grid(scan, keep_oversampling=item.choices.oversampling == "keep")
            self.check(scan, grid)
            signs, corrected = self.corrections(scan)
            found = {**grid.attributes(), **corrected, **stated}
            elements = [
                RawElement(
                    "kspace", grid.shape, kind, lambda: grid.blocks(whitener, signs), dims=grid.dims, attributes=found
                )
            ]
            mask = acquired_mask(grid)
            elements += [] if mask is None else [mask]
        else:
            shots = make_shots(scan)
            found = {**shots.attributes(), **stated}
            kspace = RawElement(
                "kspace", shots.shape, kind, lambda: shots.blocks(whitener), dims=shots.dims, attributes=found
            )
            elements = [kspace, shots.trajectory()]
        return elements if noise is None else [*elements, replace(noise, dims=("coil", "sample"))]


def data_sets(path: Path) -> list[str]:
    """Return the groups of a file that are ISMRMRD data sets, with a header or with images; none of other files."""
    outline = hdf5_outline(path)
    groups = {} if outline is None else outline.groups
    return [name for name, members in groups.items() if "xml" in members or any(map(holds_images, members.values()))]
