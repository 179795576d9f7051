"""Publication: a finished directory becomes visible whole, by one atomic rename, or not at all.

Everything is written into a staging directory beside the volumes, its ``zarr.json`` last; then every file and
directory is flushed to disk; then one rename moves it to its place.

- A process killed at any moment leaves a staging directory, which readers never see and ``gc`` removes.
- Two writers of one element never mix: a rename onto a committed directory fails, and the loser is told.
- A replacement swaps the new directory and the old in a single step (Linux ``renameat2`` with ``RENAME_EXCHANGE``):
  readers find the old element until they find the new one. Where the system cannot swap, the old one is moved aside
  first; a crash in that instant leaves a note, and ``gc`` completes the replacement.
"""

import ctypes
import errno
import os
from pathlib import Path

from mri_io.errors import ElementExistsError
from mri_io.store.durable import flush_folder, flush_tree, storage_errors, write_json_atomic, write_text_atomic
from mri_io.store.metadata import write_group

__all__ = [
    "NODE",
    "REPLACED",
    "TARGET",
    "finish_replacement",
    "is_committed",
    "publish",
    "publish_group",
    "storage_errors",
    "write_json_atomic",
    "write_text_atomic",
]

NODE, REPLACED, TARGET = "node", "replaced", "target.txt"
"""Names in a staging directory: what is published, what it replaces, and the note of where it goes."""
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_HERE = -100  # AT_FDCWD


def is_committed(folder: Path) -> bool:
    """Whether a directory is a committed volume or element: its ``zarr.json`` exists."""
    return (folder / "zarr.json").is_file()


def publish(staged: Path, target: Path, *, replace: bool = False) -> None:
    """Move the finished node of a staging directory to `target`.

    Parameters
    ----------
    staged
        The staging directory; ``staged / NODE`` is finished, its ``zarr.json`` exists.
    target
        Where readers will find it. An orphan there (a directory without ``zarr.json``) is discarded.
    replace
        Whether a committed target may be replaced.

    Raises
    ------
    ElementExistsError
        When the target is committed and `replace` is false, also when another process was quicker.
    StoreError
        When the file system refuses.
    """
    node = staged / NODE
    with storage_errors(target):
        flush_tree(node)
        if target.exists() and not is_committed(target):
            _discard_orphan(staged, target)
        if not (replace and target.exists() and _exchange(node, target)):
            if replace and target.exists():
                write_text_atomic(staged / TARGET, os.path.relpath(target, staged.parent))
                target.rename(staged / REPLACED)
            _rename_new(node, target)
        flush_folder(target.parent)


def publish_group(staged: Path, target: Path) -> None:
    """Make a plain group such as ``recon`` unless it is there, by rename like everything else."""
    if is_committed(target):
        return
    group = staged / f"group-{target.name}"
    with storage_errors(target):
        write_group(group)
        flush_tree(group)
        try:
            group.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if not is_committed(target):  # a group that lost its metadata
                (group / "zarr.json").rename(target / "zarr.json")
        flush_folder(target.parent)


def finish_replacement(staged: Path) -> Path | None:
    """Complete a replacement whose writer died between moving the old aside and the new into place.

    Returns the target if there was something to complete.
    """
    note = staged / TARGET
    if not note.is_file() or not is_committed(staged / REPLACED):
        return None
    target = staged.parent / note.read_text(encoding="utf-8")
    if target.exists():
        return None
    source = staged / NODE if is_committed(staged / NODE) else staged / REPLACED
    with storage_errors(target):
        source.rename(target)
        flush_folder(target.parent)
    return target


def _rename_new(node: Path, target: Path) -> None:
    try:
        node.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise ElementExistsError(
            f"{target}: is committed already, and committed data are immutable. "
            "Choose another name or ask for replacement."
        ) from None


def _discard_orphan(staged: Path, target: Path) -> None:
    """Move an orphan into the staging directory; put it back if it was committed in this very moment."""
    aside = staged / "orphan"
    try:
        target.rename(aside)
    except FileNotFoundError:
        return
    if is_committed(aside):
        _rename_new(aside, target)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two directories in one atomic step; say whether the system can."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    if rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.ENOENT):
        return False
    raise OSError(code, os.strerror(code), str(second))
