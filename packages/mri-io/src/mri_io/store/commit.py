"""Staging and publication: a directory becomes visible whole, by one atomic rename, or not at all.

Everything is written into a staging directory beside the volumes, its ``zarr.json`` last, then every file and
directory is flushed to disk, then one rename moves it to its place. A killed process leaves a staging directory,
which readers never see and ``gc`` removes. Two writers of one element never mix: the second rename fails.
"""

import errno
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mri_io.errors import ElementExistsError, StoreError

__all__ = [
    "NODE",
    "REPLACED",
    "STAGING",
    "TARGET",
    "owner_is_alive",
    "publish",
    "staging",
    "storage_errors",
    "write_group",
    "write_json_atomic",
    "write_text_atomic",
]

STAGING = ".staging"
NODE, REPLACED, TARGET = "node", "replaced", "target.txt"


@contextmanager
def storage_errors(where: Path) -> Iterator[None]:
    """Turn an OSError of the file system into a StoreError that names the place and a remedy."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        remedy = {
            errno.ENOSPC: "The file system is full: free space, then run the command again; it continues there.",
            errno.EDQUOT: "The disk quota is used up: free space, then run the command again.",
            errno.EACCES: "Check the permissions of the folder.",
            errno.EROFS: "The file system is mounted read-only.",
        }.get(error.errno or 0, "Nothing half-written is visible; run the command again once it is mended.")
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StoreError(f"{where}: cannot write: {reason}. {remedy}") from error


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """Yield an empty directory beside the volumes in `parent`; it is removed at the end whatever happens.

    Its name says which process owns it, so that garbage collection leaves living writers alone.
    """
    folder = parent / STAGING / f"{uuid.uuid4().hex}.{os.getpid()}.{socket.gethostname()}"
    with storage_errors(folder):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()


def owner_is_alive(folder: Path) -> bool | None:
    """Whether the process that made a staging directory runs; None when it ran on another host."""
    parts = folder.name.split(".", 2)
    if len(parts) != 3 or not parts[1].isdigit():
        return False
    if parts[2] != socket.gethostname():
        return None
    try:
        os.kill(int(parts[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_group(folder: Path, attributes: dict[str, Any]) -> None:
    """Write the ``zarr.json`` of a group, which commits it; all else of the node must be there."""
    write_json_atomic(folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})


def publish(staged: Path, target: Path, *, replace: bool = False) -> None:
    """Move the finished node of a staging directory to `target`.

    Parameters
    ----------
    staged
        The staging directory; ``staged / NODE`` is finished, its ``zarr.json`` exists.
    target
        Where readers will find it. An orphan there (a directory without ``zarr.json``) is discarded.
    replace
        Whether a committed target may be replaced: it is moved aside first, so that for an instant there is
        none. Should the process die in this instant, garbage collection completes the move.

    Raises
    ------
    ElementExistsError
        When the target is committed and `replace` is false, also when another process was quicker.
    """
    node = staged / NODE
    with storage_errors(target):
        _flush_tree(node)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and (replace or not (target / "zarr.json").exists()):
            (staged / TARGET).write_text(os.path.relpath(target, staged.parent), encoding="utf-8")
            target.rename(staged / REPLACED)
        try:
            node.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise ElementExistsError(
                    f"{target}: is committed already, and committed data are immutable. "
                    "Choose another name or ask for replacement."
                ) from None
            raise
        _flush_folder(target.parent)


def write_json_atomic(path: Path, content: Any) -> None:
    """Write a JSON file so that readers see the old content or the new, never a part."""
    write_text_atomic(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_text_atomic(path: Path, text: str) -> None:
    """Write a text file so that readers see the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with storage_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _flush_folder(path.parent)


def _flush_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            descriptor = os.open(Path(root, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        _flush_folder(Path(root))


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # directories cannot be flushed there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
