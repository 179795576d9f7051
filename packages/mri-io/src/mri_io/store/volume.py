"""One volume: an independent zarr root that holds the elements of one acquisition."""

import logging
import re
import uuid
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_io.errors import (
    ConfigError,
    CorruptElementError,
    ElementExistsError,
    ElementNotFoundError,
    SchemaError,
    StoreError,
    VersionError,
    expected_got,
)
from mri_io.schema.attributes import Header, Provenance, Source
from mri_io.schema.elements import DATA, ElementType, element_type, is_path
from mri_io.schema.readers import check_version, is_known
from mri_io.schema.validation import validate
from mri_io.store.checks import check_affine, check_anonymous, check_attributes, check_siblings, normalise_labels
from mri_io.store.commit import NODE, flush_node, is_committed, publish, publish_group, storage_errors
from mri_io.store.element import Element
from mri_io.store.metadata import SEAL, Node, has_attributes, read_node, write_group
from mri_io.store.remote import commit as remote_commit
from mri_io.store.remote.paths import AnyPath, StorePath, listed, relative_path, store_path
from mri_io.store.roots import changing_root, check_present
from mri_io.store.staging import staging
from mri_io.store.writing import ArrayPlan, ElementWriter, plan_arrays

if TYPE_CHECKING:
    import xarray

__all__ = ["Volume", "make_volume_id", "open_volume"]

_log = logging.getLogger(__name__)
_RESERVED = ("type", "type_version", "name", "provenance", "commit", "affine", "labels", SEAL)


def make_volume_id(subject: str, *, session: str | None = None, acquisition: str, run: int = 1) -> str:
    """Return the id ``sub-X[_ses-Y]_acq-Z_run-N``; characters other than letters and digits are left out.

    Examples
    --------
    >>> make_volume_id("sub-01", acquisition="t1 axial")
    'sub-01_acq-t1axial_run-1'
    """

    def plain(text: str) -> str:
        found = re.sub(r"[^A-Za-z0-9]", "", text)
        if not found:
            raise SchemaError(expected_got("part of a volume id", expected="letters or digits", got=repr(text)))
        return found

    middle = f"_ses-{plain(session)}" if session else ""
    return f"sub-{plain(subject.removeprefix('sub-'))}{middle}_acq-{plain(acquisition)}_run-{run}"


def open_volume(path: str | AnyPath) -> "Volume":
    """Open a committed volume, ``<cohort>/volumes/<id>.zarr``, also by URL.

    Raises
    ------
    ElementNotFoundError
        When there is no committed volume.
    VersionError
        When it was written by a newer major version.
    CorruptElementError
        When its metadata are damaged.
    """
    folder = store_path(path)
    node = read_node(folder, root=True)
    if node is None or node.mri is None:
        raise ElementNotFoundError(f"{folder}: there is no committed volume (no zarr.json of a volume).")
    check_version(node.mri.get("schema_version"), folder)
    return Volume(folder, node.mri)


