"""Check a cohort or a volume: every byte, or quickly nodes, sizes and shard indices. Never raises for bad data."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mri_io.config import validate_config
from mri_io.errors import NonFiniteError, SchemaError, StoreError, VersionError
from mri_io.schema.elements import DATA, ArrayType, ElementType, known_type
from mri_io.schema.readers import check_version, is_known
from mri_io.schema.validation import load_schema, validate
from mri_io.store.arrays import StoredArray, array_metadata
from mri_io.store.checks import UndeclaredLabelError, check_affine, check_labels_declared, check_siblings
from mri_io.store.codecs import states_size
from mri_io.store.cohort import Cohort, volume_folders
from mri_io.store.commit import is_committed
from mri_io.store.damage import REMEDY, VOLUME_REMEDY, DamageError, Kind, bad_checksum
from mri_io.store.documents import is_sealed, read_document
from mri_io.store.element import Element
from mri_io.store.metadata import has_attributes, read_node
from mri_io.store.remote.paths import AnyPath, StorePath, listed, relative_path, sorted_glob, store_path
from mri_io.store.remote.reading import RemoteChunkFile
from mri_io.store.roots import holds_elements, is_current, lost_nodes
from mri_io.store.shards import ChunkFile
from mri_io.store.splits import Split
from mri_io.store.staging import STAGING
from mri_io.store.volume import Volume

__all__ = [
    "Problem",
    "VerifyReport",
    "folders_to_verify",
    "is_single",
    "unfinished",
    "verify",
    "verify_documents",
    "verify_folder",
]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and what to do."""

    volume: str
    element: str
    kind: Kind
    message: str


@dataclass
class VerifyReport:
    """What was looked at and what is wrong.

    Orphans (left by killed writers, invisible to readers) and volumes whose root holds an outdated copy of metadata
    (a killed writer again; only plain zarr readers use it) are listed apart: they are no damage, and ``gc`` mends them.
    `unknown` counts, by type, elements that could not be checked: no installed package knows their type. `unchecked`
    says, by volume, why its check did not end: a worker was killed, say.
    """

    problems: list[Problem] = field(default_factory=list)
    orphans: list[AnyPath] = field(default_factory=list)
    stale: list[AnyPath] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)
    volumes: int = 0
    elements: int = 0
    bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether all was checked, and nothing that is committed is damaged."""
        return not self.problems and not self.unchecked

    def add(self, other: "VerifyReport") -> None:
        """Add what was found elsewhere, in a further volume say."""
        self.problems += other.problems
        self.orphans += other.orphans
        self.stale += other.stale
        for kind, number in other.unknown.items():
            self.unknown[kind] = self.unknown.get(kind, 0) + number
        self.unchecked |= other.unchecked
        self.volumes += other.volumes
        self.elements += other.elements
        self.bytes += other.bytes


def verify(
    target: Cohort | Volume | str | AnyPath,
    *,
    fast: bool = False,
    progress: Callable[[str, int], None] | None = None,
) -> VerifyReport:
    """Check everything that is committed.

    Parameters
    ----------
    target
        A cohort or a volume, open or as a path or URL.
    fast
        Check metadata, presence and sizes of chunks and the shard indices, without reading the data.
    progress
        Called with the volume id and the bytes read after each element.

    Returns
    -------
    VerifyReport
    """
    path = target.path if isinstance(target, Cohort | Volume) else store_path(target)
    if isinstance(target, Volume) or is_single(path):
        report = VerifyReport()
        _Volume(path, report, fast, progress).check()
        return report
    report = verify_documents(path)
    for folder in folders_to_verify(path):
        report.add(verify_folder(folder, fast=fast, progress=progress))
    report.orphans += unfinished(path)
    return report


def is_single(path: AnyPath) -> bool:
    """Whether a path is that of a volume, not of a cohort."""
    return not (path / "cohort.json").is_file() and path.suffix == ".zarr"


def verify_documents(cohort: AnyPath) -> VerifyReport:
    """Check what a cohort holds beside its volumes: its own metadata, splits, statistics and evaluations."""
    report = VerifyReport()
    _check_document(cohort / "cohort.json", "cohort", report)
    for folder, schema in (("splits", "split"), ("stats", "statistics"), ("evaluations", "evaluation")):
        for file in sorted_glob(cohort / folder, "*.json"):
            _check_document(file, schema, report)
    return report


def folders_to_verify(cohort: AnyPath) -> list[AnyPath]:
    """Return the folders of a cohort's volumes, orphans among them, in the order in which reports list them."""
    return sorted(volume_folders(cohort), key=lambda folder: folder.name)


