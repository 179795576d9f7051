"""A map-style data set of slices over a cohort; opens files lazily, so it is safe in loader processes."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from mri_io.errors import ElementNotFoundError, ShapeError, expected_got
from mri_io.schema.elements import DATA
from mri_io.store.cohort import Cohort, open_cohort
from mri_io.store.element import Element, mask_array
from mri_io.store.embeddings import read_embedding
from mri_io.store.remote.paths import AnyPath

__all__ = ["SliceDataset", "as_tensor", "collate_slices"]

Transform = Callable[[dict[str, Any], np.random.Generator], Any]


class SliceDataset(Dataset[Any]):
    """Slices of chosen elements as dictionaries of numpy arrays.

    A sample has one entry per element path, without the slice dimension (masks as `mask_array` gives them, embeddings
    as `read_embedding` does), and ``volume_id``, ``subject_id`` and ``slice``. Volumes may differ in matrix size and
    number of coils. Elements are opened on first use in each process, so that workers started by any method are safe.

    Parameters
    ----------
    cohort
        The cohort or its path.
    elements
        Paths such as ``["kspace", "sens/espirit", "recon/reference"]``.
    split, part
        The part of a split; `part` None takes all volumes.
    volumes
        Volume ids instead of a part.
    slices
        Slice numbers (a range, say), or a function ``(volume_id, slice, slices) -> bool`` that chooses them.
    transform
        ``transform(sample, rng)``; its random numbers are a function of `seed`, the index and the draw.
    seed
        Of the transforms.
    writable
        Whether the arrays of a sample may be written to. Without, uncompressed ones are windows of the file: for
        transforms that make new arrays, or none, it saves copying every slice.

    Raises
    ------
    ElementNotFoundError
        When a volume lacks an element, naming all such volumes, or nothing is chosen.
    ShapeError
        When the elements of a volume have different numbers of slices, or some count partitions ``kz`` of k-space and
        others slices of images, which a Fourier transform parts.
    """

    def __init__(
        self,
        cohort: str | AnyPath | Cohort,
        elements: Sequence[str],
        *,
        split: str = "default",
        part: str | None = "train",
        volumes: Sequence[str] | None = None,
        slices: Callable[[str, int, int], bool] | Sequence[int] | None = None,
        transform: Transform | None = None,
        seed: int = 0,
        writable: bool = True,
    ) -> None:
        opened = cohort if isinstance(cohort, Cohort) else open_cohort(cohort)
        self.path: AnyPath = opened.path.absolute()
        self.elements = tuple(elements)
        self.transform, self.seed, self.writable = transform, seed, writable
        chosen = [opened[v] for v in volumes] if volumes is not None else opened.volumes(split, part)
        missing = [f"{v.id} ({', '.join(absent)})" for v in chosen if (absent := [e for e in elements if e not in v])]
        if missing:
            raise ElementNotFoundError(
                f"{self.path}: {len(missing)} of {len(chosen)} volumes lack elements: {'; '.join(missing[:5])}"
                f"{'; ...' if len(missing) > 5 else ''}. Prepare them first or choose other volumes."
            )
        self.metadata: list[dict[str, Any]] = []
        self._items: list[tuple[int, int]] = []
        for number, volume in enumerate(chosen):
            parts = {path: volume[path] for path in elements}
            for path, element in parts.items():
                if DATA not in element.arrays:
                    raise ShapeError(
                        f"{volume.path}: {path}: has several arrays; a sample takes elements of one array."
                    )
            count = _slice_count(parts, volume.path)
            shapes = {path: _sample_shape(e) for path, e in parts.items()}
            self.metadata.append({"volume_id": volume.id, "subject_id": volume.subject_id, "shapes": shapes})
            self._items += [(number, s) for s in range(count) if _is_chosen(slices, volume.id, s, count)]
        if not self._items:
            raise ElementNotFoundError(f"{self.path}: no slices chosen (split {split!r}, part {part!r}).")
        self._open: dict[tuple[int, str], Element] = {}
        self._small: dict[tuple[int, str], np.ndarray] = {}

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self._items)

    def __getstate__(self) -> dict[str, Any]:
        """Leave open elements behind: every process opens its own."""
        return {**self.__dict__, "_open": {}, "_small": {}}

    def volume_of(self, index: int) -> str:
        """Return the volume id of a sample."""
        return str(self.metadata[self._items[index][0]]["volume_id"])

    def shape_groups(self) -> list[list[int]]:
        """Return lists of sample indices of equal shapes, for `StepSampler`."""
        groups: dict[str, list[int]] = {}
        for index, (number, _) in enumerate(self._items):
            groups.setdefault(repr(sorted(self.metadata[number]["shapes"].items())), []).append(index)
        return list(groups.values())

    def _element(self, number: int, path: str) -> Element:
        key = (number, path)
        if key not in self._open:
            folder = self.path / "volumes" / f"{self.metadata[number]['volume_id']}.zarr" / path
            self._open[key] = Element(folder, path, self.metadata[number]["volume_id"])
        return self._open[key]

    def _read(self, number: int, path: str, position: int) -> np.ndarray:
        element = self._element(number, path)
        axis = _slice_axis(element)
        index: Any = ... if axis is None else (*[slice(None)] * axis, position)
        if element.type == "mask":
            key = (number, path)
            if key not in self._small:
                self._small[key] = mask_array(element)
            return self._small[key][index].copy()
        if "scales" in element.arrays:
            return read_embedding(element, index)
        window = element.view(index)
        # PyTorch copies on as many threads as it may use here, one in loading processes; numpy on one.
        return as_tensor(window).clone().numpy() if self.writable else window

    def __getitem__(self, key: int | tuple[int, int]) -> Any:
        """Return a sample; with ``(index, draw)`` the transform's random numbers are those of that draw."""
        index, draw = key if isinstance(key, tuple) else (key, 0)
        number, position = self._items[index]  # raises IndexError at the end, which ends an iteration
        sample: dict[str, Any] = {path: self._read(number, path, position) for path in self.elements}
        sample["volume_id"] = self.metadata[number]["volume_id"]
        sample["subject_id"] = self.metadata[number]["subject_id"]
        sample["slice"] = position
        if self.transform is None:
            return sample
        return self.transform(sample, np.random.default_rng([self.seed, index % len(self), draw]))


