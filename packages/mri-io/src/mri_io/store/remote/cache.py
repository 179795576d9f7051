"""A cache of what has been read from afar: files of a local folder, bounded, shared by processes."""

import hashlib
import os
import re
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from mri_io.errors import ConfigError, expected_got

__all__ = ["DEFAULT_BYTES", "Cache"]

DEFAULT_BYTES = 10 * 2**30
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_CRC = 4
_LOW = 0.9  # of the bound is left after a clearing

# Bytes that this process has added to a folder since it last counted what is there, and what was there then.
_added: dict[str, int] = {}
_counted: dict[str, int] = {}


@dataclass(frozen=True)
class Cache:
    """Pieces of objects in a folder, the least recently used of which give way when they exceed a number of bytes.

    Processes may share a folder: entries appear by rename, and one that is missing is read from afar. Every entry
    carries a crc32c; a damaged one is dropped. Several processes together may exceed the bound by a twentieth each.

    Parameters
    ----------
    folder
        The folder, made when there is none.
    max_bytes
        The bound.
    """

    folder: Path
    max_bytes: int = DEFAULT_BYTES

    @classmethod
    def parse(cls, text: str, max_bytes: int | None = None) -> "Cache":
        """Return the cache of ``DIR`` or ``DIR:SIZE``, e.g. ``/scratch/mri:200G``; ConfigError for another size.

        A colon in the name of a folder stands before a slash: ``./a:b/``.
        """
        folder, colon, size = text.rpartition(":")
        if not colon or "/" in size or os.sep in size:
            folder, size = text, ""
        chosen = _bytes(size) if colon and folder != text else DEFAULT_BYTES
        return cls(Path(folder).absolute(), chosen if max_bytes is None else max_bytes)

    @classmethod
    def from_environment(cls) -> "Cache | None":
        """Return the cache that MRI_IO_CACHE (and MRI_IO_CACHE_SIZE) name, None when they do not."""
        text, size = os.environ.get("MRI_IO_CACHE", ""), os.environ.get("MRI_IO_CACHE_SIZE", "")
        return cls.parse(text, _bytes(size) if size else None) if text else None

    def _file(self, url: str, tag: str, start: int, length: int) -> Path:
        name = hashlib.sha256(f"{url}\0{tag}\0{start}\0{length}".encode()).hexdigest()
        return self.folder / name[:2] / name

    def get(self, url: str, tag: str, start: int, length: int) -> bytes | None:
        """Return bytes of an object of this tag, None when they are not there; a damaged entry is removed."""
        path = self._file(url, tag, start, length)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        data = content[:-_CRC]
        if len(data) != length or int.from_bytes(content[-_CRC:], "little") != google_crc32c.value(data):
            self.drop(url, tag, start, length)
            return None
        with suppress(OSError):
            os.utime(path)  # the most recently used goes last
        return data

    def drop(self, url: str, tag: str, start: int, length: int) -> None:
        """Remove an entry."""
        with suppress(OSError):
            self._file(url, tag, start, length).unlink()

    def put(self, url: str, tag: str, start: int, data: bytes) -> None:
        """Keep bytes; a full or read-only disk is no error, the next read goes afar again."""
        size = len(data) + _CRC
        if size > self.max_bytes * _LOW:
            return
        path = self._file(url, tag, start, len(data))
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        try:
            self._make_room(size)
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(data)
                file.write(google_crc32c.value(data).to_bytes(_CRC, "little"))
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()

    def _make_room(self, size: int) -> None:
        """Count what is there, now and then, and remove the least recently used when it and `size` are too much."""
        key = str(self.folder)
        _added[key] = _added.get(key, 0) + size
        total = _counted.get(key, self.max_bytes + 1) + _added[key]
        if total <= self.max_bytes and _added[key] <= self.max_bytes / 20:
            return
        entries = self._entries()
        total = sum(entry[1] for entry in entries) + size
        if total > self.max_bytes:
            for _, length, path in sorted(entries):
                with suppress(OSError):  # another process was quicker
                    path.unlink()
                total -= length
                if total <= self.max_bytes * _LOW:
                    break
        _counted[key], _added[key] = total, 0

    def _entries(self) -> list[tuple[float, int, Path]]:
        found = []
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            with suppress(OSError):
                for entry in os.scandir(folder):
                    with suppress(OSError):
                        stat = entry.stat()
                        found.append((stat.st_mtime, stat.st_size, Path(entry.path)))
        return found


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(expected_got("size of the cache", expected="bytes, or a number with K, M, G or T", got=text))
    return int(float(found[1]) * _UNITS[found[2].upper()])
