"""Paths that are URLs: as much of `pathlib.Path` as the store uses, so that one code serves both."""

import fnmatch
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import total_ordering
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from mri_io.errors import ConfigError, StoreError
from mri_io.store.remote.backends import ABSENT, ANY, Backend, ConflictError, Root, Stat, open_backend, split_url
from mri_io.store.remote.cache import Cache
from mri_io.store.remote.listing import UNKNOWN, Listing

__all__ = [
    "AnyPath",
    "StorePath",
    "file_size",
    "is_url",
    "listed",
    "local_place",
    "map_concurrently",
    "relative_path",
    "sorted_glob",
    "store_path",
]

_ATTEMPTS = 20
_THREADS = 16
_T = TypeVar("_T")
_P = TypeVar("_P", bound="AnyPath")


@total_ordering
class StorePath:
    """An object, or a folder of objects, in an object store or on another machine.

    Parameters
    ----------
    root
        ``scheme://host``, and a user and password for connecting, which no text shows.
    key
        The path below it, without slashes at its ends.
    cache
        Where chunks that have been read are kept, if anywhere.
    listing
        What lies below, as it was at one moment; questions are answered from it. It does not travel to other processes.
    """

    __slots__ = ("_listing", "cache", "key", "root")

    def __init__(self, root: Root, key: str, cache: Cache | None = None, listing: Listing | None = None) -> None:
        self.root, self.key, self.cache, self._listing = root, key, cache, listing

    @property
    def backend(self) -> Backend:
        """The connection of this process."""
        return open_backend(self.root)

    def _at(self, key: str) -> "StorePath":
        return StorePath(self.root, key, self.cache, self._listing)

    def __truediv__(self, other: object) -> "StorePath":
        return self.joinpath(str(other))

    def joinpath(self, *parts: str) -> "StorePath":
        """Return a path below this one."""
        key = "/".join(piece for part in (self.key, *parts) for piece in part.split("/") if piece)
        return self._at(key)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.key.rpartition("/")[2] or self.root.host

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The suffix of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> "StorePath":
        """The folder that holds it."""
        return self._at(self.key.rpartition("/")[0])

    @property
    def parents(self) -> "list[StorePath]":
        """The folders above, the nearest first."""
        found, path = [], self
        while path.key:
            path = path.parent
            found.append(path)
        return found

    def with_name(self, name: str) -> "StorePath":
        """Return the path of a sibling."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> "StorePath":
        """Return the path with another suffix."""
        return self.with_name(PurePosixPath(self.name).with_suffix(suffix).name)

    def relative_to(self, other: "StorePath") -> PurePosixPath:
        """Return the path below another; ValueError when it is not below."""
        return PurePosixPath(self.key).relative_to(PurePosixPath(other.key))

    def as_posix(self) -> str:
        """Return the URL."""
        return str(self)

    def resolve(self) -> "StorePath":
        """Return the path itself: URLs are absolute."""
        return self

    absolute = resolve

    @property
    def is_live(self) -> bool:
        """Whether there is no listing: every question goes to the server."""
        return self._listing is None

    def live(self) -> "StorePath":
        """Return the path without a listing: every question goes to the server."""
        return self if self._listing is None else StorePath(self.root, self.key, self.cache)

    def uncached(self) -> "StorePath":
        """Return the path without a cache."""
        return StorePath(self.root, self.key, None, self._listing)

    def listed(self) -> "StorePath":
        """Return the path with a new listing of all that is below."""
        return StorePath(self.root, self.key, self.cache, Listing(self.backend, self.key))

    def read(self) -> tuple[bytes, Stat]:
        """Return the content of an object, and what it was read from; FileNotFoundError when there is none."""
        if self._listing is not None and (found := self._listing.read(self.key)) is not None:
            return found
        return self.backend.read(self.key)

    def read_bytes(self) -> bytes:
        """Return the content of an object."""
        return self.read()[0]

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the content of an object as text."""
        return self.read_bytes().decode(encoding, errors)

    def write(self, data: bytes | Path, condition: str = ANY) -> str:
        """Write an object in one step, return its tag; see `Backend.write`."""
        return self.backend.write(self.key, data, condition)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove an object; FileNotFoundError when there is none and `missing_ok` is false."""
        if not missing_ok and not self.is_file():
            raise FileNotFoundError(str(self))
        self.backend.delete([self.key])

    def update(self, change: Callable[[bytes | None], bytes | None]) -> None:
        """Change the content of an object so that the changes of others stay: again, while others are quicker.

        `change` gets the content, None when there is no object, and returns the new one, None to leave it.
        """
        for _ in range(_ATTEMPTS):
            try:
                found, stat = self.backend.read(self.key)
                old: bytes | None = found
                condition = stat.tag
            except FileNotFoundError:
                old, condition = None, ABSENT
            new = change(old)
            if new is None:
                return
            try:
                self.write(new, condition)
            except ConflictError:
                continue
            return
        raise StoreError(f"{self}: others keep changing it. Run the step again.")

    def file_stat(self) -> Stat | None:
        """Return size, time and tag of an object now, None when there is none."""
        return self.backend.stat(self.key)

    def is_file(self) -> bool:
        """Whether there is an object."""
        if self._listing is not None and self._listing.files.get(self.key) is not UNKNOWN:
            return self.key in self._listing.files
        return self.backend.stat(self.key) is not None

    def is_dir(self) -> bool:
        """Whether there are objects below."""
        if self._listing is not None:
            return self._listing.is_folder(self.key)
        return any(self.backend.children(self._prefix))

    def exists(self) -> bool:
        """Whether there is an object, or there are some below."""
        return self.is_file() or self.is_dir()

    @property
    def _prefix(self) -> str:
        return f"{self.key}/" if self.key else ""

    def iterdir(self) -> "Iterator[StorePath]":
        """Yield what is right below."""
        if self._listing is not None:
            names = self._listing.children(self.key)
        else:
            names = [name for names in self.backend.children(self._prefix) for name in names]
        return (self / name for name in sorted(set(names)))

    def glob(self, pattern: str) -> "Iterator[StorePath]":
        """Yield what is right below with names of a pattern."""
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def rglob(self, pattern: str) -> "Iterator[StorePath]":
        """Yield the objects below, at any depth, with names of a pattern."""
        whole = self if self._listing is not None else self.listed()
        assert whole._listing is not None
        keys = sorted(key for key in whole._listing.files if key.startswith(self._prefix))
        return (whole._at(key) for key in keys if fnmatch.fnmatchcase(key.rpartition("/")[2], pattern))

    def size(self) -> int:
        """Return the bytes of an object, 0 when there is none."""
        stat = self._listing.files.get(self.key) if self._listing is not None else UNKNOWN
        if stat is UNKNOWN:
            stat = self.file_stat()
        return 0 if stat is None else stat.size

    def __str__(self) -> str:
        return f"{self.root}/{self.key}" if self.key else str(self.root)

    def __repr__(self) -> str:
        return f"StorePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StorePath) and (self.root, self.key) == (other.root, other.key)

    def __lt__(self, other: "StorePath") -> bool:
        return (self.root, self.key) < (other.root, other.key)

    def __hash__(self) -> int:
        return hash((self.root, self.key))

    def __reduce__(self) -> tuple[type["StorePath"], tuple[Root, str, Cache | None]]:
        return StorePath, (self.root, self.key, self.cache)


AnyPath = Path | StorePath


def is_url(text: object) -> bool:
    """Whether a text is a URL rather than a path."""
    return isinstance(text, str) and "://" in text


def store_path(place: "str | os.PathLike[str] | StorePath", cache: Cache | None = None) -> AnyPath:
    """Return the path of a cohort or volume: a `StorePath` for URLs, but a `pathlib.Path` for ``file://``.

    The cache is by default the one that the environment names; see `Cache.from_environment`.
    """
    if isinstance(place, StorePath):
        return place if cache is None else StorePath(place.root, place.key, cache)
    if not isinstance(place, str) or not is_url(place):
        return Path(place)
    if place.startswith("file://"):
        return Path(unquote(urlsplit(place).path))
    root, key = split_url(place)
    return StorePath(root, key, cache or Cache.from_environment())


def local_place(cohort: str, *parts: str) -> Path:
    """Return a path below a cohort for what is not part of the store, such as runs; ConfigError for a URL."""
    if isinstance(place := store_path(cohort), StorePath):
        raise ConfigError(f"{place}: {'/'.join(parts)} cannot be written to a URL. Name a local place: --out")
    return place.joinpath(*parts)


def listed(path: AnyPath) -> AnyPath:
    """Return a path below which questions are answered from one listing, made now unless it has one."""
    return path.listed() if isinstance(path, StorePath) and path.is_live else path


def relative_path(path: AnyPath, root: AnyPath) -> str:
    """Return the path below a folder, with slashes."""
    if isinstance(path, StorePath):
        assert isinstance(root, StorePath)
        return path.relative_to(root).as_posix()
    assert isinstance(root, Path)
    return path.relative_to(root).as_posix()


def sorted_glob(folder: AnyPath, pattern: str) -> list[AnyPath]:
    """Return what is right below a folder with names of a pattern, sorted by name."""
    return sorted(folder.glob(pattern), key=lambda path: path.name)


def file_size(path: AnyPath) -> int:
    """Return the bytes of a file or object."""
    return path.size() if isinstance(path, StorePath) else path.stat().st_size


def map_concurrently(function: Callable[[_P], _T], paths: Iterable[_P]) -> list[_T]:
    """Return ``function(path)`` of every path, in order; of remote ones many at a time, each waits for its answer."""
    chosen = list(paths)
    if len(chosen) < 2 or not isinstance(chosen[0], StorePath):
        return [function(path) for path in chosen]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, chosen))