def verify_folder(
    folder: AnyPath, *, fast: bool = False, progress: Callable[[str, int], None] | None = None
) -> VerifyReport:
    """Check one of `folders_to_verify`."""
    report, volume = VerifyReport(), listed(folder)
    if is_committed(volume) or holds_elements(volume):
        _Volume(volume, report, fast, progress).check()
    else:
        report.orphans.append(volume)
    return report


def unfinished(cohort: AnyPath) -> list[AnyPath]:
    """Return what writers that were killed left in the staging folder."""
    return [] if isinstance(cohort, StorePath) else sorted((cohort / "volumes" / STAGING).glob("*"))


@contextmanager
def _findings(report: VerifyReport, volume: str, element: str, otherwise: Kind = "metadata") -> Iterator[None]:
    """Turn whatever goes wrong into a problem of the report."""
    try:
        yield
    except Exception as error:  # what garbage does to a parser or decoder is a finding, not a crash
        kind: Kind = otherwise
        if isinstance(error, DamageError):
            kind = error.kind
        elif isinstance(error, VersionError):
            kind = "version"
        elif isinstance(error, UndeclaredLabelError):
            kind = "label"
        elif isinstance(error, OSError) and not isinstance(error, StoreError):
            kind = "checksum"  # the disk gives no bytes at all
        problem = Problem(volume, element, kind, str(error) or repr(error))
        if problem not in report.problems:
            report.problems.append(problem)


def _check_document(path: AnyPath, schema: str, report: VerifyReport) -> None:
    with _findings(report, "", path.name):
        try:
            content = read_document(path)
        except (FileNotFoundError, NotADirectoryError):
            raise DamageError(f"{path}: expected metadata, found no file. Restore it from a copy.", "missing") from None
        unknown = content.keys() - load_schema(schema)["properties"].keys()
        if unknown and not is_sealed(path):  # the damaged name of a seal, say
            raise DamageError(
                f"{path}: unknown keys {', '.join(sorted(unknown))} in a file without a seal.", "metadata"
            )
        if schema == "cohort":
            check_version(content.get("schema_version"), path)
        validate(schema, content, path)
        if schema == "split":
            known = {key: value for key, value in content.items() if key in Split.model_fields}
            split = validate_config(Split, known, where=str(path))
            if content.get("hash") not in (None, split.hash):
                raise DamageError(f"{path}: hash: expected {split.hash}, got {content['hash']}.", "metadata")


