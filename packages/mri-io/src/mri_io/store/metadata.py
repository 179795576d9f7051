"""The ``zarr.json`` files of volumes, groups and elements: written last, sealed by a hash, read as one."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mri_io.schema.elements import known_type
from mri_io.store.damage import REMEDY, VOLUME_REMEDY, DamageError
from mri_io.store.remote.paths import AnyPath, StorePath, map_concurrently

__all__ = [
    "CLAIM",
    "KEY",
    "SEAL",
    "Node",
    "file_identity",
    "group_text",
    "has_attributes",
    "is_claim",
    "matches_seal",
    "read_node",
    "seal",
    "sealed_text",
    "write_array_metadata",
    "write_group",
]

CLAIM = "mri_claim"
"""The one key of the attributes of a claim: an empty group in the place of what a writer is about to commit."""
KEY = "mri"
"""The one key of a group's attributes that is ours."""
SEAL = "metadata_sha256"
"""Attribute that seals the metadata of a volume or element."""
_BLANK = "0" * 64
_PLAIN_KEYS = {"zarr_format", "node_type", "consolidated_metadata"}
_ATTEMPTS = 5


@dataclass(frozen=True)
class Node:
    """A committed group as it was at one moment.

    Attributes
    ----------
    content
        The group's ``zarr.json``.
    mri
        Our attributes in it; None for a plain group such as ``recon``.
    arrays
        Metadata of its arrays by name.
    identity
        Changes when the node is replaced.
    sealed
        Whether the metadata carry a seal (it was found intact, if so).
    """

    content: dict[str, Any]
    mri: dict[str, Any] | None
    arrays: dict[str, dict[str, Any]]
    identity: tuple[Any, ...] | None
    sealed: bool


def seal(group: bytes, arrays: Mapping[str, bytes]) -> str:
    """Return the SHA-256 of a group's ``zarr.json``, its seal read as 64 zeros, and those of its arrays.

    Hashed are the bytes of the group's file, then for each array in order of its name: name, a zero byte, file.
    """
    digest = hashlib.sha256(group)
    for name in sorted(arrays):
        digest.update(name.encode() + b"\0" + arrays[name])
    return digest.hexdigest()


def write_array_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write the ``zarr.json`` of an array in a staging directory."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "zarr.json").write_bytes((json.dumps(metadata, indent=1, allow_nan=False) + "\n").encode())


def write_group(folder: Path, mri: Mapping[str, Any] | None = None, arrays: tuple[str, ...] = ()) -> None:
    """Write the ``zarr.json`` of a group in a staging directory, when all else of the node is there.

    Parameters
    ----------
    folder
        The group.
    mri
        Our attributes, which get the seal; None for a plain group.
    arrays
        Names of its arrays, whose metadata the seal covers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: (folder / name / "zarr.json").read_bytes() for name in arrays}
    (folder / "zarr.json").write_bytes(group_text(mri, files).encode())


def group_text(
    mri: Mapping[str, Any] | None,
    arrays: Mapping[str, bytes] | None = None,
    consolidated: Mapping[str, Any] | None = None,
    further: Mapping[str, Any] | None = None,
) -> str:
    """Return the text of a group's ``zarr.json``, sealed when it has attributes of ours, with `further` ones."""
    content: dict[str, Any] = {"zarr_format": 3, "node_type": "group"}
    if consolidated is not None:
        content["consolidated_metadata"] = dict(consolidated)
    if mri is None:
        return json.dumps({**content, "attributes": {}}, indent=1) + "\n"
    # The attributes come last, so that the seal is last in the file.
    return _fill_seal(
        {**content, "attributes": {**(further or {}), KEY: {**_unsealed(mri), SEAL: _BLANK}}}, arrays or {}
    )


def sealed_text(content: Mapping[str, Any]) -> str:
    """Return the text of a JSON file whose last key seals it."""
    return _fill_seal({**content, SEAL: _BLANK}, {})


def matches_seal(raw: bytes, stored: object, arrays: Mapping[str, bytes] | None = None) -> bool:
    """Whether the bytes of a file, and of the metadata of its arrays, give the seal that is stored in it."""
    head, _, tail = raw.rpartition(str(stored).encode(errors="replace") or b"?")
    return seal(head + _BLANK.encode() + tail, arrays or {}) == stored


def _fill_seal(content: Mapping[str, Any], arrays: Mapping[str, bytes]) -> str:
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    head, _, tail = text.rpartition(_BLANK)
    return head + seal(text.encode(), arrays) + tail


def _unsealed(mri: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mri.items() if key != SEAL}


