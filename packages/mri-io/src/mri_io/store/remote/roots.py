"""The root ``zarr.json`` of a volume in an object store, whose copy of all metadata several writers keep up to date.

The copy never describes an element that is gone. Before an element is taken away or replaced, its path and tag are
written into the root, in place of the copy; while the element is still there, nobody writes a copy that could outlive
it, and a writer that read the root before finds that it has changed.
"""

import json
import logging
import math
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mri_io.errors import StoreError
from mri_io.store.metadata import KEY, group_text
from mri_io.store.remote.backends import ConflictError, Stat
from mri_io.store.remote.claims import claim_of
from mri_io.store.remote.paths import StorePath

__all__ = ["LEAVING", "changing_root", "consolidated", "element_tag", "refresh_root"]

_log = logging.getLogger(__name__)
LEAVING = "mri_leaving"
"""Attribute of a root beside ours: elements that are about to be taken away, their paths and tags."""
_METADATA = "zarr.json"
_ATTEMPTS = 30


@contextmanager
def changing_root(volume: StorePath, element: str, *, loses: str | None) -> Iterator[None]:
    """Take the copy of metadata away while an element leaves a volume, and bring it up to date at the end.

    `loses` is the tag of the element that leaves, None when one joins only.
    """
    announcement = uuid.uuid4().hex
    if loses is not None:
        _announce(volume, announcement, {"path": element, "tag": loses, "time": time.time()})
    try:
        yield
    finally:
        try:
            refresh_root(volume, done=announcement)
        except StoreError as error:  # nothing depends on the copy
            _log.warning("%s: the consolidated metadata were not updated: %s", volume, error)


def refresh_root(volume: StorePath, *, done: str = "", forget_after_s: float = math.inf) -> None:
    """Bring the copy of metadata in a root up to date.

    Announcements stand while their elements are there, but for the one that is `done`, and those that are so many
    seconds old: their writers have died.
    """

    def renewed(raw: bytes) -> str | None:
        attributes = json.loads(raw)["attributes"]
        listing = volume.listed()

        def stands(name: str, entry: Mapping[str, Any]) -> bool:
            young = time.time() - entry["time"] < forget_after_s
            return name != done and young and element_tag(listing, entry["path"]) == entry["tag"]

        leaving = {name: entry for name, entry in (attributes.get(LEAVING) or {}).items() if stands(name, entry)}
        if leaving:
            text = group_text(attributes[KEY], further={LEAVING: leaving})
        else:
            text = group_text(attributes[KEY], consolidated=consolidated(listing))
        return None if text.encode() == raw else text

    _change(volume, renewed)


def consolidated(volume: StorePath) -> dict[str, Any]:
    """Return the metadata of all committed nodes below a volume as zarr consolidates them."""
    found: dict[str, Any] = {}
    claimed: list[str] = []
    for file in volume.rglob(_METADATA):
        path = file.parent.relative_to(volume).as_posix()
        if path == ".":
            continue
        try:
            raw = file.read_bytes()
            content = json.loads(raw)
        except (FileNotFoundError, ValueError):
            continue
        if claim_of(raw) is not None:
            claimed.append(f"{path}/")
        else:
            found[path] = content
    # What is below a claim, or below nothing, belongs to no committed node.
    kept = {
        path: content
        for path, content in found.items()
        if not path.startswith(tuple(claimed)) and all(above in found for above in _above(path))
    }
    ordered = sorted(kept, key=lambda path: (path.count("/"), path))
    return {"kind": "inline", "must_understand": False, "metadata": {path: kept[path] for path in ordered}}


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _announce(volume: StorePath, name: str, entry: Mapping[str, Any]) -> None:
    """Write into a root that an element is about to leave, in place of the copy."""

    def announced(raw: bytes) -> str:
        attributes = json.loads(raw)["attributes"]
        return group_text(attributes[KEY], further={LEAVING: {**(attributes.get(LEAVING) or {}), name: dict(entry)}})

    _change(volume, announced)


def element_tag(volume: StorePath, element: str) -> str | None:
    """Return the tag of a committed element, None where there is none."""
    try:
        raw, stat = (volume / element / _METADATA).read()
    except FileNotFoundError:
        return None
    return None if claim_of(raw) is not None else stat.tag


def _change(volume: StorePath, change: Any) -> None:
    """Change a committed root, again while others are quicker; nothing when it is absent, claimed or damaged."""
    path = volume.live() / _METADATA
    for attempt in range(_ATTEMPTS):
        found = _read(path)
        if found is None:
            return
        try:
            text = change(found[0])
            if text is not None:
                path.write(text.encode(), found[1].tag)
        except ConflictError:
            time.sleep(0.02 * attempt)
            continue
        return
    raise StoreError(f"{path}: other writers keep changing it. Run the step again.")


def _read(path: StorePath) -> tuple[bytes, Stat] | None:
    try:
        raw, stat = path.read()
        attributes: Mapping[str, Any] = json.loads(raw)["attributes"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return (raw, stat) if isinstance(attributes.get(KEY), dict) else None