class _Volume:
    """The check of one volume."""

    def __init__(
        self, folder: AnyPath, report: VerifyReport, fast: bool, progress: Callable[[str, int], None] | None
    ) -> None:
        self.folder = listed(folder)
        self.report, self.fast, self.progress = report, fast, progress
        self.id = folder.name.removesuffix(".zarr")
        self.recon_matrix: Any = None

    def check(self) -> None:
        self.report.volumes += 1
        with _findings(self.report, self.id, ""):
            self._check_root()
        elements: dict[str, Element] = {}
        for group in self._groups(self.folder):
            path = relative_path(group, self.folder)
            with _findings(self.report, self.id, path):
                if (element := self._open(group, path)) is not None:
                    elements[path] = element
        for path, element in elements.items():
            self.report.elements += 1
            with _findings(self.report, self.id, path, "rule"):
                self._check_rules(element, elements)
            for name, array in element.arrays.items():
                self._check_array(element, _type_of(element), name, array)
            with _findings(self.report, self.id, path):
                size = element.stored_bytes
                self.report.bytes += size
                if self.progress is not None:
                    self.progress(self.id, size)

    def _check_root(self) -> None:
        node = read_node(self.folder, root=True)
        if node is None:
            raise DamageError(
                f"{self.folder}/zarr.json: expected the metadata of a volume, found no file: readers do not see "
                f"its elements. {VOLUME_REMEDY}",
                "missing",
            )
        if node.mri is None or not node.sealed:
            message = f"{self.folder}/zarr.json: expected sealed attributes 'mri', found none. {VOLUME_REMEDY}"
            raise DamageError(message, "metadata")
        check_version(node.mri.get("schema_version"), self.folder)
        validate("volume", node.mri, self.folder)
        if node.mri["volume_id"] != self.id:
            raise DamageError(
                f"{self.folder}: its attributes name another volume, {node.mri['volume_id']!r}.", "metadata"
            )
        for path in lost_nodes(self.folder):
            message = f"{self.folder / path}/zarr.json: expected metadata, found no file. {REMEDY}"
            self.report.problems.append(Problem(self.id, path, "missing", message))
        if not is_current(self.folder, node):
            self.report.stale.append(self.folder)
        self.recon_matrix = (node.mri.get("header") or {}).get("recon_matrix")

    def _groups(self, parent: AnyPath) -> Iterator[AnyPath]:
        """Yield the elements below a group; note orphans, and groups whose metadata are damaged."""
        for folder in sorted((child for child in parent.iterdir() if child.is_dir()), key=lambda child: child.name):
            path = relative_path(folder, self.folder)
            if not is_committed(folder):
                if holds_elements(folder):
                    message = (
                        f"{folder}/zarr.json: expected a group, found no file: plain zarr readers miss what is below."
                    )
                    self.report.problems.append(Problem(self.id, path, "missing", message))
                    yield from self._groups(folder)
                else:
                    self.report.orphans.append(folder)
            elif has_attributes(folder) or any(is_committed(folder / name) for name in (DATA, "slice")):
                yield folder
            else:
                with _findings(self.report, self.id, path):
                    _check_plain_group(folder)
                yield from self._groups(folder)

    def _open(self, group: AnyPath, path: str) -> Element | None:
        """Open an element; None for one of a type that this release does not know."""
        node = read_node(group)
        if node is None or node.mri is None:
            raise DamageError(f"{group}/zarr.json: expected attributes 'mri'. {REMEDY}", "metadata")
        if not isinstance(node.mri.get("type"), str):
            raise DamageError(f"{group}/zarr.json: expected an element type in its attributes. {REMEDY}", "metadata")
        if not is_known(node.mri):
            self.report.unknown[node.mri["type"]] = self.report.unknown.get(node.mri["type"], 0) + 1
            return None
        element = Element(group, path, self.id, node)
        if not node.sealed:
            raise DamageError(f"{group}/zarr.json: expected a seal of the metadata, found none. {REMEDY}", "metadata")
        validate("element", element.attributes, group)
        _ = element.arrays  # raises when their metadata cannot be read
        return element

    def _check_rules(self, element: Element, siblings: dict[str, Element]) -> None:
        """Check names, arrays, affine and what must hold between elements."""
        kind, where = _type_of(element), str(element.folder)
        expected = "/".join((kind.name, element.attributes["name"])) if kind.names else kind.name
        if expected != element.path:
            raise DamageError(f"{where}: its attributes name another element, {expected!r}.", "metadata")
        absent = {name for name, spec in kind.arrays.items() if not spec.optional} - element.arrays.keys()
        if absent:
            raise DamageError(f"{element.folder}: expected arrays {', '.join(sorted(absent))}, found none.", "missing")
        for name, spec in kind.arrays.items():
            if name in element.arrays:
                array = element.arrays[name]
                spec.check(array.shape, array.dtype, array.dims, f"{where}: {name}")
        if element.affine is not None:
            check_affine(element.affine, where)
        if DATA in element.arrays:
            sizes = dict(zip(element.dims, element.shape, strict=True))
            others = {path: other for path, other in siblings.items() if path != element.path}
            check_siblings(element.path, sizes, element.affine, others, where, recon_matrix=self.recon_matrix)

    def _check_array(self, element: Element, kind: ElementType, name: str, array: StoredArray) -> None:
        """Check layout, files and chunks of an array, and its values."""
        spec = kind.arrays.get(name)
        with _findings(self.report, self.id, element.path):
            if spec is None:
                return  # an array of a later minor version
            _check_layout(spec, array)
            layout = array.layout
            assert layout is not None
            positions: dict[str, list[tuple[int, ...]]] = {}
            for position in np.ndindex(*array.shape[: layout.leading]):
                positions.setdefault(layout.locate(position)[0], []).append(position)
            for path, chunks in positions.items():
                with _findings(self.report, self.id, element.path):
                    self._check_file(element, kind, array, path, chunks)

    def _check_file(
        self, element: Element, kind: ElementType, array: StoredArray, path: str, positions: list[tuple[int, ...]]
    ) -> None:
        """Check one file of an array: its index and, unless fast, every chunk."""
        layout, full = array.layout, array.folder / path
        assert layout is not None
        if not full.is_file():
            raise DamageError(f"{full}: expected data, found no file. {REMEDY}", "missing")
        parameters = (layout.codec, layout.chunks_per_shard, layout.chunk, array.dtype)
        if isinstance(full, StorePath):
            # What is stored is to be verified, not what is in a cache.
            file: ChunkFile = RemoteChunkFile(full.uncached(), *parameters)
        else:
            file = ChunkFile(full, *parameters, mapped=False)
        numbers = {layout.locate(position)[1] for position in positions}
        with _findings(self.report, self.id, element.path):
            file.check_layout(numbers)
        # Nothing states the length of a compressed chunk without an index: it is small, and read in any case.
        skip = self.fast and not (layout.chunks_per_shard is None and layout.codec == "zstd")
        for number in sorted(numbers) if not skip else ():
            with _findings(self.report, self.id, element.path, "rule"):
                if layout.codec == "zstd" and not states_size(file.encoded(number)):
                    raise bad_checksum(f"{full}: chunk {number}")
                _check_values(file.chunk(number), kind, element, f"{full}: chunk {number}")


