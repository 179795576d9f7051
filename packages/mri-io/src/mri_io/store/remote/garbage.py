"""Remove from an object store what killed writers left there: expired claims, with all that is below them."""

import time
from contextlib import suppress

from mri_io.errors import StoreError
from mri_io.store.remote.claims import Claim, claim_of, is_expired
from mri_io.store.remote.commit import discard
from mri_io.store.remote.paths import StorePath
from mri_io.store.remote.roots import refresh_root
from mri_io.store.staging import STAGING, clear_abandoned, local_staging

__all__ = ["collect_remote_garbage"]

_METADATA = "zarr.json"


def collect_remote_garbage(cohort: StorePath, *, dry_run: bool, older_than_s: float) -> list[StorePath]:
    """Remove expired claims and nodes without metadata, and bring copies of metadata in roots up to date.

    Nodes of living writers are left alone. Returns what was removed, or would be.
    """
    if not dry_run:
        clear_abandoned(local_staging())
    volumes, removed = cohort / "volumes", []
    for path in volumes.iterdir():
        if path.name.endswith(".zarr"):
            found = _orphans(path)
            removed += [node for node in found if dry_run or _remove(node)]
            if not dry_run and path not in found:
                refresh_root(path, forget_after_s=older_than_s)
    stale = [(key, stat) for key, stat in volumes.backend.walk(f"{(volumes / STAGING).key}/")]
    for key, stat in stale:  # probes of the server's clock
        if time.time() - stat.modified > older_than_s and not dry_run:
            volumes.backend.delete([key])
    return removed


def _orphans(volume: StorePath) -> list[StorePath]:
    """Return the volume itself, or elements of it, that were never committed and whose writers are gone."""
    listing = volume.listed()
    if not (listing / _METADATA).is_file():
        # Elements that are committed tell of a root that was lost: damage, which `verify` names.
        named = any(claim_of(file.read_bytes()) is None for file in listing.rglob(_METADATA))
        return [] if named else [volume]
    if (state := _claim_state(listing)) != "committed":
        return [volume] if state == "expired" else []
    found: list[StorePath] = []
    for file in listing.rglob(_METADATA):
        node = file.parent
        if node != volume and not any(above in found for above in node.parents) and _claim_state(node) == "expired":
            found.append(node.live())
    return found


def _claim_state(node: StorePath) -> str:
    try:
        raw, stat = (node / _METADATA).read()
    except FileNotFoundError:
        return "committed"
    claim = claim_of(raw)
    if claim is None:
        return "committed"
    return "expired" if is_expired(claim, stat, node) else "alive"


def _remove(node: StorePath) -> bool:
    """Remove a node that nobody works on; say whether it was done."""
    with suppress(StoreError):  # claimed by another meanwhile
        discard(Claim.take(node))
        return True
    return False