def read_node(folder: AnyPath, *, root: bool = False) -> Node | None:
    """Read a committed group; None when there is none.

    Parameters
    ----------
    folder
        The group.
    root
        Whether it is the root of a volume, whose seal covers no arrays.

    Raises
    ------
    CorruptElementError
        When metadata cannot be read, or do not match their seal.
    """
    if isinstance(folder, StorePath):
        return _read_remote(folder, root=root)
    path = folder / "zarr.json"
    for _ in range(_ATTEMPTS):
        identity = file_identity(path)
        if identity is None:
            return None
        try:
            raw, arrays = path.read_bytes(), {} if root else _array_files(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue  # replaced or removed meanwhile
        except OSError as error:
            raise DamageError(f"{path}: the metadata cannot be read: {error.strerror}.", "metadata") from None
        if file_identity(path) == identity:
            return _parse(path, raw, arrays, identity, VOLUME_REMEDY if root else REMEDY)
    raise DamageError(f"{path}: the element keeps changing; it cannot be read.", "metadata")


def _read_remote(folder: StorePath, *, root: bool) -> Node | None:
    """Read a committed group of an object store; a claim in its place is none."""
    for attempt in range(_ATTEMPTS):
        path = folder / "zarr.json"
        try:
            raw, stat = path.read()
        except FileNotFoundError:
            return None
        if is_claim(raw):
            return None
        try:
            arrays = {} if root else _array_objects(folder, raw)
            return _parse(path, raw, arrays, (stat.tag,), VOLUME_REMEDY if root else REMEDY)
        except DamageError:
            # What was read together may not belong together, unless the object is the same still.
            if attempt == _ATTEMPTS - 1 or file_identity(path) == (stat.tag,):
                raise
            folder = folder.live()
    return None


def is_claim(raw: bytes) -> bool:
    """Whether the bytes of a ``zarr.json`` are the claim of a writer to an object store: nothing is committed there."""
    if CLAIM.encode() not in raw:
        return False
    try:
        return isinstance(json.loads(raw)["attributes"][CLAIM], dict)
    except (ValueError, KeyError, TypeError):
        return False


def has_attributes(folder: AnyPath) -> bool:
    """Whether a folder is a volume or an element, intact or damaged, rather than a plain group or nothing."""
    path = folder / "zarr.json"
    try:
        content = _json(path, path.read_bytes())
        if content.get("node_type") == "group" and content.keys() <= _PLAIN_KEYS:
            return False  # other writers leave empty attributes out
        return KEY in content["attributes"]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
    except (DamageError, KeyError, TypeError):
        return True


def file_identity(path: AnyPath | str) -> tuple[Any, ...] | None:
    """Return what tells a file from another in its place, None when there is no file."""
    if isinstance(path, StorePath):
        found = path.file_stat()
        return None if found is None else (found.tag,)
    try:
        stat = os.stat(path)  # noqa: PTH116  (on the path of every read; Path.stat is slower)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stat.st_ino, stat.st_mtime_ns


def _array_files(folder: Path) -> dict[str, bytes]:
    found = {}
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.is_dir() and not entry.name.startswith("."):
            path = Path(entry.path, "zarr.json")
            if path.is_file():
                found[entry.name] = path.read_bytes()
    return found


def _array_objects(folder: StorePath, group: bytes) -> dict[str, bytes]:
    """Return the metadata of the arrays of a group in an object store."""

    def read(path: StorePath) -> bytes | None:
        try:
            return (path / "zarr.json").read_bytes()
        except FileNotFoundError:
            return None

    if folder.backend.lists:
        names = [path for path in folder.iterdir() if path.name != "zarr.json" and not path.name.startswith(".")]
    else:
        kind = known_type(_type_name(group))
        names = [folder / name for name in (kind.arrays if kind is not None else ())]
    found = {path.name: raw for path, raw in zip(names, map_concurrently(read, names), strict=True) if raw is not None}
    return {name: raw for name, raw in sorted(found.items()) if not is_claim(raw)}


def _type_name(group: bytes) -> object:
    try:
        return json.loads(group)["attributes"][KEY]["type"]
    except (ValueError, KeyError, TypeError):
        return None


def _parse(path: AnyPath, raw: bytes, files: Mapping[str, bytes], identity: tuple[Any, ...], remedy: str) -> Node:
    content = _json(path, raw, remedy)
    if content.get("node_type") != "group" or content.get("zarr_format") != 3:
        raise DamageError(f"{path}: expected the metadata of a zarr v3 group. {remedy}", "metadata")
    attributes = content.get("attributes", {})
    mri = attributes.get(KEY) if isinstance(attributes, dict) else None
    if not isinstance(mri, dict):
        return Node(content, None, {}, identity, sealed=False)
    stored = mri.get(SEAL)
    if stored is not None and not matches_seal(raw, stored, files):
        raise DamageError(
            f"{path}: the metadata do not match their seal ({SEAL}): they have been damaged or edited. {remedy}",
            "metadata",
        )
    arrays = {name: _json(path.parent / name / "zarr.json", data, remedy) for name, data in files.items()}
    return Node(content, mri, arrays, identity, sealed=stored is not None)


def _json(path: AnyPath, raw: bytes, remedy: str = REMEDY) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{path}: the metadata are not valid JSON: {error}. {remedy}", "metadata") from None
    if not isinstance(content, dict):
        raise DamageError(f"{path}: expected a mapping, got {type(content).__name__}. {remedy}", "metadata")
    return content