def _type_of(element: Element) -> ElementType:
    kind = known_type(element.type)
    assert kind is not None  # else the element would not have opened
    return kind


def _check_plain_group(folder: AnyPath) -> None:
    """Check the metadata of a group such as ``recon``, which have no seal: nothing may be in them."""
    node = read_node(folder)
    content = dict(node.content) if node is not None else {}
    if content.keys() - {"zarr_format", "node_type", "attributes", "consolidated_metadata"} or not isinstance(
        content.get("attributes", {}), dict
    ):
        raise DamageError(f"{folder}/zarr.json: expected the metadata of a plain group, got {content}.", "metadata")


def _check_layout(spec: ArrayType, array: StoredArray) -> None:
    """Compare chunks, codecs and fill value with what this type is written with."""
    expected = array_metadata(spec, array.shape, array.dtype, array.dims)
    for key, value in expected.items():
        found = array.metadata.get(key)
        if key != "attributes" and found != value:
            raise DamageError(f"{array.folder}/zarr.json: {key}: expected {value}, got {found}.", "metadata")


def _check_values(block: np.ndarray, kind: ElementType, element: Element, where: str) -> None:
    if kind.finite and block.dtype.kind in "fc" and not np.isfinite(block).all():
        raise NonFiniteError(f"{where}: expected finite values, got NaN or infinity.")
    if kind.labelled:
        check_labels_declared(block, element.attributes["labels"], where)
    if kind.maximum is not None and int(block.max()) > kind.maximum:
        raise SchemaError(f"{where}: expected values up to {kind.maximum}, got {int(block.max())}.")
