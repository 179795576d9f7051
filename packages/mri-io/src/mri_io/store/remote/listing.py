"""All that is below a folder, by one request, and the metadata in it by concurrent ones.

Of a server that does not list, as web servers, the copy of metadata in the root of a volume tells what is below.
"""

import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product

from mri_io.errors import StoreError
from mri_io.store.remote.backends import Backend, Stat

__all__ = ["UNKNOWN", "Listing"]

_THREADS = 16
_METADATA = "zarr.json"
UNKNOWN = Stat(0, 0.0, "")
"""Stands for an object that was not looked at."""


class Listing:
    """Objects below a folder as they were at one moment.

    Parameters
    ----------
    backend
        The connection.
    key
        The folder.
    """

    def __init__(self, backend: Backend, key: str) -> None:
        self._backend, self._lock = backend, threading.Lock()
        self.files: dict[str, Stat]
        if backend.lists:
            self.files = dict(backend.walk(f"{key}/" if key else ""))
        else:
            self.files = dict.fromkeys(_named(backend, key), UNKNOWN)
        self._children: dict[str, set[str]] = {}
        for path in self.files:
            while path != key:
                parent, _, name = path.rpartition("/")
                names = self._children.setdefault(parent, set())
                if name in names:
                    break
                names.add(name)
                path = parent
        self._metadata: dict[str, tuple[bytes, Stat]] | None = None

    def is_folder(self, key: str) -> bool:
        """Whether there are objects below."""
        return key in self._children

    def children(self, key: str) -> list[str]:
        """Return the names right below a folder."""
        return sorted(self._children.get(key, ()))

    def read(self, key: str) -> tuple[bytes, Stat] | None:
        """Return the content of a ``zarr.json``, all of them having been read at once; None for other objects.

        Raises
        ------
        FileNotFoundError
            When there was none, or it has been removed meanwhile.
        """
        if key.rpartition("/")[2] != _METADATA:
            return None
        if key not in self.files:
            raise FileNotFoundError(f"{key}: there is no such object")
        with self._lock:
            if self._metadata is None:
                self._metadata = self._read_all()
        if key not in self._metadata:
            raise FileNotFoundError(f"{key}: the object has been removed")
        return self._metadata[key]

    def _read_all(self) -> dict[str, tuple[bytes, Stat]]:
        def fetch(key: str) -> tuple[bytes, Stat] | None:
            try:
                return self._backend.read(key)
            except FileNotFoundError:
                return None

        keys = [key for key in self.files if key.rpartition("/")[2] == _METADATA]
        with ThreadPoolExecutor(_THREADS) as pool:
            return {key: found for key, found in zip(keys, pool.map(fetch, keys), strict=True) if found is not None}


def _named(backend: Backend, key: str) -> Iterator[str]:
    """Yield the objects that the copy of metadata in the root of a volume implies."""
    try:
        content = json.loads(backend.read(f"{key}/{_METADATA}")[0])
    except (FileNotFoundError, ValueError):
        return
    yield f"{key}/{_METADATA}"
    copy = content.get("consolidated_metadata") if isinstance(content, dict) else None
    if copy is None:
        raise StoreError(
            f"{key}: this server does not list its files, and the root of the volume has no copy of the metadata of "
            "its elements. Make one where the cohort is: mri-cli gc COHORT"
        )
    for path, node in copy["metadata"].items():
        yield f"{key}/{path}/{_METADATA}"
        grid = (node.get("chunk_grid") or {}).get("configuration") or {}
        sizes = grid.get("chunk_shape")
        if sizes and node["chunk_key_encoding"].get("name") == "default":
            counts = [math.ceil(length / size) for length, size in zip(node["shape"], sizes, strict=True)]
            yield from (f"{key}/{path}/c/{'/'.join(map(str, index))}" for index in product(*map(range, counts)))