class Volume:
    """A volume of a cohort; `elements` and indexing give what is committed.

    Parameters
    ----------
    folder
        The zarr root.
    attributes
        Its ``mri`` attributes.
    staged
        The staging directory, while the volume itself is being made.
    """

    def __init__(self, folder: AnyPath, attributes: Mapping[str, Any], *, staged: Path | None = None) -> None:
        self.path: AnyPath = folder
        self.attributes: dict[str, Any] = dict(attributes)
        self._staged = staged

    @property
    def id(self) -> str:
        """Identifier ``sub-X[_ses-Y]_acq-Z_run-N``."""
        return str(self.attributes.get("volume_id", self.path.name.removesuffix(".zarr")))

    @property
    def subject_id(self) -> str:
        """Pseudonym of the subject."""
        return str(self.attributes.get("subject_id", ""))

    @property
    def header(self) -> Header:
        """Acquisition parameters, SI units; attributes of later minor versions are left out."""
        stored = self.attributes.get("header") or {}
        return Header.model_validate({k: v for k, v in stored.items() if k in Header.model_fields})

    @property
    def source(self) -> Source | None:
        """The file that the volume was converted from."""
        stored = self.attributes.get("source")
        if stored is None:
            return None
        return Source.model_validate({k: v for k, v in stored.items() if k in Source.model_fields})

    def elements(self, *, strict: bool = True) -> dict[str, Element]:
        """Return the committed elements by path, sorted.

        Types and versions that this release does not know are left out (rule R3). Without `strict` so are elements
        whose metadata are damaged.

        Raises
        ------
        CorruptElementError
            When the metadata of an element are damaged.
        """
        found = {path: Element(folder, path, self.id, node) for folder, path, node in self._known(strict=strict)}
        return dict(sorted(found.items()))

    def _known(self, *, strict: bool = True) -> Iterator[tuple[AnyPath, str, Node]]:
        root = listed(self.path)
        pending = [root]
        while pending:
            parent = pending.pop()
            try:
                children = [child for child in parent.iterdir() if not child.name.startswith(".")]
            except (FileNotFoundError, NotADirectoryError):
                children = []  # removed meanwhile
            for folder in children:
                try:
                    node = read_node(folder) if folder.is_dir() else None
                    readable = node is not None and node.mri is not None and _readable(node.mri, node, folder)
                except CorruptElementError:
                    if strict:
                        raise
                    continue
                if node is not None and node.mri is None:
                    pending.append(folder)
                elif node is not None and readable:
                    yield folder, relative_path(folder, root), node

    def __contains__(self, path: object) -> bool:
        """Whether an element is committed."""
        return is_path(path) and has_attributes(self.path / str(path))

    def __getitem__(self, path: str) -> Element:
        """Return a committed element; ElementNotFoundError lists those that exist."""
        folder = self.path / path
        # Of an object store one question less.
        there = is_path(path) if isinstance(folder, StorePath) else path in self
        node = read_node(folder) if there else None
        if node is None or node.mri is None:
            names = ", ".join(self.elements()) or "none"
            raise ElementNotFoundError(f"{self.path}: there is no element {path!r}. Elements of this volume: {names}.")
        return Element(folder, path, self.id, node)

    def __iter__(self) -> Iterator[str]:
        """Yield the paths of the committed elements, sorted: a volume is a mapping of paths to elements."""
        return iter(self.elements())

    def keys(self) -> KeysView[str]:
        """Return the paths of the committed elements, sorted, as ``[]`` takes them."""
        return self.elements().keys()

    def items(self) -> ItemsView[str, Element]:
        """Return paths and committed elements, sorted by path."""
        return self.elements().items()

    def is_current(self, path: str, provenance: Provenance) -> bool:
        """Whether an element exists and came from the same method, configuration and inputs (rule R4)."""
        try:
            return provenance.same_computation(self[path].provenance)
        except (ElementNotFoundError, CorruptElementError):
            return False

    def write(
        self,
        path: str,
        data: np.ndarray | Mapping[str, np.ndarray],
        *,
        provenance: Provenance,
        dims: Sequence[str] | None = None,
        affine: Any = None,
        labels: Mapping[int, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
        replace: bool = False,
    ) -> Element:
        """Write and commit an element.

        Parameters
        ----------
        path
            ``"kspace"`` or ``"<type>/<name>"``.
        data
            The array, with dimensions and dtype of the type; several by name for types with several arrays.
        provenance
            How the data came about.
        dims
            Dimension names, where the type admits several.
        affine
            Voxel (x, y, slice) to RAS+ millimetres, (4, 4), for image-like types.
        labels
            For label maps: ``{1: "liver"}`` or ``{1: {"name": "liver", "code": "SCT 10200004"}}``.
        attributes
            Further attributes of the element, JSON values.
        replace
            Replace a committed element: readers find the old one until they find the new one.

        Returns
        -------
        Element

        Raises
        ------
        ElementExistsError
            When it is committed and `replace` is false.
        ShapeError, SchemaError, NonFiniteError
            When the data do not follow the specification or do not fit the volume.
        StoreError
            When the file system refuses, e.g. because it is full.
        """
        arrays = data if isinstance(data, Mapping) else {DATA: data}
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        sizes = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        with self._element(path, sizes, provenance, dims, affine, labels, attributes, replace) as writers:
            for name, array in arrays.items():
                writers[name].append(array)
        return self[path]

    @contextmanager
    def writer(
        self,
        path: str,
        *,
        shape: Sequence[int],
        dtype: Any,
        provenance: Provenance,
        dims: Sequence[str] | None = None,
        affine: Any = None,
        labels: Mapping[int, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
        replace: bool = False,
    ) -> Iterator[ElementWriter]:
        """Write an element of one array block by block; it is committed when the with-block ends without error.

        Parameters and errors are those of `write`. No more than one block is held in memory.
        """
        sizes = {DATA: (shape, dtype)}
        with self._element(path, sizes, provenance, dims, affine, labels, attributes, replace) as writers:
            yield writers[DATA]

    @contextmanager
    def _element(
        self,
        path: str,
        sizes: Mapping[str, tuple[Sequence[int], Any]],
        provenance: Provenance,
        dims: Sequence[str] | None,
        affine: Any,
        labels: Mapping[int, Any] | None,
        attributes: Mapping[str, Any] | None,
        replace: bool,
    ) -> Iterator[dict[str, ElementWriter]]:
        """Check all that can be checked before the data, stage them, and commit."""
        where, kind = f"{self.path}: {path}", element_type(path)
        plans = plan_arrays(kind, sizes, dims, where)
        content = _attributes(path, kind, provenance, affine, labels, attributes, where)
        self._check_place(path, replace=replace)
        self._check_fit(path, plans, content.get("affine"), where)
        parent = self._staged or self.path.parent
        with staging(parent) as folder:
            node = folder / NODE
            stored_labels = content.get("labels", {})
            with ExitStack() as open_files:
                writers = {}
                for name, plan in plans.items():
                    with storage_errors(self.path / path):
                        writers[name] = ElementWriter(node, kind, plan, stored_labels, where)
                    open_files.callback(writers[name].abort)
                yield writers
                for writer in writers.values():
                    writer.close()
            with storage_errors(self.path / path):
                write_group(node, content, tuple(plans))

            def check() -> None:
                check_present(self.path, self.attributes, path)
                # Others may have joined since it was looked at first.
                self._check_place(path, replace=replace)
                self._check_fit(path, plans, content.get("affine"), where)

            if isinstance(self.path, StorePath):
                remote_commit.publish_element(folder / NODE, self.path, path, replace=replace, check=check)
                return
            flush_node(folder, self.path / path)  # the longest step, before anyone has to wait for the lock
            with self._joining(self.path, folder, check, loses=replace), storage_errors(where):
                self._make_parents(path, folder)
                publish(folder, self.path / path, replace=replace)

    @contextmanager
    def _joining(self, root: Path, folder: Path, check: Callable[[], None], *, loses: bool) -> Iterator[None]:
        """Keep the volume as it is while an element joins it, after making sure that it is still the one it was."""
        if self._staged is not None:  # nobody else knows it
            yield
            return
        with storage_errors(root), changing_root(root, folder, loses=loses):
            check()
            yield

    def _check_place(self, path: str, *, replace: bool) -> None:
        parts = path.split("/")
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        for other in above:
            if has_attributes(self.path / other):
                raise SchemaError(f"{self.path}: {path}: {other!r} is an element and cannot hold others.")
        if is_committed(self.path / path) and not (replace and has_attributes(self.path / path)):
            raise ElementExistsError(
                f"{self.path}: {path}: is committed already, and committed data are immutable. "
                "Choose another name or ask for replacement."
            )

    def _check_fit(self, path: str, plans: Mapping[str, ArrayPlan], affine: Any, where: str) -> None:
        if DATA not in plans:
            return
        siblings = {name: Element(f, name, self.id, node) for f, name, node in self._known(strict=False)}
        siblings.pop(path, None)
        sizes = dict(zip(plans[DATA].dims, plans[DATA].shape, strict=True))
        check_siblings(path, sizes, affine, siblings, where, recon_matrix=self.header.recon_matrix)

    def _make_parents(self, path: str, staged: Path) -> None:
        """Make the groups above an element, e.g. ``recon`` of ``recon/cg``, so that any zarr reader walks down."""
        assert isinstance(self.path, Path)
        parts = path.split("/")
        for depth in range(1, len(parts)):
            publish_group(staged, self.path.joinpath(*parts[:depth]))

    def remove(self, path: str) -> None:
        """Remove a committed element, also a damaged one: it vanishes at once, its files thereafter."""
        target = self.path / path
        if path not in self:
            self[path]  # raises, with the list of elements
        if self._staged is not None:
            raise StoreError(f"{target}: the volume is being written; leave the element out instead of removing it.")
        if isinstance(self.path, StorePath):
            remote_commit.remove_element(self.path, path)
            return
        assert isinstance(target, Path)
        with (
            staging(self.path.parent) as folder,
            storage_errors(target),
            changing_root(self.path, folder, loses=True),
        ):
            target.rename(folder / "removed")

    def to_datatree(self) -> "xarray.DataTree":
        """Return a lazy `xarray.DataTree` of all elements."""
        from mri_io.store.views import volume_view

        return volume_view(self)

    def __repr__(self) -> str:
        """Return identifier and element paths."""
        return f"<Volume {self.id}: {', '.join(self.elements())}>"


def _attributes(
    path: str,
    kind: ElementType,
    provenance: Provenance,
    affine: Any,
    labels: Mapping[int, Any] | None,
    attributes: Mapping[str, Any] | None,
    where: str,
) -> dict[str, Any]:
    """Return the attributes that an element is stored with, validated against the schema."""
    further = check_attributes(attributes, _RESERVED, where)
    check_anonymous(provenance.config, f"{where}: provenance.config")
    lacking = [key for key in kind.required if key not in further]
    if lacking:
        raise SchemaError(expected_got("attributes", expected=lacking, got=tuple(further), where=where))
    content = {
        **kind.attributes,
        **further,
        "type": kind.name,
        "type_version": kind.version,
        "name": path.partition("/")[2] or path,
        "provenance": provenance.to_attributes(),
        "commit": str(uuid.uuid4()),
    }
    if affine is not None:
        if not kind.image_like:
            raise SchemaError(f"{where}: an element of type {kind.name!r} has no affine. Leave it out.")
        content["affine"] = check_affine(affine, where)
    if kind.labelled:
        content["labels"] = normalise_labels(labels, where)
    elif labels is not None:
        raise SchemaError(f"{where}: an element of type {kind.name!r} has no labels. Leave them out.")
    validate("element", content, where)
    return content


def _readable(mri: Mapping[str, Any], node: Node, folder: AnyPath) -> bool:
    try:
        if isinstance(mri.get("type"), str) and not is_known(mri):
            _warn_unknown(mri["type"])
            return False
        Element(folder, "", "", node)
    except ConfigError as error:  # a package that registers the type is broken
        _warn_broken(str(error))
        return False
    except VersionError as error:
        _log.warning("%s; the element is left out.", error)
        return False
    return True


@cache
def _warn_unknown(kind: str) -> None:
    """Say once in a process that elements of a type are left out."""
    _log.warning("elements of type %r are left out: neither this release nor an installed package knows them.", kind)


@cache
def _warn_broken(problem: str) -> None:
    """Say once in a process that elements are left out for want of a package that works."""
    _log.warning("%s Elements of its type are left out.", problem)
