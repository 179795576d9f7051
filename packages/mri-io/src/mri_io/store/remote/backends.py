"""What the store asks of an object store, and which library serves a URL."""

import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from mri_io.errors import ConfigError, MissingPackageError, StoreError, expected_got

__all__ = ["ABSENT", "ANY", "Backend", "ConflictError", "Root", "Stat", "library", "open_backend", "split_url"]

ANY, ABSENT = "any", "absent"
"""Conditions of a write: none, or that there is no object; else the tag of the object that is replaced."""
_WITH_CONTAINER = ("abfs", "abfss", "adl", "wasb", "wasbs")
"""Schemes of Azure, where the name of the container may stand before an @."""
_OBJECT_STORES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss", "http", "https")


class ConflictError(StoreError):
    """The object is not, or no longer, as the condition of a write says."""


@dataclass(frozen=True, order=True)
class Root:
    """The beginning of a URL, ``scheme://host``, by which connections are told apart.

    A user and password that were given are for connecting only: its texts do not show them.

    Attributes
    ----------
    scheme, host
        Parts of the URL.
    login
        ``user`` or ``user:password``, as in the URL; empty when none was given.
    """

    scheme: str
    host: str
    login: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        """The URL to connect with."""
        return f"{self.scheme}://{self.login}@{self.host}" if self.login else str(self)

    @property
    def user(self) -> tuple[str, str]:
        """The user and password, decoded."""
        user, _, password = self.login.partition(":")
        return unquote(user), unquote(password)

    def reason(self, error: Exception) -> str:
        """Return the first line of an error of a library, which may quote the address."""
        text = str(error).strip().partition("\n")[0].rstrip(".")
        password = (self.login.partition(":")[2], self.user[1]) if ":" in self.login else self.user[:1]  # or a token
        for secret in filter(None, (self.login, *password)):
            text = text.replace(secret, "***")
        return text

    def cause(self, error: Exception) -> Exception | None:
        """Return an error that may be shown as the cause of another."""
        return None if self.login else error

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}"


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
    lists
        Whether keys can be listed.
    """

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


def split_url(url: str) -> tuple[Root, str]:
    """Divide a URL into ``scheme://host`` and the key; ConfigError when it is none."""
    scheme, divider, rest = url.partition("://")
    netloc, _, key = rest.partition("/")
    login, _, host = ("", "", netloc) if scheme in _WITH_CONTAINER else netloc.rpartition("@")
    port = host.rpartition("]")[2].partition(":")[2]
    shown = repr(f"{scheme}://{host}/{key}")
    if port and not port.isdigit():  # or the beginning of a password with a slash in it
        fix = "Write / : and @ in a password as %2F, %3A and %40."
        raise ConfigError(expected_got("URL", expected="a number after host:", got=f"{scheme}://...", fix=fix))
    if not divider or not scheme.isidentifier() or (not host and scheme != "memory") or "::" in url:
        raise ConfigError(expected_got("URL", expected="scheme://bucket/path", got=shown))
    parts = [part for part in key.split("/") if part]
    if ".." in parts:
        raise ConfigError(expected_got("URL", expected="a path without '..'", got=shown))
    return Root(scheme, host, login), "/".join(parts)


def library(module: str) -> Any:
    """Import a library that reaches other machines; MissingPackageError says what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"URLs need {module}, which is not installed ({error}). Install it: pip install 'mri-io[remote]'"
        ) from error


_open: dict[tuple[int, Root], Backend] = {}
_lock = threading.Lock()


def open_backend(root: Root) -> Backend:
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
            if root.scheme in _OBJECT_STORES:
                from mri_io.store.remote.object_store import ObjectStoreBackend

                _open[key] = ObjectStoreBackend(root)
            else:
                from mri_io.store.remote.filesystem import FilesystemBackend

                _open[key] = FilesystemBackend(root)
        return _open[key]
