"""Publication to an object store: claim, upload under conditions, commit by one conditional write.

What is published has been written and checked in a local staging directory. No object of a node is ever written but on
the condition that it is absent, or still what it was when the node was claimed. So a writer that was stopped and wakes
up after another has taken over changes nothing: not the ``zarr.json``, and no chunk.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from mri_io.errors import StoreError
from mri_io.store.metadata import group_text
from mri_io.store.remote.backends import ABSENT, ConflictError, Stat
from mri_io.store.remote.claims import Claim
from mri_io.store.remote.paths import StorePath
from mri_io.store.remote.roots import changing_root, element_tag

__all__ = ["discard", "publish", "publish_element", "remove_element", "remove_node"]

_METADATA = "zarr.json"
_THREADS = 8
_LARGE = 32 * 2**20
"""Files from this size on are sent one after the other."""
_DELETED_AT_ONCE = 500
_ATTEMPTS = 4


def publish(
    node: Path,
    target: StorePath,
    *,
    replace: bool = False,
    former: str | None = None,
    check: Callable[[], None] | None = None,
) -> None:
    """Bring a finished node to an object store; readers see it whole or not at all.

    Parameters
    ----------
    node
        The finished local directory, its ``zarr.json`` in it.
    target
        Where readers will find it.
    replace
        Whether a committed target may be replaced. It is absent from now until the commit.
    former
        Tag of what is replaced; anything else is not.
    check
        Called when the target is claimed; raises when the node must not be published.

    Raises
    ------
    ElementExistsError
        When the target is committed and `replace` is false.
    StoreError
        When another writer is at work on it or has taken it over, or the server fails.
    """
    files = {path.relative_to(node).as_posix(): path for path in node.rglob("*") if path.is_file()}
    text = files.pop(_METADATA).read_bytes()
    claim = Claim.take(target, replace=replace, former=former)
    try:
        if check is not None:
            check()
    except BaseException:
        with suppress(StoreError):
            claim.give_back()
        raise
    try:
        there = _claim_all_below(claim)
        tags = _upload(claim, files, there)
        _delete(claim, there.keys() - files.keys())
        _check_uploaded(claim, files, tags)
        claim.commit(text)
    except BaseException:
        with suppress(StoreError):  # another writer, or garbage collection, does it
            discard(claim)
        raise


def publish_element(node: Path, volume: StorePath, element: str, *, replace: bool, check: Callable[[], None]) -> None:
    """Bring a finished element into a committed volume; parameters and errors are those of `publish`."""

    def ready() -> None:
        check()
        _publish_groups(volume, element)

    # What is replaced is what is there now, in a volume that is ours after that; it never is an element of another.
    former = element_tag(volume, element) if replace else None
    check()
    with changing_root(volume, element, loses=former):
        publish(node, volume / element, replace=former is not None, former=former, check=ready)


def remove_element(volume: StorePath, element: str) -> None:
    """Remove an element from a volume."""
    former = element_tag(volume, element)
    with changing_root(volume, element, loses=former):
        remove_node(volume / element, former=former)


def remove_node(target: StorePath, *, former: str | None = None) -> None:
    """Remove a node, that of a tag only when one is given: a claim makes it vanish at once, its objects go after."""
    discard(Claim.take(target, replace=True, former=former))


def discard(claim: Claim) -> None:
    """Remove all objects of a claimed node, and the claim."""
    try:
        _delete(claim, _claim_all_below(claim).keys())
        claim.remove()
    except BaseException:
        with suppress(StoreError):
            claim.release()
        raise


def _publish_groups(volume: StorePath, element: str) -> None:
    """Make the plain groups above an element, such as ``recon``, unless they are there."""
    parts = element.split("/")
    for depth in range(1, len(parts)):
        with suppress(ConflictError):
            (volume.joinpath(*parts[:depth]) / _METADATA).write(group_text(None).encode(), ABSENT)


def _below(claim: Claim) -> dict[str, Stat]:
    """Return the objects of a claimed node by their paths in it, but for the claim."""
    prefix = f"{claim.folder.key}/"
    found = {key.removeprefix(prefix): stat for key, stat in claim.folder.backend.walk(prefix)}
    found.pop(_METADATA, None)
    return found


def _claim_all_below(claim: Claim) -> dict[str, Stat]:
    """Put claims in place of all metadata below a node, and return what is there.

    From then on no reader takes what is left of former content for data, and a writer of an element of a volume that
    is replaced or removed cannot commit it.
    """
    there = _below(claim)
    for path in [path for path in there if path.rpartition("/")[2] == _METADATA]:
        tag = _put(claim, path, claim.text(), there[path].tag)
        there[path] = Stat(0, 0.0, tag)
    return there


def _upload(claim: Claim, files: Mapping[str, Path], there: Mapping[str, Stat]) -> dict[str, str]:
    """Send chunks, then the metadata of arrays, then those of groups; return the tags."""
    data = [path for path in files if path.rpartition("/")[2] != _METADATA]
    metadata = sorted(files.keys() - set(data), key=lambda path: -path.count("/"))
    large = [path for path in data if files[path].stat().st_size >= _LARGE]
    depths = sorted({path.count("/") for path in metadata}, reverse=True)
    small = [path for path in data if path not in set(large)]
    levels = [small, *([path for path in metadata if path.count("/") == depth] for depth in depths)]

    def send(path: str) -> str:
        return _put(claim, path, files[path], there[path].tag if path in there else ABSENT)

    tags = {path: send(path) for path in large}
    with ThreadPoolExecutor(_THREADS) as pool:
        for paths in levels:
            try:
                tags.update(zip(paths, pool.map(send, paths), strict=True))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return tags


def _put(claim: Claim, path: str, content: bytes | Path, condition: str) -> str:
    """Write an object below a claimed node, whatever is there, but only while the claim is held."""
    target = claim.folder / path
    for _ in range(_ATTEMPTS):
        claim.check()
        try:
            return target.write(content, condition)
        except ConflictError:
            # A writer that lost the claim was quicker, or the answer to our own write was lost.
            stat = target.file_stat()
            claim.check_now()  # what it was before this still holds: so it cannot be the work of one that comes after
            condition = ABSENT if stat is None else stat.tag
    raise StoreError(f"{target}: keeps changing while it is written. Run the step again.")


def _check_uploaded(claim: Claim, files: Mapping[str, Path], tags: Mapping[str, str]) -> None:
    """Raise StoreError unless the server lists every object with the size and the tag that were sent."""
    there = _below(claim)
    for path, file in files.items():
        stat = there.get(path)
        if stat is None or stat.size != file.stat().st_size or stat.tag != tags[path]:
            got = "no object" if stat is None else f"{stat.size} bytes with tag {stat.tag}"
            raise StoreError(
                f"{claim.folder / path}: expected {file.stat().st_size} bytes with tag {tags[path]}, found {got}. "
                "Run the step again."
            )


def _delete(claim: Claim, paths: Iterable[str]) -> None:
    """Delete objects below a claimed node; deletions know no conditions, so the claim is confirmed just before."""
    chosen = sorted(paths)
    for start in range(0, len(chosen), _DELETED_AT_ONCE):
        claim.check_now()
        claim.folder.backend.delete([(claim.folder / path).key for path in chosen[start : start + _DELETED_AT_ONCE]])
