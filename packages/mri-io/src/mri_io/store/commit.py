"""Publication: a finished directory becomes visible whole, by one atomic rename, or not at all.

Everything is written into a staging directory beside the volumes, its ``zarr.json`` last; then every file and
directory is flushed to disk; then one rename moves it to its place.

- A process killed at any moment leaves a staging directory, which readers never see and ``gc`` removes.
- Two writers of one element never mix: a rename onto a committed directory fails, and the loser is told.
- A replacement swaps the new directory and the old in a single step (Linux ``renameat2`` with ``RENAME_EXCHANGE``,
  macOS ``renamex_np`` with ``RENAME_SWAP``): readers find the old element until they find the new one. Where the system
  or the file system cannot swap, the old one is moved aside first. When the new one then cannot take its place, the old
  one is put back; a crash in that instant leaves a note, and ``gc`` completes the replacement.
"""

import ctypes
import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

from mri_io.errors import ElementExistsError
from mri_io.store.durable import flush_folder, flush_tree, storage_errors, write_json_atomic, write_text_atomic
from mri_io.store.metadata import is_claim, write_group
from mri_io.store.remote.paths import AnyPath, StorePath

__all__ = [
    "NODE",
    "REPLACED",
    "TARGET",
    "finish_replacement",
    "flush_node",
    "is_committed",
    "is_unfinished",
    "publish",
    "publish_group",
    "storage_errors",
    "write_json_atomic",
    "write_text_atomic",
]

NODE, REPLACED, TARGET = "node", "replaced", "target.txt"
"""Names in a staging directory: what is published, what it replaces, and the note of where it goes."""
_SWAP = 2  # RENAME_EXCHANGE of Linux' renameat2(2), RENAME_SWAP of macOS' renamex_np(2)
_HERE = -100  # AT_FDCWD


def is_committed(folder: AnyPath) -> bool:
    """Whether a directory is a committed volume or element: its ``zarr.json`` exists, and is no claim."""
    file = folder / "zarr.json"
    if isinstance(file, StorePath):
        try:
            return not is_claim(file.read_bytes())
        except FileNotFoundError:
            return False
    return file.is_file()


def flush_node(staged: Path, target: Path) -> None:
    """Bring the finished node of a staging directory to the disk: to be done before `publish`."""
    with storage_errors(target):
        flush_tree(staged / NODE)


def publish(staged: Path, target: Path, *, replace: bool = False) -> None:
    """Move the finished node of a staging directory to `target`.

    Parameters
    ----------
    staged
        The staging directory; ``staged / NODE`` is finished and flushed, its ``zarr.json`` exists.
    target
        Where readers will find it. An orphan there (a directory without ``zarr.json``) is discarded.
    replace
        Whether a committed target may be replaced.

    Raises
    ------
    ElementExistsError
        When the target is committed and `replace` is false, also when another process was quicker.
    StoreError
        When the file system refuses; what was to be replaced is still there then.
    """
    node = staged / NODE
    with storage_errors(target):
        if target.exists() and not is_committed(target):
            _discard_orphan(staged, target)
        if not (replace and target.exists()):
            _rename_new(node, target)
        elif not _exchange(node, target):
            _replace_in_two_steps(staged, target)
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
    target = _target_without_node(staged)
    if target is None:
        return None
    source = staged / NODE if is_committed(staged / NODE) else staged / REPLACED
    with storage_errors(target):
        source.rename(target)
        flush_folder(target.parent)
    return target


def is_unfinished(staged: Path) -> bool:
    """Whether a staging directory holds the only copy of what it was to replace: `finish_replacement` is needed."""
    return _target_without_node(staged) is not None


def _target_without_node(staged: Path) -> Path | None:
    """Return where a replacement goes whose old node has been moved aside and whose new one has not arrived."""
    note = staged / TARGET
    if not note.is_file() or not is_committed(staged / REPLACED):
        return None
    target = staged.parent / note.read_text(encoding="utf-8")
    return None if target.exists() else target


def _replace_in_two_steps(staged: Path, target: Path) -> None:
    """Move the old node aside and the new into its place; put the old one back when that fails."""
    aside = staged / REPLACED
    write_text_atomic(staged / TARGET, os.path.relpath(target, staged.parent))
    try:
        target.rename(aside)
        _rename_new(staged / NODE, target)
    except BaseException:
        with suppress(OSError):  # another writer took the place, or the disk fails altogether: gc puts it back then
            aside.rename(target)
        raise


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
        status = _swap(os.fsencode(first), os.fsencode(second))
    except (OSError, AttributeError, TypeError):  # a system without such a call
        return False
    if status == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.ENOENT):
        return False
    raise OSError(code, os.strerror(code), str(second))


def _swap(first: bytes, second: bytes) -> int:
    system = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        return int(system.renamex_np(first, second, _SWAP))
    return int(system.renameat2(_HERE, first, _HERE, second, _SWAP))
