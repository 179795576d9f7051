"""Splits of a cohort by subject: no subject is in two parts."""

import hashlib
import json
import logging
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import model_validator

from mri_io.config import Config, validate_config
from mri_io.errors import ConfigError, ElementNotFoundError, expected_got
from mri_io.schema.validation import validate
from mri_io.store.documents import read_document, write_document
from mri_io.store.remote.paths import AnyPath
from mri_io.types import Part

if TYPE_CHECKING:
    from mri_io.store.cohort import Cohort
    from mri_io.store.volume import Volume

__all__ = ["Split", "make_split", "read_split", "write_split"]

_log = logging.getLogger(__name__)
_PARTS: tuple[Part, ...] = ("train", "val", "test")


class Split(Config):
    """Subject ids of the three parts."""

    name: str
    seed: int = 0
    unit: Literal["subject"] = "subject"
    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _disjoint(self) -> "Split":
        subjects = [*self.train, *self.val, *self.test]
        twice = sorted({subject for subject in subjects if subjects.count(subject) > 1})
        if twice:
            raise ValueError(f"expected every subject in one part, got {', '.join(twice)} in several")
        return self

    @property
    def hash(self) -> str:
        """SHA-256 of the three parts, independent of the name and of the order of subjects."""
        parts = {part: sorted(getattr(self, part)) for part in _PARTS}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def part_of(self, subject: str) -> Part | None:
        """Return the part that a subject is in."""
        return next((part for part in _PARTS if subject in getattr(self, part)), None)

    def subjects(self, part: str) -> tuple[str, ...]:
        """Return the subjects of a part; ConfigError for an unknown part."""
        if part not in _PARTS:
            raise ConfigError(expected_got("part", expected=_PARTS, got=repr(part)))
        found: tuple[str, ...] = getattr(self, part)
        return found


def make_split(
    cohort: "Cohort",
    name: str = "default",
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    *,
    counts: Sequence[int] | None = None,
    seed: int = 0,
    stratify: Callable[["Volume"], Hashable] | None = None,
) -> Split:
    """Divide the subjects of a cohort at random, reproducibly.

    Parameters
    ----------
    cohort
        The cohort.
    name
        Name of the split.
    fractions
        Shares of train, validation and test, summing to one; three integers are taken as `counts`.
    counts
        Numbers of subjects instead; their sum may be below the number of subjects, the rest stays unused.
    seed
        Of the shuffle. The result depends on the set of subjects and the seed (and the strata) only.
    stratify
        A function of a volume, e.g. ``lambda v: v.header.vendor``; every part gets its share of the subjects of each
        value, as far as whole subjects allow. A subject's value is that of its first volume.

    Returns
    -------
    Split
        Not written yet: `Cohort.write_split` does that.

    Raises
    ------
    ConfigError
        When the shares do not sum to one, there are too few subjects, or the seed is negative.
    """
    if seed < 0:
        raise ConfigError(expected_got("seed", expected="a number from 0", got=seed))
    strata: dict[str, Hashable] = {}
    for volume in cohort.volumes():
        if volume.subject_id not in strata:
            strata[volume.subject_id] = stratify(volume) if stratify is not None else None
    if counts is None and all(isinstance(share, int) for share in fractions):
        counts = [int(share) for share in fractions]
    sizes = _sizes(len(strata), fractions, counts, cohort.path)
    parts: dict[str, list[str]] = {part: [] for part in _PARTS}
    targets = [*sizes, len(strata) - sum(sizes)]
    given = [0, 0, 0, 0]
    for done, subject in enumerate(_order(strata, seed), start=1):
        # The part that is furthest behind its share gets the next subject, so that runs of one stratum spread.
        lag = [
            target * done / len(strata) - have if have < target else -np.inf
            for target, have in zip(targets, given, strict=True)
        ]
        chosen = int(np.argmax(lag))
        given[chosen] += 1
        if chosen < len(_PARTS):
            parts[_PARTS[chosen]].append(subject)
    train, val, test = (tuple(sorted(parts[part])) for part in _PARTS)
    return Split(name=name, seed=seed, train=train, val=val, test=test)


def _sizes(
    subjects: int, fractions: Sequence[float], counts: Sequence[int] | None, where: AnyPath
) -> tuple[int, int, int]:
    """Return the numbers of subjects of the three parts; ConfigError when they cannot be."""
    if counts is None:
        # The sum of shares that hold NaN is not "at most" anything.
        if len(fractions) != 3 or min(fractions) < 0 or not abs(sum(fractions) - 1) <= 1e-6:
            raise ConfigError(expected_got("fractions", expected="three shares summing to 1", got=tuple(fractions)))
        # Largest remainder: whole numbers nearest to the shares that sum to all subjects; a share of 0 gets none.
        sizes = [int(share * subjects) for share in fractions]
        remainders = [share * subjects - size for share, size in zip(fractions, sizes, strict=True)]
        for part in sorted(range(3), key=lambda part: -remainders[part])[: subjects - sum(sizes)]:
            sizes[part] += 1
        return sizes[0], sizes[1], sizes[2]
    if len(counts) != 3 or min(counts) < 0 or sum(counts) > subjects:
        what, wanted = "numbers of train, val and test subjects", f"three, at most {subjects} in all"
        raise ConfigError(expected_got(what, expected=wanted, got=tuple(counts), where=where))
    train, val, test = (int(n) for n in counts)
    return train, val, test


def _order(strata: "dict[str, Hashable]", seed: int) -> list[str]:
    """Return the subjects shuffled, those of a stratum one after the other."""
    subjects = sorted(strata)
    shuffled = [subjects[i] for i in np.random.default_rng(seed).permutation(len(subjects))]
    first = {value: n for n, value in reversed(list(enumerate(strata[subject] for subject in shuffled)))}
    return sorted(shuffled, key=lambda subject: first[strata[subject]])


def write_split(cohort: "Cohort", split: Split) -> AnyPath:
    """Write ``splits/<name>.json``; return its path. One that changes is logged: models were trained on the old."""
    if not split.name or split.name.startswith(".") or set(split.name) & set("/\\"):
        raise ConfigError(expected_got("name of a split", expected="a plain file name", got=repr(split.name)))
    path = cohort.path / "splits" / f"{split.name}.json"
    content = {**split.model_dump(mode="json"), "hash": split.hash}
    validate("split", content, path)
    if path.exists() and read_split(cohort, split.name).hash != split.hash:
        _log.warning("%s: an earlier split of this name, with other subjects, is replaced.", path)
    write_document(path, content)
    return path


def read_split(cohort: "Cohort", name: str) -> Split:
    """Read a split; ElementNotFoundError lists those that exist."""
    path = cohort.path / "splits" / f"{name}.json"
    try:
        content = read_document(path)
    except FileNotFoundError:
        names = ", ".join(sorted(p.stem for p in path.parent.glob("*.json"))) or "none"
        raise ElementNotFoundError(
            f"{cohort.path}: there is no split {name!r}. Splits: {names}. Make one: mri-cli split {cohort.path}"
        ) from None
    validate("split", {"name": name, **content}, path)
    known = {key: value for key, value in content.items() if key in Split.model_fields}
    return validate_config(Split, {"name": name, **known}, where=str(path))
