"""One volume: an independent zarr root that holds the elements of one acquisition."""

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_io.errors import (
    CorruptElementError,
    ElementExistsError,
    ElementNotFoundError,
    NonFiniteError,
    ShapeError,
    StoreError,
    VersionError,
    expected_got,
)
from mri_io.schema.attributes import Header, Provenance, Source
from mri_io.schema.elements import ELEMENT_TYPES, SCHEMA_VERSION, ElementType, element_type
from mri_io.schema.validation import validate
from mri_io.store.arrays import ArrayWriter
from mri_io.store.checks import check_affine, check_labels_declared, check_siblings, normalise_labels
from mri_io.store.commit import NODE, publish, staging, storage_errors, write_group
from mri_io.store.element import DATA, Element, read_attributes

if TYPE_CHECKING:
    import xarray

__all__ = ["ElementWriter", "Volume", "check_version", "open_volume"]

VOLUME_ID = re.compile(r"sub-[A-Za-z0-9]+(_ses-[A-Za-z0-9]+)?_acq-[A-Za-z0-9]+_run-[0-9]+")


def check_version(found: object, where: Path) -> None:
    """Raise VersionError when a store's version is newer in its major number, or no version at all."""
    text = str(found)
    if not re.fullmatch(r"\d+\.\d+", text):
        raise CorruptElementError(
            expected_got("schema_version", expected="major.minor", got=repr(found), where=where)
        )
    if int(text.split(".")[0]) > int(SCHEMA_VERSION.split(".")[0]):
        raise VersionError(
            f"{where}: written with store version {text}, this release of mri-io reads up to "
            f"{SCHEMA_VERSION.split('.')[0]}.x. Upgrade it: pip install --upgrade mri-io"
        )


def open_volume(path: str | Path) -> "Volume":
    """Open a committed volume, ``<cohort>/volumes/<id>.zarr``.

    Raises
    ------
    ElementNotFoundError
        When there is no committed volume.
    VersionError
        When it was written by a newer major version.
    """
    folder = Path(path)
    attributes = read_attributes(folder)
    if attributes is None:
        raise ElementNotFoundError(f"{folder}: there is no committed volume (no zarr.json of a volume).")
    check_version(attributes.get("schema_version"), folder)
    return Volume(folder, attributes)


class ElementWriter:
    """Append slices to an element that is being written; the element becomes visible when it is complete."""

    def __init__(self, writer: ArrayWriter, kind: ElementType, labels: Mapping[str, Any], where: str) -> None:
        self._writer, self._kind, self._labels, self._where = writer, kind, labels, where

    def append(self, block: np.ndarray) -> None:
        """Append one or more slices in order, shape ``(n, *shape[1:])``.

        Raises
        ------
        ShapeError
            When the block's shape does not fit or there are too many slices.
        NonFiniteError
            When the block holds NaN or infinity.
        SchemaError
            When a label map holds an undeclared id.
        """
        block = np.asarray(block)
        shape, first = self._writer.shape, self._writer.written
        if block.shape[1:] != shape[1:] or first + len(block) > shape[0]:
            raise ShapeError(
                expected_got(
                    "block",
                    expected=f"at most {shape[0] - first} slices of {shape[1:]}",
                    got=block.shape,
                    where=self._where,
                )
            )
        if self._kind.finite and block.dtype.kind in "fc" and not np.isfinite(block).all():
            bad = np.argwhere(~np.isfinite(block))
            position = (first + int(bad[0][0]), *(int(n) for n in bad[0][1:]))
            raise NonFiniteError(
                expected_got(
                    "values",
                    expected="finite numbers",
                    got=f"{len(bad)} NaN or infinite, the first at index {position}",
                    where=self._where,
                    fix="Repair the source or leave it out.",
                )
            )
        if self._kind.labelled:
            check_labels_declared(block, self._labels, self._where)
        self._writer.append(block.astype(self._writer.dtype, copy=False))


