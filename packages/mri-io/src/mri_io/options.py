"""Arguments and options that several commands have, declared once; for commands of other packages, too.

A command names them in its signature, ``scheduler: options.Scheduler = "sync"``, so that users read and type the same
everywhere. Importing this module costs no more than typer.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Cache",
    "Cohort",
    "Config",
    "Device",
    "EvaluationName",
    "Methods",
    "Part",
    "PartSplit",
    "PrintConfig",
    "Replace",
    "Scheduler",
    "Set",
    "Split",
    "Volumes",
]

Cohort = Annotated[str, typer.Argument(help="Folder or URL of the cohort.")]


def _use_cache(context: typer.Context, given: str | None) -> str | None:
    """Have this command and the workers that it starts use a cache, as the environment would."""
    if given is not None and not context.resilient_parsing:
        from mri_io.store.remote.cache import Cache as ReadCache

        ReadCache.parse(given)  # also for a folder, which needs no cache: what is mistyped is said at once
        before = {name: os.environ.pop(name, None) for name in ("MRI_IO_CACHE", "MRI_IO_CACHE_SIZE")}
        os.environ["MRI_IO_CACHE"] = given

        def restore() -> None:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

        context.call_on_close(restore)
    return given


Cache = Annotated[
    str | None,
    typer.Option(
        "--cache",
        callback=_use_cache,
        help="Of a URL: keep what is read in DIR[:SIZE], e.g. /scratch/mri:200G [MRI_IO_CACHE; 10G].",
    ),
]
"""In force once it is given: a command only names it."""

# Which volumes.
Volumes = Annotated[list[str] | None, typer.Option(help="Volume id; repeat for several [all].")]
Split = Annotated[str, typer.Option(help="Name of the split.")]
PartSplit = Annotated[str | None, typer.Option(help="Name of the split of --part [default].")]
Part = Annotated[str | None, typer.Option(help="Part of the split [all volumes].")]

# How work is done.
Scheduler = Annotated[str, typer.Option(help="sync, local[:N], slurm[:N] or tcp://host:port.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Replace = Annotated[bool, typer.Option("--replace", help="Replace results that exist.")]

# Configurations.
Config = Annotated[Path | None, typer.Option(help="Run configuration, YAML.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a field: a.b=value.")]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Print the configuration only.")]

# Evaluations.
Methods = Annotated[list[str] | None, typer.Option(help="Element to compare; repeat for several.")]
EvaluationName = Annotated[str, typer.Option(help="Name of the evaluation.")]
