"""All that is below a folder, by one request, and the metadata in it by concurrent ones."""

import threading
from concurrent.futures import ThreadPoolExecutor

from mri_io.store.remote.backends import Backend, Stat

__all__ = ["Listing"]

_THREADS = 16
_METADATA = "zarr.json"


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
        self.files: dict[str, Stat] = dict(backend.walk(f"{key}/" if key else ""))
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
