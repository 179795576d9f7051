"""The root ``zarr.json`` of a volume: its attributes, and a copy of all metadata below for readers that want one.

xarray and zarr open a volume at once, and without a warning, when the root holds "consolidated metadata". It is a cache
like the index: this package never reads it, rebuilds it after every commit under a lock of the volume, and takes it
away before an element is replaced, so that it may lack the newest element after a crash but never describes another.

The same lock is held while an element joins its volume and while a volume is replaced, so that no element joins another
volume than the one it was made for.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mri_io.errors import StoreError
from mri_io.store.durable import flush_folder, storage_errors
from mri_io.store.metadata import SEAL, Node, file_identity, group_text, has_attributes, read_node
from mri_io.store.remote.claims import is_claimed
from mri_io.store.remote.paths import AnyPath, StorePath
from mri_io.store.remote.roots import consolidated

__all__ = [
    "changing_root",
    "check_present",
    "holds_elements",
    "is_current",
    "locked",
    "lost_nodes",
    "refresh_root",
    "write_root",
]

_log = logging.getLogger(__name__)
_ATTEMPTS = 5


def write_root(volume: Path, mri: Mapping[str, Any], temporary: Path) -> None:
    """Write the root's ``zarr.json`` with the metadata of all nodes below, atomically.

    Parameters
    ----------
    volume
        The volume.
    mri
        Its attributes.
    temporary
        A staging directory on the same file system.
    """
    _replace(volume, group_text(mri, consolidated=_consolidated(volume)), temporary)


def refresh_root(volume: Path, temporary: Path) -> None:
    """Bring the copy of metadata in the root up to date; a failure is logged, since nothing depends on it."""
    try:
        with locked(volume):
            _refresh(volume, temporary)
    except OSError as error:
        _log.warning("%s: the consolidated metadata were not updated: %s", volume, error)


@contextmanager
def changing_root(volume: Path, temporary: Path, *, loses: bool) -> Iterator[None]:
    """Hold the lock of a volume while a node of it changes, then bring the copy of metadata up to date.

    Parameters
    ----------
    volume
        The volume.
    temporary
        A staging directory on the same file system.
    loses
        Whether a node is taken away or replaced: the copy is kept away meanwhile.
    """
    try:
        with locked(volume):
            if loses:
                _take_copy_away(volume, temporary)
            yield
    finally:
        refresh_root(volume, temporary)


def _take_copy_away(volume: Path, temporary: Path) -> None:
    with storage_errors(volume):
        node = read_node(volume, root=True)
        if node is not None and node.mri is not None and "consolidated_metadata" in node.content:
            _replace(volume, group_text(node.mri), temporary)


def check_present(volume: AnyPath, mri: Mapping[str, Any], element: str) -> None:
    """Raise StoreError unless a volume is the one whose attributes were read: else an element would join a stranger."""
    root = read_node(volume, root=True)
    if root is None or _as_stored(root.mri or {}) != _as_stored(mri):
        raise StoreError(
            f"{volume}: the volume was {'removed' if root is None else 'replaced'} while the element {element!r} was "
            "written. Open it again and run the step again."
        )


def _as_stored(mri: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in mri.items() if key != SEAL}, sort_keys=True)


def is_current(volume: AnyPath, node: Node) -> bool:
    """Whether the copy of metadata in a root is there and equals the nodes below."""
    below = consolidated(volume) if isinstance(volume, StorePath) else _consolidated(volume)
    return bool(node.content.get("consolidated_metadata") == below)


def lost_nodes(volume: AnyPath) -> list[str]:
    """Return the nodes that the copy of metadata in a root names and that have lost their own.

    The copy is taken away before a node is removed or replaced, so that this is damage, never the work of a writer.
    """
    for _ in range(_ATTEMPTS):
        root = read_node(volume, root=True)
        if root is None:
            return []
        named = (root.content.get("consolidated_metadata") or {}).get("metadata") or {}
        lost = [path for path in named if not (volume / path / "zarr.json").is_file()]
        if not lost or file_identity(volume / "zarr.json") == root.identity:
            return [path for path in lost if path.rpartition("/")[0] not in lost]
    return []


def holds_elements(folder: AnyPath) -> bool:
    """Whether a folder without metadata of its own holds committed nodes: damage, for volumes are published whole.

    Not so below a claim: an element of a volume that is on its way to an object store is there before the root.
    """
    if isinstance(folder, StorePath) and is_claimed(folder):
        return False
    return any(has_attributes(file.parent) for file in folder.rglob("zarr.json"))


def _refresh(volume: Path, temporary: Path) -> None:
    node = read_node(volume, root=True)
    if node is not None and node.mri is not None and not is_current(volume, node):
        _replace(volume, group_text(node.mri, consolidated=_consolidated(volume)), temporary)


def _replace(volume: Path, text: str, temporary: Path) -> None:
    new = temporary / "root.json"
    with new.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    new.replace(volume / "zarr.json")
    flush_folder(volume)


def _consolidated(volume: Path) -> dict[str, Any]:
    """Return the metadata of all nodes below a volume as zarr consolidates them."""
    found: dict[str, Any] = {}
    pending = [volume]
    while pending:
        parent = pending.pop()
        for folder in parent.iterdir():
            with suppress(FileNotFoundError, NotADirectoryError, ValueError):
                content = json.loads((folder / "zarr.json").read_bytes())
                found[folder.relative_to(volume).as_posix()] = content
                if content.get("node_type") == "group":
                    pending.append(folder)
    ordered = sorted(found, key=lambda path: (path.count("/"), path))
    return {"kind": "inline", "must_understand": False, "metadata": {path: found[path] for path in ordered}}


@contextmanager
def locked(volume: Path) -> Iterator[None]:
    """Let one process at a time change a volume or put another in its place; the lock ends with the process."""
    descriptor = _lock(volume)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock(volume: Path) -> int | None:
    """Return a descriptor that holds the lock, None where there is no volume or the system has no locks."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return None
    for attempt in range(_ATTEMPTS):
        try:
            descriptor = os.open(volume, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # The lock belongs to the folder, not to its path: the volume may have been replaced while it was awaited.
        if attempt == _ATTEMPTS - 1 or _is_at(descriptor, volume):
            return descriptor
        os.close(descriptor)
    return None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
