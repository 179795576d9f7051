"""Outputs appear whole or not at all: written under another name beside their place, then renamed."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mri_io.errors import ElementExistsError
from mri_io.store.durable import storage_errors

__all__ = ["appearing", "check_absent", "remove_unfinished", "require_folder"]

_OLD = "-replaced"


def check_absent(targets: Sequence[Path], *, replace: bool) -> None:
    """Raise ElementExistsError when there is something at one of the places and it is not to be replaced."""
    present = [target for target in targets if target.exists()]
    if present and not replace:
        raise ElementExistsError(
            f"{present[0]}: exists already. To overwrite it: --replace; to keep it: --skip-existing"
        )


def require_folder(folder: Path) -> None:
    """Make a folder unless it is there; StoreError when that cannot be."""
    with storage_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


@contextmanager
def appearing(targets: Sequence[Path], mark: str = "") -> Iterator[list[Path]]:
    """Yield a path beside each target; what is written there takes the target's place when the block ends well.

    After an error, or an interrupt, nothing of it is left. When the process is killed, `remove_unfinished` finds it by
    its mark.
    """
    token = mark + uuid.uuid4().hex
    temporary = [target.with_name(f".{token}.{target.name}") for target in targets]
    try:
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for new, target in zip(temporary, targets, strict=True):
            _take_place(new, target, token)
    finally:
        for path in temporary:
            _remove(path)


def _take_place(new: Path, target: Path, token: str) -> None:
    if not new.is_dir() and not target.is_dir():
        new.replace(target)  # in one step
        return
    old = target.with_name(f".{token}{_OLD}.{target.name}")
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    _remove(old)


def remove_unfinished(targets: Sequence[Path], mark: str) -> None:
    """Remove what processes that were killed left beside targets, and put back what they were about to replace."""
    for folder in sorted({target.parent for target in targets}):
        for left in sorted(folder.glob(f".{mark}*")):
            token, _, name = left.name[1:].partition(".")
            if token.endswith(_OLD) and not (folder / name).exists():
                left.rename(folder / name)
            else:
                _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
