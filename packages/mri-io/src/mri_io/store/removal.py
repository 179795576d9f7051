"""Remove volumes and elements, damaged ones too, and say what was computed from them."""

from collections.abc import Collection
from dataclasses import dataclass, field

from mri_io.errors import CorruptElementError, MriError
from mri_io.store.cohort import Cohort
from mri_io.store.element import Element

__all__ = ["Removal", "remove"]


@dataclass(frozen=True)
class Removal:
    """What was removed, and what was computed from it and is still there.

    Attributes
    ----------
    volume
        Id of the volume.
    elements
        Paths of the elements that were removed, as far as their metadata could be read; one that was named is among
        them in any case.
    dependents
        Paths of the volume's elements that were computed from them, directly or not.
    evaluations
        Names of evaluations that measured them.
    """

    volume: str
    elements: list[str]
    dependents: list[str] = field(default_factory=list)
    evaluations: list[str] = field(default_factory=list)


def remove(cohort: Cohort, volume_id: str, element: str | None = None) -> Removal:
    """Remove a volume, or one of its elements.

    What depends on it stays: its provenance still names what it was computed from, and the command that made it makes
    it again once there is another.

    Parameters
    ----------
    cohort
        Where the volume is.
    volume_id
        Its id.
    element
        Path of the element; without it the volume is removed.

    Raises
    ------
    ElementNotFoundError
        When there is no such volume or element.
    CorruptElementError
        When an element is named of a volume whose own metadata are damaged: only the volume can be removed.
    """
    if element is None:
        try:
            there = cohort[volume_id].elements(strict=False) if volume_id in cohort else {}
        except CorruptElementError:
            there = {}
        cohort.remove_volume(volume_id)
        return Removal(volume_id, list(there), evaluations=_evaluations(cohort, list(there.values())))
    volume = cohort[volume_id]
    there = volume.elements(strict=False)
    volume.remove(element)
    gone = [there.pop(element)] if element in there else []
    return Removal(volume_id, [element], _dependents(element, there.values()), _evaluations(cohort, gone))


def _dependents(path: str, others: Collection[Element]) -> list[str]:
    """Return the elements that were computed from one, and those that were computed from them."""
    found = {path}
    while new := {other.path for other in others if found & _inputs(other)} - found:
        found |= new
    return sorted(found - {path})


def _inputs(element: Element) -> set[str]:
    return {item["path"] for item in element.provenance.get("inputs", [])}


def _evaluations(cohort: Cohort, removed: Collection[Element]) -> list[str]:
    commits = {element.commit for element in removed}
    try:
        evaluations = cohort.evaluations()
    except MriError:  # damaged, as verify says
        return []
    return [name for name, found in evaluations.items() if commits & {item["commit"] for item in found["inputs"]}]
