"""What an exporter is: the names of the files of an element, and their writer; or a whole cohort as one data set."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from mri_io.config import Config
from mri_io.errors import ConfigError, expected_got
from mri_io.export.names import series_of
from mri_io.store.cohort import Cohort
from mri_io.store.element import Element
from mri_io.store.volume import Volume, open_volume

__all__ = ["PARTS", "DataSetExporter", "ElementExporter", "ExportItem", "ExportOptions", "Exporter"]

PARTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "magnitude": np.abs,
    "phase": np.angle,
    "real": np.real,
    "imag": np.imag,
    "complex": np.asarray,
}
"""What is written of complex images; ``phase`` in radians."""

BLOCK_BYTES = 64 * 2**20


class ExportOptions(Config):
    """What may be chosen of how elements are written; each exporter says in `Exporter.options` which it follows."""

    part: str | None = None
    """Of complex elements: a key of `PARTS`; by default the first of the exporter's own `Exporter.parts`."""
    source: Path | None = None
    """Folder of the files that the volumes were converted from, where the output repeats what these say."""
    split: str | None = None
    """Name of a split whose parts the output keeps apart."""
    labels: tuple[str, ...] = ()
    """Label maps that are written with the element, ``seg/<name>``."""
    channels: tuple[str, ...] = ()
    """Further images that are written with the element, on its grid."""
    dataset: str | None = None
    """Name of the data set."""
    levels: int | None = Field(default=None, ge=1, le=10)
    """Number of resolutions."""

    @field_validator("part")
    @classmethod
    def _known_part(cls, part: str | None) -> str | None:
        if part is not None and part not in PARTS:
            fix = f"That part of the split: --subjects {part}" if part in ("train", "val", "test") else ""
            raise ValueError(expected_got("part", expected=tuple(PARTS), got=repr(part), fix=fix))
        return part

    def chosen(self) -> frozenset[str]:
        """Return the names of the options that differ from their defaults."""
        return frozenset(
            name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default
        )


@dataclass(frozen=True)
class ExportItem:
    """An element to export, and the volume that it is of."""

    element: Element

    @cached_property
    def volume(self) -> Volume:
        """Its volume, with header, source and other elements."""
        return open_volume(self.element.folder.parents[self.element.path.count("/")])


class Exporter(ABC):
    """A file format, or the layout of a data set; made anew for each run with its options.

    Derive from `ElementExporter` or `DataSetExporter`. Other packages register theirs in the entry-point group
    ``mri_io.exporters`` under its name.

    Raises
    ------
    ConfigError
        When made with an option that it does not follow.
    """

    name: ClassVar[str]
    """What ``--format`` takes."""
    summary: ClassVar[str]
    """One line: what is written, of which elements."""
    gives: ClassVar[str]
    """What is written of an element: files, a folder, or the cohort as one data set."""
    options: ClassVar[frozenset[str]] = frozenset()
    """Names of the `ExportOptions` that it follows, beside ``part``."""
    parts: ClassVar[tuple[str, ...]] = tuple(PARTS)
    """The keys of `PARTS` that it can hold of complex elements, its default first."""

    def __init__(self, options: ExportOptions) -> None:
        for name in sorted(options.chosen() - {"part"} - self.options):
            follows = ", ".join(sorted({"part"} | self.options))
            raise ConfigError(expected_got(f"options of {self.name}", expected=follows, got=name))
        self.chosen = options

    def part_of(self, element: Element) -> str | None:
        """Return which part of a complex element is written, None of real ones.

        Raises
        ------
        ConfigError
            When this format cannot hold the part that was chosen, or the element has none.
        """
        part, where = self.chosen.part, element.folder
        if self.parts == ("complex",) and part not in (None, "complex"):
            expected, fix = f"complex, all that {self.name} writes", "Leave --part out, or choose another format."
            raise ConfigError(expected_got("part", expected=expected, got=part, where=where, fix=fix))
        if element.dtype.kind != "c":
            if part in ("phase", "imag"):
                raise ConfigError(f"{where}: part: the element is real and has no {part}. Leave --part out.")
            return None
        if part == "complex" and part not in self.parts:
            raise ConfigError(f"{where}: {self.name} cannot hold complex values. Choose --part magnitude or phase.")
        if part is not None and part not in self.parts:
            raise ConfigError(expected_got("part", expected=self.parts, got=part, where=where))
        return part or self.parts[0]

    def converted(self, element: Element, array: np.ndarray) -> np.ndarray:
        """Return the chosen part of data of an element."""
        part = self.part_of(element)
        return array if part is None else PARTS[part](array)

    def blocks(self, element: Element, index: tuple[int, ...] = ()) -> Iterator[np.ndarray]:
        """Yield the chosen part of an element, or of ``element[index]``, in order along the next dimension.

        Blocks are of 64 MiB, or of one entry of that dimension where this is more.
        """
        length, rest = element.shape[len(index)], element.shape[len(index) + 1 :]
        step = max(1, BLOCK_BYTES // max(1, math.prod(rest) * element.dtype.itemsize))
        for start in range(0, length, step):
            yield self.converted(element, element[(*index, slice(start, start + step))])


class ElementExporter(Exporter):
    """Writes each element as files, or as a folder, of its own.

    It must be picklable: with ``--scheduler`` it travels to other processes after it has told the names.
    """

    gives = "files"

    @abstractmethod
    def names(self, item: ExportItem) -> list[str]:
        """Return the names of what `write` makes, relative to the output folder; ConfigError where it cannot be."""

    @abstractmethod
    def write(self, item: ExportItem, targets: Sequence[Path]) -> None:
        """Write the files or folders of an element.

        Parameters
        ----------
        item
            The element.
        targets
            For each of `names` the path to write to. Nothing is there, the folder above is; names end as those of
            `names` do. They are moved to their places together when this returns.
        """

    def memory(self, item: ExportItem) -> int:
        """Return how many bytes `write` holds at most; by default what working on one of the `blocks` takes."""
        element = item.element
        entry = math.prod(element.shape[len(series_of(element)) + 1 :]) * element.dtype.itemsize
        return 4 * min(element.nbytes, max(BLOCK_BYTES, entry))

    def stem(self, item: ExportItem) -> str:
        """Return ``<volume>_<element path with - for />``, and the part of a complex element if not the default."""
        element = item.element
        part = self.part_of(element)
        return f"{element.volume_id}_{element.path.replace('/', '-')}" + (
            "" if part in (None, self.parts[0]) else f"_{part}"
        )


class DataSetExporter(Exporter):
    """Writes the volumes of a cohort as one data set, a folder."""

    gives = "a data set"

    @abstractmethod
    def folder_name(self, cohort: Cohort, items: Sequence[ExportItem]) -> str:
        """Return the name of the data set's folder; ConfigError where the elements cannot be written."""

    @abstractmethod
    def write(self, cohort: Cohort, items: Sequence[ExportItem], folder: Path, advance: Callable[[str], Any]) -> None:
        """Write the data set.

        Parameters
        ----------
        cohort
            The cohort.
        items
            One element of each volume that is chosen.
        folder
            Where to write; nothing is there. It is moved to its place when this returns.
        advance
            To be called with the id of each volume that is done.
        """
