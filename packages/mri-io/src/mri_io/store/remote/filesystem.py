"""Every other place, such as SFTP servers and memory, through fsspec."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from mri_io.errors import ConfigError, StoreError
from mri_io.store.remote.backends import ABSENT, ANY, ConflictError, Root, Stat, library

__all__ = ["FilesystemBackend"]

_WHOLE_WRITES = ("memory", "oss", "oci", "tos", "obs")
"""Schemes where a written file appears whole; elsewhere it is written beside its place and moved there."""
_TEMPORARY = ".mri-upload-"


class FilesystemBackend:
    """Files of an fsspec file system. Conditions are looked at before the write: one writer at a time only."""

    lists = True

    def __init__(self, root: Root) -> None:
        fsspec = library("fsspec")
        self.root = root
        self._whole = root.scheme in _WHOLE_WRITES
        try:
            self.fs, base = fsspec.core.url_to_fs(f"{root.address}/")
        except ImportError as error:
            raise ConfigError(f"{root}: {root.reason(error)}") from root.cause(error)
        except Exception as error:
            reason = root.reason(error)
            raise ConfigError(f"{root}: the file system cannot be addressed: {reason}") from root.cause(error)
        self._base = base.rstrip("/") + "/"

    @contextmanager
    def _asking(self, key: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise FileNotFoundError(f"{self.root}/{key}: there is no such file") from None
        except Exception as error:
            reason = f"{type(error).__name__}: {self.root.reason(error)}"
            raise StoreError(f"{self.root}/{key}: {reason}") from self.root.cause(error)

    def _stat(self, key: str) -> Stat:
        self.fs.invalidate_cache()
        info = self.fs.info(self._base + key)
        if info.get("type") == "directory":
            raise FileNotFoundError(f"{self.root}/{key}: is a folder")
        return _stat(info)

    def read(self, key: str, start: int = 0, length: int | None = None) -> tuple[bytes, Stat]:
        """See `Backend.read`."""
        with self._asking(key):
            for _ in range(3):
                before = self._stat(key)
                stop = None if length is None else start + length
                data = self.fs.cat_file(self._base + key, start=start or None, end=stop)
                if self._stat(key) == before:
                    return bytes(data), before
        raise StoreError(f"{self.root}/{key}: keeps changing; it cannot be read.")

    def read_end(self, key: str, length: int) -> tuple[bytes, Stat]:
        """See `Backend.read_end`."""
        with self._asking(key):
            return self.read(key, max(0, self._stat(key).size - length))

    def stat(self, key: str) -> Stat | None:
        """See `Backend.stat`."""
        try:
            with self._asking(key):
                return self._stat(key)
        except FileNotFoundError:
            return None

    def walk(self, prefix: str) -> Iterator[tuple[str, Stat]]:
        """See `Backend.walk`."""
        with self._asking(prefix), suppress(FileNotFoundError):
            self.fs.invalidate_cache()
            for path, info in self.fs.find(self._base + prefix.rstrip("/"), detail=True).items():
                yield self._key(path), _stat(info)

    def children(self, prefix: str) -> tuple[list[str], list[str]]:
        """See `Backend.children`."""
        folders: list[str] = []
        files: list[str] = []
        with self._asking(prefix), suppress(FileNotFoundError):
            self.fs.invalidate_cache()
            for info in self.fs.ls(self._base + prefix.rstrip("/"), detail=True):
                name = str(info["name"]).rstrip("/").rpartition("/")[2]
                (folders if info["type"] == "directory" else files).append(name)
        return folders, [name for name in files if not name.startswith(_TEMPORARY)]

    def _key(self, path: str) -> str:
        base = self._base.lstrip("/")
        return path.lstrip("/").removeprefix(base)

    def write(self, key: str, data: bytes | Path, condition: str = ANY) -> str:
        """See `Backend.write`."""
        with self._asking(key):
            there = self.stat(key)
            if condition != ANY and (None if there is None else there.tag) != (
                None if condition == ABSENT else condition
            ):
                raise ConflictError(f"{self.root}/{key}: the file has changed.")
            path = self._base + key
            target = path if self._whole else f"{path.rpartition('/')[0]}/{_TEMPORARY}{uuid.uuid4().hex}"
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            if isinstance(data, Path):
                self.fs.put_file(str(data), target)
            else:
                self.fs.pipe_file(target, data)
            if not self._whole:
                self._move(target, path, there is not None)
            return self._stat(key).tag

    def _move(self, source: str, path: str, replaces: bool) -> None:
        try:
            self.fs.mv(source, path)
        except OSError:
            if not replaces:
                raise
            self.fs.rm_file(path)  # some servers rename onto nothing only
            self.fs.mv(source, path)

    def delete(self, keys: Iterable[str]) -> None:
        """See `Backend.delete`."""
        for key in keys:
            with self._asking(key), suppress(FileNotFoundError):
                self.fs.rm_file(self._base + key)
                self._remove_empty(self._base + key)

    def _remove_empty(self, path: str) -> None:
        """Remove the folders that a deletion left empty; object stores have none."""
        with suppress(Exception):  # the first that is not empty
            while len(path := path.rpartition("/")[0]) > len(self._base):
                self.fs.rmdir(path)


def _stat(info: Mapping[str, Any]) -> Stat:
    times = [info[name] for name in ("LastModified", "mtime", "modified", "last_modified", "created") if info.get(name)]
    modified = times[0] if times else 0.0
    if isinstance(modified, datetime):
        modified = modified.timestamp()
    elif isinstance(modified, str):
        modified = datetime.fromisoformat(modified).timestamp()
    size = int(info.get("size") or 0)
    return Stat(size, float(modified), str(info.get("ETag") or info.get("etag") or f"{float(modified)!r}-{size}"))
