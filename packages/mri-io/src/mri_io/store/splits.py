"""Splits of a cohort by subject: no subject is in two parts."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import model_validator

from mri_io.config import Config, validate_config
from mri_io.errors import ConfigError, ElementNotFoundError, expected_got
from mri_io.schema.validation import validate
from mri_io.store.commit import write_json_atomic
from mri_io.types import Part

if TYPE_CHECKING:
    from mri_io.store.cohort import Cohort

__all__ = ["Split", "make_split", "read_split", "write_split"]


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
        parts = {part: sorted(getattr(self, part)) for part in ("train", "val", "test")}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def part_of(self, subject: str) -> Part | None:
        """Return the part that a subject is in."""
        parts: tuple[Part, ...] = ("train", "val", "test")
        return next((part for part in parts if subject in getattr(self, part)), None)

    def subjects(self, part: str) -> tuple[str, ...]:
        """Return the subjects of a part; ConfigError for an unknown part."""
        if part not in ("train", "val", "test"):
            raise ConfigError(expected_got("part", expected=("train", "val", "test"), got=repr(part)))
        found: tuple[str, ...] = getattr(self, part)
        return found


def make_split(
    cohort: "Cohort",
    name: str = "default",
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    *,
    counts: Sequence[int] | None = None,
    seed: int = 0,
) -> Split:
    """Divide the subjects of a cohort at random, reproducibly.

    Parameters
    ----------
    cohort
        The cohort.
    name
        Name of the split.
    fractions
        Shares of train, validation and test, summing to one.
    counts
        Numbers of subjects instead; their sum may be below the number of subjects, the rest stays unused.
    seed
        Of the shuffle. The result depends on the set of subjects and the seed only.

    Raises
    ------
    ConfigError
        When the shares do not sum to one or there are too few subjects.
    """
    subjects = sorted({volume.subject_id for volume in cohort.volumes()})
    if counts is None:
        if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
            raise ConfigError(expected_got("fractions", expected="three shares summing to 1", got=tuple(fractions)))
        val, test = (round(share * len(subjects)) for share in fractions[1:])
        sizes = (len(subjects) - val - test, val, test)
    else:
        sizes = tuple(int(n) for n in counts)  # type: ignore[assignment]
    if len(sizes) != 3 or min(sizes) < 0 or sum(sizes) > len(subjects):
        raise ConfigError(
            expected_got(
                "numbers of train, val and test subjects",
                expected=f"at most {len(subjects)} in all",
                got=tuple(sizes),
                where=cohort.path,
            )
        )
    order = [subjects[i] for i in np.random.default_rng(seed).permutation(len(subjects))]
    first, second = sizes[0], sizes[0] + sizes[1]
    return Split(
        name=name,
        seed=seed,
        train=tuple(sorted(order[:first])),
        val=tuple(sorted(order[first:second])),
        test=tuple(sorted(order[second : second + sizes[2]])),
    )


def write_split(cohort: "Cohort", split: Split) -> Path:
    """Write ``splits/<name>.json``; return its path."""
    path = cohort.path / "splits" / f"{split.name}.json"
    content = split.model_dump(mode="json")
    validate("split", content, path)
    write_json_atomic(path, content)
    return path


def read_split(cohort: "Cohort", name: str) -> Split:
    """Read a split; ElementNotFoundError lists those that exist."""
    path = cohort.path / "splits" / f"{name}.json"
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        names = ", ".join(sorted(p.stem for p in path.parent.glob("*.json"))) or "none"
        raise ElementNotFoundError(
            f"{cohort.path}: there is no split {name!r}. Splits: {names}. Make one: mri-cli split {cohort.path}"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON: {error}.") from None
    return validate_config(Split, content, where=str(path))
