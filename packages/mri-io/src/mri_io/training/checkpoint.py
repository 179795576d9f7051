"""The self-describing checkpoint: weights, configuration, package versions and split; no pickled code."""

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import torch

from mri_io.config import Config
from mri_io.errors import FormatError, VersionError, expected_got

__all__ = [
    "FORMAT_VERSION",
    "Checkpoint",
    "load_checkpoint",
    "make_header",
    "save_checkpoint",
    "weights_hash",
]

FORMAT_VERSION = 1
_KEY = "mri"
_PACKAGES = ("mri-io", "mri-recon", "mri-seg", "mri-joint", "torch", "lightning", "monai", "numpy")


class SplitLike(Protocol):
    """What a checkpoint records of a split: `mri_io.store.Split` has it."""

    @property
    def name(self) -> str: ...
    @property
    def seed(self) -> int | None: ...
    @property
    def hash(self) -> str: ...


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, on the CPU.

    Attributes
    ----------
    kind
        ``"recon"``, ``"seg"`` or ``"joint"``.
    config
        The complete configuration of the run that made it.
    packages
        Versions of the packages that made it.
    split
        ``{name, seed, train, val, test, hash}``, or empty if the run had no split.
    state_dict
        Tensors by parameter name.
    sha256
        Hash of names, types, shapes and values of `state_dict` (`weights_hash`): equal weights, equal hash.
    step
        Optimiser steps taken.
    path
        The file it was read from.
    """

    kind: str
    config: dict[str, Any]
    packages: dict[str, str]
    split: dict[str, Any]
    state_dict: dict[str, torch.Tensor]
    sha256: str
    step: int
    path: Path

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the tensors whose names start with ``prefix + "."``, without that prefix.

        Raises
        ------
        FormatError
            If there are none; the message lists the prefixes that exist.
        """
        start = f"{prefix}."
        found = {name[len(start) :]: value for name, value in self.state_dict.items() if name.startswith(start)}
        if not found:
            prefixes = sorted({name.partition(".")[0] for name in self.state_dict})
            raise FormatError(expected_got("weights", expected=f"names {start}*", got=prefixes, where=self.path))
        return found


def make_header(
    *, kind: str, config: Config | Mapping[str, Any], split: SplitLike | None, step: int, complete: bool
) -> dict[str, Any]:
    """Build the description that a checkpoint carries beside its tensors (plain types only)."""
    packages = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            continue
    values = config.model_dump(mode="json") if isinstance(config, Config) else dict(config)
    return {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "config": values,
        "packages": packages,
        "split": _describe_split(split),
        "step": step,
        "complete": complete,
    }


def _describe_split(split: SplitLike | None) -> dict[str, Any]:
    if split is None:
        return {}
    parts = {part: list(getattr(split, part, ())) for part in ("train", "val", "test")}
    return {"name": split.name, "seed": split.seed, **parts, "hash": split.hash}


def save_checkpoint(
    path: str | Path,
    state_dict: Mapping[str, torch.Tensor],
    *,
    kind: str,
    config: Config | Mapping[str, Any],
    split: SplitLike | None = None,
    step: int = 0,
) -> Path:
    """Write a checkpoint that `load_checkpoint` reads; others see the old file or the new one, never a part.

    Parameters
    ----------
    path
        Where to; replaced if it exists.
    state_dict
        Tensors by name, written from the CPU.
    kind, config, split, step
        See `Checkpoint`.

    Returns
    -------
    Path
        `path`.
    """
    header = make_header(kind=kind, config=config, split=split, step=step, complete=True)
    return write_checkpoint(path, header, state_dict)


def write_checkpoint(path: str | Path, header: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor]) -> Path:
    """Write header and weights atomically: a temporary file beside `path`, fsync, rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state_dict.items()}
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            torch.save({_KEY: dict(header), "state_dict": tensors}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_raw(path: str | Path, kind: str | None = None) -> dict[str, Any]:
    """Read a checkpoint file with everything in it, after checking that it is one of ours."""
    path = Path(path)
    if not path.is_file():
        raise FormatError(f"{path}: no such checkpoint file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FormatError(f"{path}: truncated or not a checkpoint of these packages ({reason}).") from error
    header = content.get(_KEY) if isinstance(content, dict) else None
    if not isinstance(header, dict) or "format_version" not in header or "state_dict" not in content:
        found = sorted(map(str, content))[:8] if isinstance(content, dict) else type(content).__name__
        fix = "Weights of other projects are loaded by the network's own loader, not as a checkpoint."
        raise FormatError(expected_got("checkpoint keys", expected="mri, state_dict", got=found, where=path, fix=fix))
    if header["format_version"] > FORMAT_VERSION:
        raise VersionError(
            expected_got(
                "checkpoint format",
                expected=f"at most {FORMAT_VERSION}",
                got=header["format_version"],
                where=path,
                fix=f"It was written by {header.get('packages', {})}: upgrade mri-io.",
            )
        )
    if kind is not None and header["kind"] != kind:
        fix = f"Use the {header['kind']} commands for it, or give a {kind} checkpoint."
        raise FormatError(expected_got("checkpoint kind", expected=kind, got=header["kind"], where=path, fix=fix))
    return content


def load_checkpoint(path: str | Path, kind: str | None = None) -> Checkpoint:
    """Read a checkpoint (model.ckpt or last.ckpt) to the CPU, without running any pickled code.

    Parameters
    ----------
    path
        The file.
    kind
        The kind it must be, or None for any.

    Returns
    -------
    Checkpoint
        Weights (the moving average, if the run kept one) and their description.

    Raises
    ------
    FormatError
        If the file is missing, truncated, foreign or of another kind.
    VersionError
        If a newer version of the packages wrote it.
    """
    content = read_raw(path, kind)
    header, state = content[_KEY], dict(content["state_dict"])
    return Checkpoint(
        kind=header["kind"],
        config=header["config"],
        packages=header["packages"],
        split=header["split"],
        state_dict=state,
        sha256=weights_hash(state),
        step=header["step"],
        path=Path(path),
    )


def weights_hash(state_dict: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of the weights: names in order of the alphabet, types, shapes and bytes.

    It does not depend on the file (torch's archive stores its own name), so that equal weights have equal
    hashes.
    """
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        value = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()
