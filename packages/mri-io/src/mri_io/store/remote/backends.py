"""What the store asks of an object store, and which library serves a URL."""

import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from mri_io.errors import ConfigError, MissingPackageError, StoreError, expected_got

__all__ = ["ABSENT", "ANY", "Backend", "ConflictError", "Stat", "library", "open_backend", "split_url"]

ANY, ABSENT = "any", "absent"
"""Conditions of a write: none, or that there is no object; else the tag of the object that is replaced."""
_OBJECT_STORES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss", "http", "https")


class ConflictError(StoreError):
    """The object is not, or no longer, as the condition of a write says."""


@dataclass(frozen=True)
class Stat:
    """An object as it was at one moment.

    Attributes
    ----------
    size
        Bytes.
    modified
        Seconds since 1970, by the clock of the server.
    tag
        Changes with the content: the ETag, or what comes closest to one.
    """

    size: int
    modified: float
    tag: str


class Backend(Protocol):
    """Objects by key. Every method raises StoreError when the server cannot be asked.

    Attributes
    ----------
    conditional
        Whether conditions of writes are checked by the server, in one step with the write.
    lists
        Whether keys can be listed.
    """

    conditional: bool
    lists: bool

    def read(self, key: str, start: int = 0, length: int | None = None) -> tuple[bytes, Stat]:
        """Return bytes from `start` on, and the object they are of; FileNotFoundError when there is none."""
        ...

    def read_end(self, key: str, length: int) -> tuple[bytes, Stat]:
        """Return the last bytes, all of a shorter object."""
        ...

    def stat(self, key: str) -> Stat | None:
        """Return the object's size, time and tag, None when there is none."""
        ...

    def walk(self, prefix: str) -> Iterator[tuple[str, Stat]]:
        """Yield all objects whose keys begin with `prefix`, which ends in a slash."""
        ...

    def children(self, prefix: str) -> tuple[list[str], list[str]]:
        """Return the names of folders and of objects right below `prefix`."""
        ...

    def write(self, key: str, data: bytes | Path, condition: str = ANY) -> str:
        """Write an object in one step and return its tag; ConflictError when the condition does not hold."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; absent ones are no error."""
        ...


def split_url(url: str) -> tuple[str, str]:
    """Divide a URL into ``scheme://host`` and the key; ConfigError when it is none."""
    scheme, divider, rest = url.partition("://")
    host, _, key = rest.partition("/")
    if not divider or not scheme.isidentifier() or (not host and scheme != "memory") or "::" in url:
        raise ConfigError(expected_got("URL", expected="scheme://bucket/path", got=repr(url)))
    parts = [part for part in key.split("/") if part]
    if ".." in parts:
        raise ConfigError(expected_got("URL", expected="a path without '..'", got=repr(url)))
    return f"{scheme}://{host}", "/".join(parts)


def library(module: str) -> Any:
    """Import a library that reaches other machines; MissingPackageError says what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"URLs need {module}, which is not installed ({error}). Install it: pip install 'mri-io[remote]'"
        ) from error


_open: dict[tuple[int, str], Backend] = {}
_lock = threading.Lock()


def open_backend(root: str) -> Backend:
    """Return the connection of this process to ``scheme://host``.

    Raises
    ------
    MissingPackageError
        When the library that serves it is not installed.
    ConfigError
        When no library knows the scheme.
    """
    key = (os.getpid(), root)  # connections do not survive a fork
    with _lock:
        if key not in _open:
            if root.partition("://")[0] in _OBJECT_STORES:
                from mri_io.store.remote.object_store import ObjectStoreBackend

                _open[key] = ObjectStoreBackend(root)
            else:
                from mri_io.store.remote.filesystem import FilesystemBackend

                _open[key] = FilesystemBackend(root)
        return _open[key]
