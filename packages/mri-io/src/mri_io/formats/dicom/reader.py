"""The reader: files found one by one, gathered into the volumes of their series, read when asked for."""

import filecmp
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mri_io.errors import FormatError
from mri_io.formats.base import Format, Identity, RawElement, RawVolume, SourceItem
from mri_io.formats.dicom.facts import read_facts, series_attributes, stack_header, whose
from mri_io.formats.dicom.headers import scan_file
from mri_io.formats.dicom.pixels import BLOCK_BYTES, stack_blocks, stack_dtype
from mri_io.formats.dicom.planes import Scan
from mri_io.formats.dicom.segmentation import read_segmentation
from mri_io.formats.dicom.sniffing import is_dicom
from mri_io.formats.dicom.stacks import Stack, group_by, make_stacks, stack_affine

__all__ = ["DicomFormat", "uid_hash"]

_DECODER_BYTES = 64 * 2**20


class DicomFormat(Format):
    """MR images, classic, Siemens mosaics and enhanced multi-frame, and segmentations of them.

    Values are those of the scanner: pixels by rescale slope and intercept. Slices are in order of their positions.
    """

    name = "dicom"
    summary = "DICOM: MR series (classic, mosaic, enhanced) as volumes, SEG objects as their labels"

    def sniff(self, path: Path) -> bool:
        """Whether the file is DICOM, but no DICOMDIR."""
        return is_dicom(path)

    def is_fragile(self, path: Path) -> bool:
        """Whether libraries in C may unpack its pixels."""
        return is_dicom(path)

    def gather(self, items: Sequence[SourceItem]) -> list[SourceItem]:
        """Join files into volumes by what their headers say."""
        order = {item.path: index for index, item in enumerate(items)}
        read = [scan_file(item.path) for item in items]
        damaged = [scan for scan in read if scan.damaged]
        found = [replace(items[order[scan.path]], problem=scan.damaged) for scan in damaged]
        copies = _copies([scan for scan in read if not scan.damaged])
        scans = [scan for scan in read if scan.path in copies]
        segmentations = [scan for scan in scans if scan.segmented is not None]
        kinds = group_by(scans, lambda scan: (scan.series, copies[scan.path], bool(scan.planes), scan.refused))
        for members in kinds.values():
            if members[0].planes and (lost := _lost(members, damaged)):
                reason = (
                    f"series: expected every file of it to be readable, got {lost.path.name}, which is damaged and may "
                    "be one of its slices. Restore that file; if it is of another series, convert the two apart."
                )
                found.append(self._refused(members, reason, items, order))
            elif members[0].planes:
                found += self._series(members, segmentations, items, order)
            elif members[0].refused:
                found.append(self._refused(members, members[0].refused, items, order))
        used = {path for item in found for path in item.options.get("segmentations", ())}
        for scan in segmentations:
            if scan.path not in used:
                reason = (
                    "segmentation: expected the series that it was made from in the same source, got none of it. "
                    "Convert the folder that holds both."
                )
                found.append(self._refused([scan], reason, items, order))
        return _distinct(found)

    def _series(
        self, scans: Sequence[Scan], segmentations: Sequence[Scan], items: Sequence[SourceItem], order: dict[Path, int]
    ) -> list[SourceItem]:
        """Return the volumes of a series."""
        planes = [plane for scan in scans for plane in scan.planes]
        syntaxes = {scan.path: scan.syntax for scan in scans}
        stacks = make_stacks(planes)
        found = []
        for stack in stacks:
            files = tuple(dict.fromkeys(plane.file for plane in stack.planes))
            first = items[min(order[file] for file in files)]
            own = [s.path for s in segmentations if _belongs(s, scans[0].series, stack, stacks)]
            plane = stack.planes[0]
            key = (scans[0].series, plane.type, plane.size, tuple(round(v, 1) + 0.0 for v in plane.orientation))
            options: dict[str, Any] = {"group": _short_hash(repr(key)), "refused": stack.refused}
            if not stack.refused:
                options |= {
                    "stack": stack,
                    "series": scans[0].series,
                    "syntaxes": {file: syntaxes[file] for file in files},
                    "segmentations": tuple(own),
                }
                files = (*files, *own)
            found.append(replace(first, files=files, options=options))
        return found

    def _refused(
        self, scans: Sequence[Scan], reason: str, items: Sequence[SourceItem], order: dict[Path, int]
    ) -> SourceItem:
        """Return an item that says, when it is read, why it cannot be; it has an identity, for redaction."""
        files = tuple(scan.path for scan in scans)
        first = items[min(order[file] for file in files)]
        group = _short_hash(repr((scans[0].series, reason)))
        return replace(first, files=files, options={"refused": reason, "group": group})

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after patient id, or name, and a name of the contrast made from parameters."""
        if item.options.get("refused"):
            return whose(item.path, item.path.stem, "refused")
        stack: Stack = item.options["stack"]
        identity = whose(item.path, item.path.stem, _name(stack).replace("-", ""))
        # A segmentation may name whom its series does not.
        others = (whose(path, path.stem, identity.acquisition) for path in item.options["segmentations"])
        known = {text for other in others for text in _personal(other)} - {identity.patient, *identity.aliases}
        return replace(identity, aliases=(*identity.aliases, *sorted(known)))

    def read(self, item: SourceItem) -> RawVolume:
        """Read a volume; its pixels are read file by file when they are asked for."""
        if item.options.get("refused"):
            raise FormatError(f"{item.path}: {item.options['refused']}")
        stack: Stack = item.options["stack"]
        affine = stack_affine(stack)
        planes = stack.planes
        size = planes[0].size
        image = RawElement(
            f"image/{_name(stack)}",
            (*stack.counts, *size),
            stack_dtype(planes),
            lambda: stack_blocks(stack, item.options["syntaxes"]),
            dims=(*stack.dims, "y", "x"),
            affine=affine,
            attributes=series_attributes(stack),
        )
        elements = [image]
        personal = _personal(self.identify(item)) if item.options["segmentations"] else ()
        for path in item.options["segmentations"]:
            taken = [element.path.removeprefix("seg/") for element in elements]
            elements += read_segmentation(path, affine, (stack.counts[-1], *size), personal, taken)
        return RawVolume(
            elements=tuple(elements),
            header=stack_header(stack, affine, read_facts(planes[0])),
            attributes={"dicom_source": _source(item.options["series"], stack)},
        )

    def memory(self, item: SourceItem) -> int:
        """Return a bound of the memory that reading takes: some blocks, the largest file unpacked, segmentations."""
        largest = max((file.stat().st_size for file in item.files), default=0)
        stack: Stack | None = item.options.get("stack")
        if stack is None:
            return _DECODER_BYTES
        rows, columns = stack.planes[0].size
        maps = len(item.options["segmentations"]) * stack.counts[-1] * rows * columns
        return 6 * BLOCK_BYTES + _DECODER_BYTES + 16 * rows * columns + min(largest, 2**28) + 8 * maps


def _copies(scans: Sequence[Scan]) -> dict[Path, int]:
    """Return the number of each file among those of one image; what equals an earlier file in every byte is left out.

    One image in several transfer syntaxes, say, gives several volumes. Files are of one image where they share its UID
    and are described alike. A UID that several images share, as anonymised files may have, is that of none.
    """
    numbers: dict[Path, int] = {}
    described = {scan.path: _description(scan) for scan in scans}
    sharing = group_by([scan for scan in scans if scan.planes], lambda scan: (scan.series, scan.planes[0].instance))
    known = {uids for uids, members in sharing.items() if uids[1] and len({described[s.path] for s in members}) == 1}
    of_image: dict[Any, list[Path]] = {}
    for scan in scans:
        same = of_image.setdefault((scan.series, described[scan.path]), []) if scan.planes else []
        if not any(filecmp.cmp(scan.path, other, shallow=False) for other in same):
            is_known = bool(scan.planes) and (scan.series, scan.planes[0].instance) in known
            numbers[scan.path] = len(same) if is_known else 0
            same.append(scan.path)
    return numbers


def _description(scan: Scan) -> tuple[Any, ...]:
    """Return what the header says of a file's images, in one transfer syntax as in another."""
    if not scan.planes:
        return ()
    plane = scan.planes[0]
    place = (plane.position, plane.orientation, plane.spacing, plane.size)
    return (plane.instance, len(scan.planes), *place, plane.type, plane.contrast, plane.times)


