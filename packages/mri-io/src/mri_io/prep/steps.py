"""Preparation steps that installed packages offer by name: one function of a volume, with its options."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mri_io.config import Config, validate_config
from mri_io.errors import ConfigError, expected_got
from mri_io.plugins import plugin_instance, plugin_names
from mri_io.prep.cohort import prepare_cohort
from mri_io.prep.results import LoadsOnce
from mri_io.prep.summary import PrepSummary
from mri_io.store.cohort import Cohort
from mri_io.store.remote.paths import AnyPath
from mri_io.store.volume import Volume

__all__ = ["STEPS", "Step", "get_step", "run_step", "step_names"]

STEPS = "mri_io.steps"
"""Entry-point group through which packages register steps."""


@dataclass(frozen=True)
class Step:
    """Work on one volume that a package offers; see docs/extending.md.

    Registered in the entry-point group ``mri_io.steps`` under its name, as it is or as a function that returns it.

    Parameters
    ----------
    name
        What ``mri-cli prep`` calls it.
    summary
        One line: what it reads and what it writes.
    options
        Its options, with their defaults.
    run
        Function of a volume and the options. Idempotent: it writes an element, or finds it current and returns
        ``{"status": "skipped"}``; else it returns ``{"status": "done", ...}``, small values only. An exception becomes
        a failure of that volume.
    memory
        Bytes that the work on a volume holds at most beside its process, by volume and options.
    title
        What the run with these options is called, in progress and in the record of failures; by default its name.
    check
        Raises what keeps the work on a volume from succeeding, as far as its metadata tell. A run is refused, and
        nothing recorded, where it does for every volume, because an element is missing in all of them, say.
    """

    name: str
    summary: str
    options: type[Config]
    run: Callable[[Volume, Any], Mapping[str, Any]]
    memory: Callable[[Volume, Any], int] | None = None
    title: Callable[[Any], str] | None = None
    check: Callable[[Volume, Any], Any] | None = None


def step_names() -> tuple[str, ...]:
    """Return the names of all steps that installed packages register; nothing is imported."""
    return plugin_names(STEPS)


def get_step(name: str) -> Step:
    """Return a step by name.

    Raises
    ------
    ConfigError
        When no installed package has it, or what the package registers cannot be loaded or is no step of that name.
    """
    if name not in step_names():
        fix = "Install the package that has it, on the workers, too." if step_names() else ""
        raise ConfigError(expected_got("step", expected=step_names() or "none installed", got=repr(name), fix=fix))
    return plugin_instance(STEPS, name, Step)


class _RunStep(LoadsOnce):
    """Run a step on one volume; name and options travel, and the worker loads the step from its own installation."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name, self.options = name, dict(options)

    def load(self) -> tuple[Step, Config]:
        step = get_step(self.name)
        return step, validate_config(step.options, self.options, where=f"step {self.name}")

    def __call__(self, volume: Volume) -> dict[str, Any]:
        step, options = self.loaded
        result = step.run(volume, options)
        if not isinstance(result, Mapping):
            raise ConfigError(
                expected_got(f"step {self.name}: result", expected='{"status": "done" or "skipped"}', got=repr(result))
            )
        return {"volume": volume.id, **result}


def run_step(
    cohort: str | AnyPath | Cohort,
    name: str,
    options: Config | Mapping[str, Any] | None = None,
    *,
    volumes: Sequence[str] | None = None,
    split: str | None = None,
    part: str | None = None,
    scheduler: str = "sync",
    progress: bool = True,
) -> PrepSummary:
    """Run a step on every volume of a cohort, or on some.

    Parameters
    ----------
    cohort
        The cohort, its folder or its URL.
    name
        One of `step_names`.
    options
        Of the step; what is left out has its default.
    volumes, split, part, scheduler, progress
        See `mri_io.prep.prepare_cohort`.

    Raises
    ------
    ConfigError
        For an unknown step, options that are not its own, or a step that fits none of the volumes.
    ElementNotFoundError
        When no volume is chosen.
    """
    step = get_step(name)
    estimate, check = step.memory, step.check
    given = options.model_dump() if isinstance(options, Config) else options or {}
    chosen = validate_config(step.options, given, where=f"step {name}")
    return prepare_cohort(
        cohort,
        _RunStep(name, chosen.model_dump(mode="json")),
        volumes=volumes,
        split=split,
        part=part,
        scheduler=scheduler,
        description=step.title(chosen) if step.title else name,
        progress=progress,
        memory=None if estimate is None else lambda volume: estimate(volume, chosen),
        check=None if check is None else lambda volume: check(volume, chosen),
    )
