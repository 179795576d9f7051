"""Remove from an object store what killed writers left there: expired claims and nodes without metadata."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Literal

from mri_io.errors import CorruptElementError, StoreError
from mri_io.store.metadata import has_attributes
from mri_io.store.remote.claims import Claim, claim_of, is_expired, server_time
from mri_io.store.remote.commit import discard
from mri_io.store.remote.paths import StorePath
from mri_io.store.remote.roots import refresh_root
from mri_io.store.roots import holds_elements, lost_nodes
from mri_io.store.staging import STAGING, clear_abandoned, local_staging

__all__ = ["collect_remote_garbage"]

_METADATA = "zarr.json"
_State = Literal["committed", "expired", "alive"]


def collect_remote_garbage(cohort: StorePath, *, dry_run: bool, older_than_s: float) -> list[StorePath]:
    """Remove expired claims and nodes without metadata, and bring copies of metadata in roots up to date.

    Nodes of living writers are left alone. Returns what was removed, or would be. A dry run writes nothing, not even
    to learn the time of the server: it goes by the clock of this machine.
    """
    if not dry_run:
        clear_abandoned(local_staging())
    volumes, removed = cohort / "volumes", []
    now = time.time if dry_run else cache(lambda: server_time(volumes))
    for path in volumes.iterdir():
        if path.name.endswith(".zarr"):
            listing = path.listed()
            lost = _lost(listing)
            found = _orphans(listing, lost, now)
            removed += [node for node in found if dry_run or _remove(node)]
            if not dry_run and path not in found and lost == set():  # else the copy is what tells of the damage
                refresh_root(path, forget_after_s=older_than_s)
    for key, stat in [] if dry_run else list(volumes.backend.walk(f"{(volumes / STAGING).key}/")):
        if time.time() - stat.modified > older_than_s:  # a probe of the server's clock
            volumes.backend.delete([key])
    return removed


def _lost(volume: StorePath) -> set[StorePath] | None:
    """Return the nodes of a volume that lost their metadata, None when its own are damaged and cannot tell."""
    try:
        return {volume / path for path in lost_nodes(volume)}
    except CorruptElementError:
        return None


def _orphans(listing: StorePath, lost: set[StorePath] | None, now: Callable[[], float]) -> list[StorePath]:
    """Return the volume itself, or elements of it, that were never committed and whose writers are gone."""
    states = {file.parent: _state(file, now) for file in listing.rglob(_METADATA)}
    state = states.get(listing)
    if state is None:
        # Elements that are committed tell of a root that was lost: damage, which `verify` names.
        return [] if "alive" in states.values() or holds_elements(listing) else [listing.live()]
    if state != "committed":
        return [listing.live()] if state == "expired" else []
    expired = [node for node, found in states.items() if found == "expired"]
    if lost is None:
        return _topmost(expired)
    return _topmost([*expired, *_without_metadata(listing, lost, states)])


def _state(file: StorePath, now: Callable[[], float]) -> _State:
    try:
        raw, stat = file.read()
    except FileNotFoundError:
        return "committed"
    claim = claim_of(raw)
    if claim is None:
        return "committed"
    return "expired" if is_expired(claim, stat, now) else "alive"


def _without_metadata(
    group: StorePath, lost: set[StorePath], states: Mapping[StorePath, _State]
) -> Iterator[StorePath]:
    """Yield folders with objects of elements that have no ``zarr.json``, as a copy that was interrupted leaves them.

    Not those that lost it, nor groups above: whoever writes beside what is removed must not be met by its claim.
    """
    for folder in group.iterdir():
        if not folder.is_dir() or folder in lost:
            continue
        if folder in states:
            if states[folder] == "committed" and not has_attributes(folder) and not (folder / "c").is_dir():
                yield from _without_metadata(folder, lost, states)
        elif holds_elements(folder) or not _is_element(folder):
            yield from _without_metadata(folder, lost, states)
        elif not any(state == "alive" and folder in node.parents for node, state in states.items()):
            yield folder


def _is_element(folder: StorePath) -> bool:
    """Whether what a folder holds are objects and arrays, rather than elements."""
    return any(not child.is_dir() or (child / "c").is_dir() or _is_array(child) for child in folder.iterdir())


def _is_array(folder: StorePath) -> bool:
    try:
        content = json.loads((folder / _METADATA).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(content, dict) and content.get("node_type") == "array"


def _topmost(nodes: Iterable[StorePath]) -> list[StorePath]:
    """Return the nodes that are not below others, without their listing."""
    found: list[StorePath] = []
    for node in sorted(nodes, key=lambda node: (node.key.count("/"), node.key)):
        if not any(above in found for above in node.parents):
            found.append(node.live())
    return found


def _remove(node: StorePath) -> bool:
    """Remove a node that nobody works on; say whether it was done."""
    with suppress(StoreError):  # claimed by another meanwhile
        discard(Claim.take(node))
        return True
    return False