def _lost(members: Sequence[Scan], damaged: Sequence[Scan]) -> Scan | None:
    """Return a damaged file that may be of a series: one that names it, or one beside its files that names none.

    A multi-frame object is whole by itself.
    """
    if len(members) == 1 and len(members[0].planes) > 1 and members[0].planes[0].tile is None:
        return None
    folders = {member.path.parent for member in members}
    for scan in damaged:
        if scan.series == members[0].series if scan.series else scan.path.parent in folders:
            return scan
    return None


def _belongs(segmentation: Scan, series: str, stack: Stack, stacks: Sequence[Stack]) -> bool:
    """Whether a segmentation is of this volume, of those of a series."""
    referenced, instances = segmentation.segmented or ("", frozenset())
    if referenced != series or stack.refused:
        return False
    fitting = [one for one in stacks if not one.refused]
    naming = [one for one in fitting if instances & {plane.instance for plane in one.planes}]
    return stack is (naming or fitting)[0]


def _name(stack: Stack) -> str:
    """Return the name of a volume's image: its contrast, and what its values are where they are no magnitude."""
    kind = stack.planes[0].kind
    contrast = read_facts(stack.planes[0]).contrast(stack.planes)
    return contrast if kind == "magnitude" else f"{contrast}-{kind}"


def _personal(identity: Identity) -> tuple[str, ...]:
    return tuple(text for text in (identity.patient, *identity.aliases) if text)


def uid_hash(uid: str) -> str:
    """Return the SHA-256 by which the store knows a UID again, without holding it."""
    return hashlib.sha256(uid.encode()).hexdigest()


def _source(series: str, stack: Stack) -> dict[str, Any]:
    """Return hashes by which an exporter finds the files of a series among others; not how to get at them."""
    instances = dict.fromkeys(plane.instance for plane in stack.slices)
    return {"series_sha256": uid_hash(series), "instances_sha256": [uid_hash(uid) for uid in instances]}


def _short_hash(text: str) -> str:
    return f"name-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _distinct(items: Sequence[SourceItem]) -> list[SourceItem]:
    """Give volumes of one first file labels of their own, and volumes of equal description groups of their own."""
    labels: dict[Any, int] = {}
    groups: dict[Any, int] = {}
    found = []
    for item in items:
        label, group = (item.path, item.label), (item.path, item.options.get("group"))
        labels[label], groups[group] = labels.get(label, 0) + 1, groups.get(group, 0) + 1
        if labels[label] > 1:
            item = replace(item, label=f"{item.label}:{labels[label]}")
        if groups[group] > 1:
            again = _short_hash(f"{group[1]}:{groups[group]}")
            item = replace(item, options={**item.options, "group": again})
        found.append(item)
    return found