class Volume:
    """A volume of a cohort; `elements` and indexing give what is committed.

    Parameters
    ----------
    folder
        The zarr root.
    attributes
        Its ``mri`` attributes.
    """

    def __init__(self, folder: Path, attributes: Mapping[str, Any], *, staged: Path | None = None) -> None:
        self.path = folder
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
        stored = self.attributes.get("header", {})
        return Header.model_validate({k: v for k, v in stored.items() if k in Header.model_fields})

    @property
    def source(self) -> Source | None:
        """The file that the volume was converted from."""
        stored = self.attributes.get("source")
        return None if stored is None else Source.model_validate(stored)

    def elements(self) -> dict[str, Element]:
        """Return the committed elements of known types by path, sorted."""
        found: dict[str, Element] = {}
        for folder, path in _committed_groups(self.path):
            attributes = read_attributes(folder)
            if attributes and attributes.get("type") in ELEMENT_TYPES:
                found[path] = Element(folder, path, self.id, attributes)
        return dict(sorted(found.items()))

    def __contains__(self, path: str) -> bool:
        """Whether an element is committed."""
        return (self.path / path / "zarr.json").is_file() and read_attributes(self.path / path) is not None

    def __getitem__(self, path: str) -> Element:
        """Return a committed element; ElementNotFoundError lists those that exist."""
        folder = self.path / path
        attributes = read_attributes(folder)
        if attributes is None:
            names = ", ".join(self.elements()) or "none"
            raise ElementNotFoundError(
                f"{self.path}: there is no element {path!r}. Elements of this volume: {names}."
            )
        return Element(folder, path, self.id, attributes)

    def is_current(self, path: str, provenance: Provenance) -> bool:
        """Whether an element exists and came from the same method, configuration and inputs (rule R4)."""
        return path in self and provenance.same_computation(self[path].provenance)

    def write(
        self,
        path: str,
        data: np.ndarray,
        *,
        provenance: Provenance,
        dims: Sequence[str] | None = None,
        affine: Any = None,
        labels: Mapping[int, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
        replace: bool = False,
    ) -> Element:
        """Write and commit an element from an array.

        Parameters
        ----------
        path
            ``"kspace"`` or ``"<type>/<name>"``.
        data
            The array; dims and dtype must be those of the type.
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
            Replace a committed element.

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
        array = np.asarray(data)
        options: dict[str, Any] = {"dims": dims, "affine": affine, "labels": labels, "attributes": attributes}
        with self.writer(
            path, shape=array.shape, dtype=array.dtype, provenance=provenance, replace=replace, **options
        ) as writer:
            writer.append(array)
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
        """Write an element block by block; it is committed when the with-block ends without error.

        Parameters and errors are those of `write`. Memory stays within one shard, for uncompressed types
        within one block.
        """
        where = f"{self.path}: {path}"
        kind = element_type(path)
        size = tuple(int(n) for n in shape)
        names = kind.check_array(size, np.dtype(dtype), tuple(dims) if dims is not None else None, where)
        stored_labels = normalise_labels(labels, where) if kind.labelled else {}
        content: dict[str, Any] = {
            **(attributes or {}),
            "type": kind.name,
            "type_version": kind.version,
            "name": path.partition("/")[2] or path,
            "provenance": provenance.to_attributes(),
            "commit": str(uuid.uuid4()),
        }
        if kind.image_like and affine is not None:
            content["affine"] = check_affine(affine, where)
        if kind.labelled:
            content["labels"] = stored_labels
        if kind.name == "kspace":
            content = {"centred": True, "norm": "ortho", **content}
        validate("element", content, where)
        if path in self and not replace:
            raise ElementExistsError(
                f"{where}: is committed already, and committed data are immutable. "
                "Choose another name or ask for replacement."
            )
        siblings = {name: element for name, element in self.elements().items() if name != path}
        check_siblings(kind, size, names, affine, siblings, where)
        with staging(self._staged or self.path.parent) as folder:
            node = folder / NODE
            with storage_errors(self.path / path):
                writer = ArrayWriter(node / DATA, kind, size, np.dtype(dtype), names)
                try:
                    yield ElementWriter(writer, kind, stored_labels, where)
                    writer.close()
                except BaseException:
                    writer.abort()
                    raise
                if writer.written != size[0]:
                    raise ShapeError(expected_got("slices", expected=size[0], got=writer.written, where=where))
                write_group(node, {"mri": content})
                self._make_parents(path)
            publish(folder, self.path / path, replace=replace)

    def _make_parents(self, path: str) -> None:
        """Make the intermediate groups, e.g. ``recon`` of ``recon/cg``, so that any zarr reader walks down."""
        for depth in range(1, len(path.split("/"))):
            group = self.path.joinpath(*path.split("/")[:depth])
            if not (group / "zarr.json").exists():
                write_group(group, {})

    def remove(self, path: str) -> None:
        """Remove a committed element: it vanishes at once, its files thereafter."""
        element = self[path]
        with staging(self.path.parent) as folder, storage_errors(element.folder):
            element.folder.rename(folder / "removed")

    def to_datatree(self) -> "xarray.DataTree":
        """Return a lazy `xarray.DataTree` of all elements."""
        from mri_io.store.views import volume_view

        return volume_view(self)

    def __repr__(self) -> str:
        """Return identifier and element paths."""
        return f"<Volume {self.id}: {', '.join(self.elements())}>"


def _committed_groups(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield folder and path of every committed element below a volume."""
    pending = [child for child in root.iterdir() if not child.name.startswith(".")]
    while pending:
        folder = pending.pop()
        if not (folder / "zarr.json").is_file():
            continue
        attributes = read_attributes(folder)
        if attributes is not None:
            yield folder, folder.relative_to(root).as_posix()
            continue
        try:
            pending.extend(child for child in folder.iterdir() if child.is_dir())
        except OSError as error:
            raise StoreError(f"{folder}: cannot be listed: {error}.") from error
