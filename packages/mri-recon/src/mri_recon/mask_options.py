"""Options of commands that undersample k-space, declared once; see `mri_io.options`."""

from typing import Annotated

import typer

__all__ = ["Acceleration", "CenterFraction", "Mask", "MaskSeed", "MaskSet"]

Mask = Annotated[
    str | None,
    typer.Option(
        help="none, a stored mask, zeros (found from the data), or one that is made: equispaced, equispaced-fraction, "
        "random, gaussian, partial-fourier; equispaced-2d, caipirinha, gaussian-2d, poisson, radial, spiral; "
        "kt-equispaced, kt-gaussian of frames [acquired, or none]."
    ),
]
Acceleration = Annotated[float | None, typer.Option(help="Of a mask that is made [4].")]
CenterFraction = Annotated[float | None, typer.Option(help="Fully sampled share of a mask that is made [0.08].")]
MaskSeed = Annotated[int | None, typer.Option(help="Seed of a mask that is made [0].")]
MaskSet = Annotated[
    list[str] | None,
    typer.Option(
        "--mask-set",
        help="Another parameter of a mask that is made: name=value, e.g. center_lines=8, partial_fourier=0.75.",
    ),
]
