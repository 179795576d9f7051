"""Work that writes one result per volume: its name, whether it is there already, its affine, what it loads."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from mri_io.errors import ConfigError, SchemaError
from mri_io.schema import Provenance
from mri_io.schema.elements import element_type
from mri_io.store import Volume

__all__ = ["LoadsOnce", "already_there", "known_affine", "result_path"]


class LoadsOnce(ABC):
    """Base of per-volume work that loads a network: once in each process, and never sent from one to another."""

    @abstractmethod
    def load(self) -> Any:
        """Load what the work needs."""

    @property
    def loaded(self) -> Any:
        """What `load` returned, the first time in this process."""
        if "_loaded" not in self.__dict__:
            self._loaded = self.load()
        return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what each process loads for itself."""
        return {key: value for key, value in self.__dict__.items() if key != "_loaded"}


def result_path(kind: str, name: str) -> str:
    """Return the path of a result, ``<kind>/<name>``.

    Raises
    ------
    ConfigError
        When it cannot be one: to be known before anything is computed.
    """
    try:
        element_type(f"{kind}/{name}")
    except SchemaError as error:
        raise ConfigError(f"--name: {error}") from None
    return f"{kind}/{name}"


def already_there(volume: Volume, path: str, made: Provenance, *, replace: bool) -> bool:
    """Whether an element exists and came from the same computation.

    Raises
    ------
    ConfigError
        When it exists, came from another computation, and `replace` is false.
    """
    if replace or path not in volume:
        return False
    if volume.is_current(path, made):
        return True
    raise ConfigError(
        f"{volume.path}: {path} exists and was made in another way or from other data. "
        "Choose another --name, or --replace it; of a step --set name=..., or --set replace=true where it has that."
    )


def known_affine(volume: Volume, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the affine of any image, reconstruction or label map of the volume on a grid, None when unknown."""
    for element in volume.elements().values():
        if element.affine is not None and element.shape == shape:
            return element.affine
    return None
