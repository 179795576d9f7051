"""Options of commands that undersample k-space, declared once; see `mri_io.options`."""

from typing import Annotated

import typer

__all__ = ["Acceleration", "CenterFraction", "Mask", "MaskSeed"]

Mask = Annotated[
    str | None,
    typer.Option(help="none, a stored mask, or equispaced, equispaced-fraction, random [acquired, or none]."),
]
Acceleration = Annotated[float | None, typer.Option(help="Of a mask that is made [4].")]
CenterFraction = Annotated[float | None, typer.Option(help="Fully sampled share of a mask that is made [0.08].")]
MaskSeed = Annotated[int | None, typer.Option(help="Seed of a mask that is made [0].")]
