"""Compare elements of the volumes of a cohort, volume by volume: what an evaluation gathers into a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mri_io.errors import ElementNotFoundError, StoreError
from mri_io.prep.cohort import prepare_cohort
from mri_io.prep.runner import NOTHING_KEPT
from mri_io.store.cohort import open_cohort
from mri_io.store.remote.paths import AnyPath, map_concurrently
from mri_io.store.volume import Volume

__all__ = ["Comparison", "Measured"]

_T = TypeVar("_T")
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Measured:
    """What `mri_io.store.Cohort.write_evaluation` takes of the volumes, in their order whatever the scheduler.

    Attributes
    ----------
    rows
        Of all volumes that could be measured.
    inputs
        ``{"path", "commit"}`` of the elements that were compared.
    missing
        ``{"volume_id", "error"}`` of the volumes that failed.
    """

    rows: list[dict[str, Any]]
    inputs: list[dict[str, str]]
    missing: list[dict[str, str]]


class _Measure:
    """Measure one volume; runs in a worker."""

    def __init__(self, function: Callable[[Volume], Rows], elements: Sequence[str]) -> None:
        self.function, self.elements = function, tuple(elements)

    def __call__(self, volume: Volume) -> dict[str, Any]:
        inputs = [{"path": f"{volume.id}/{path}", "commit": volume[path].commit} for path in self.elements]
        return {"status": "done", "inputs": inputs, "rows": [dict(row) for row in self.function(volume)]}


class Comparison:
    """The volumes of a cohort that are to be compared.

    Parameters
    ----------
    cohort
        The cohort's folder or URL.
    elements
        Paths of the elements that every volume must have.
    split, part
        Volumes to take; `part` None takes all.

    Raises
    ------
    ElementNotFoundError
        When there is no volume, or one lacks an element; nothing is left out silently.
    """

    def __init__(self, cohort: str | AnyPath, elements: Sequence[str], split: str | None, part: str | None) -> None:
        self.cohort, self.elements = open_cohort(cohort), tuple(elements)
        damaged: list[AnyPath] = []

        def keep(volume_id: str, _: Exception) -> None:
            damaged.append(self.cohort.volumes_path / f"{volume_id}.zarr")

        self._volumes = {volume.path: volume for volume in self.cohort.volumes(split, part, on_damage=keep)}
        self._paths = [*self._volumes, *damaged]
        absent = self.check(lambda v: [f"{v.id}: {path}" for path in self.elements if path not in v])
        missing = [text for texts in absent for text in texts]
        if missing or not self._paths:
            what = f"missing elements: {'; '.join(missing[:6])}" if missing else "no volumes. --part all takes all"
            raise ElementNotFoundError(f"{self.cohort.path} (split {split!r}, part {part!r}): {what}.")

    def check(self, function: Callable[[Volume], _T]) -> list[_T]:
        """Return what a function finds in the metadata of each volume, before any is measured.

        Volumes whose metadata are damaged are left out: they fail on their own in `measure`.
        """

        def found(path: AnyPath) -> list[_T]:
            try:
                return [function(self._volumes[path])]
            except ElementNotFoundError:
                raise
            except StoreError:
                return []

        return [result for results in map_concurrently(found, self._volumes) for result in results]

    def measure(
        self,
        function: Callable[[Volume], Rows],
        *,
        description: str,
        memory: Callable[[Volume], int],
        scheduler: str = "sync",
    ) -> Measured:
        """Measure the volumes; one that fails does not keep the others from being measured.

        Parameters
        ----------
        function
            Returns the rows of a volume. Picklable for the dask schedulers. What it returns must not depend on the
            number of threads: workers have one each.
        description, memory, scheduler
            See `mri_io.prep.prepare_cohort`.

        Raises
        ------
        StoreError
            When all volumes fail.
        """
        summary = prepare_cohort(
            self.cohort,
            _Measure(function, self.elements),
            volumes=[path.name.removesuffix(".zarr") for path in self._paths],
            scheduler=scheduler,
            description=description,
            memory=memory,
            again=NOTHING_KEPT,
        )
        if not summary.results:
            raise StoreError(f"{self.cohort.path}: no volume could be measured, so there is no table.\n{summary}")
        return Measured(
            [row for result in summary.results for row in result["rows"]],
            [item for result in summary.results for item in result["inputs"]],
            [{"volume_id": failure.label, "error": failure.error} for failure in summary.failures],
        )

    def write(
        self,
        name: str,
        measured: Measured,
        *,
        task: str,
        metrics: Mapping[str, Mapping[str, str]],
        config: Mapping[str, Any],
        figure: bytes | None = None,
    ) -> dict[str, Any]:
        """Keep what was measured with the cohort, and return the stored evaluation.

        Parameters are those of `mri_io.store.Cohort.write_evaluation`.
        """
        self.cohort.write_evaluation(
            name,
            task=task,
            rows=measured.rows,
            metrics=metrics,
            config=config,
            inputs=measured.inputs,
            missing=measured.missing,
            figure=figure,
        )
        return self.cohort.evaluations()[name]
