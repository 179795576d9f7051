"""Readers that stand for others, and leave fragile files to the child process."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mri_io.formats.base import Format, Identity, RawVolume, SourceItem
from mri_io.formats.isolation.child import patience_for, present_child
from mri_io.formats.isolation.messages import files_of
from mri_io.formats.isolation.service import Service

__all__ = ["isolated"]


def isolated(reader: Format) -> Format:
    """Return a reader that does in a child process whatever its `Format.is_fragile` says so of."""
    return reader if isinstance(reader, _Isolated) or Service.running else _Isolated(reader)


class _Isolated(Format):
    """Stands for a reader, and has the child do what `Format.is_fragile` says so of."""

    def __init__(self, reader: Format) -> None:
        self._reader = reader
        for attribute in ("name", "summary", "options", "options_when_named", "endings", "brings_labels"):
            setattr(self, attribute, getattr(reader, attribute))

    def _is_fragile(self, files: Sequence[Path]) -> bool:
        return any(map(self._reader.is_fragile, files))

    def _call(self, method: str, argument: Path | SourceItem) -> Any:
        files = files_of(argument)
        if not self._is_fragile(files):
            return getattr(self._reader, method)(argument)
        return present_child().ask(files[0], patience_for(files), (self.name, method, argument))

    def sniff(self, path: Path) -> bool:
        return bool(self._call("sniff", path))

    def find(self, path: Path) -> list[SourceItem]:
        found: list[SourceItem] = self._call("find", path)
        return found

    def gather(self, items: Sequence[SourceItem]) -> list[SourceItem]:
        return self._reader.gather(items)

    def identify(self, item: SourceItem) -> Identity:
        found: Identity = self._call("identify", item)
        return found

    def memory(self, item: SourceItem) -> int:
        return int(self._call("memory", item))

    def split_of(self, item: SourceItem) -> Mapping[str, str] | None:
        return self._reader.split_of(item)

    def is_fragile(self, path: Path) -> bool:
        return self._reader.is_fragile(path)

    def read(self, item: SourceItem) -> RawVolume:
        files = files_of(item)
        if not self._is_fragile(files):
            return self._reader.read(item)
        child, patience_s = present_child(), patience_for(files)
        key, raw = child.ask(item.path, patience_s, (self.name, "read", item))
        elements = [
            replace(element, blocks=lambda number=number: child.blocks(item.path, patience_s, key, number))
            for number, element in enumerate(raw.elements)
        ]
        return replace(raw, elements=tuple(elements))

    def __getattr__(self, name: str) -> Any:
        # What a reader has beyond the interface, and what is added to the interface.
        return getattr(self._reader, name)