def _slice_axis(element: Element) -> int | None:
    """Return the dimension that counts slices, None for elements of a whole volume."""
    return next((axis for axis, name in enumerate(element.dims) if name in ("slice", "z", "kz")), None)


def _slice_count(parts: Mapping[str, Element], where: AnyPath) -> int:
    """Return the number of slices of a volume's elements, none where all are of the whole volume."""
    counted = {path: (e.dims[axis], e.shape[axis]) for path, e in parts.items() if (axis := _slice_axis(e)) is not None}
    names = {path: name for path, (name, _) in counted.items()}
    if "kz" in names.values() and set(names.values()) != {"kz"}:
        fix = "Partition kz of k-space is no slice of an image: leave out the elements of one kind."
        raise ShapeError(
            expected_got(
                "dimension of slices", expected="kz of all elements or of none", got=names, where=where, fix=fix
            )
        )
    lengths = {path: length for path, (_, length) in counted.items()}
    if len(set(lengths.values())) > 1:
        raise ShapeError(expected_got("slices", expected="one number for all elements", got=lengths, where=where))
    return next(iter(lengths.values()), 0)


def _sample_shape(element: Element) -> tuple[int, ...]:
    axis = _slice_axis(element)
    return element.shape if axis is None else element.shape[:axis] + element.shape[axis + 1 :]


def _is_chosen(
    slices: Callable[[str, int, int], bool] | Sequence[int] | None, volume: str, position: int, count: int
) -> bool:
    if slices is None:
        return True
    return bool(slices(volume, position, count)) if callable(slices) else position in slices


def collate_slices(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join samples into a batch: arrays of one shape are stacked to tensors, anything else becomes a list.

    In a loading process they are stacked in the memory that it shares with the training process.
    """
    batch: dict[str, Any] = {}
    for key in samples[0]:
        values = [sample[key] for sample in samples]
        if all(isinstance(value, np.ndarray | torch.Tensor) for value in values):
            same = all(value.shape == values[0].shape for value in values)
            tensors = [as_tensor(value) for value in values]
            batch[key] = default_collate(tensors) if same else [tensor.clone() for tensor in tensors]
        elif all(isinstance(value, int | float) for value in values):
            batch[key] = torch.tensor(values)
        else:
            batch[key] = values
    return batch


def as_tensor(value: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Return a tensor over an array without a copy; one over a read-only array must not be written to.

    PyTorch warns of those; samples read with ``writable=False`` are.
    """
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(value)
    return torch.as_tensor(value)
