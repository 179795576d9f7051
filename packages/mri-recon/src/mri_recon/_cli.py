"""The ``mri-cli recon`` commands."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mri_io import options
from mri_recon import mask_options
from mri_recon.methods import METHODS, method_lines

app = typer.Typer(help="Reconstruct images from k-space: calibrate, run, train, evaluate.", no_args_is_help=True)


@app.command()
def calibrate(
    cohort: options.Cohort,
    method: Annotated[str, typer.Option(help="espirit, walsh, inati, low-resolution or jsense.")] = "espirit",
    mask: Annotated[
        str | None, typer.Option(help="Stored mask: use only its central lines [acquired, or everything].")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The result is sens/NAME [the method].")] = None,
    set_: options.Set = None,
    split: options.PartSplit = None,
    part: options.Part = None,
    scheduler: options.Scheduler = "sync",
    device: options.Device = "cpu",
    replace: options.Replace = False,
    cache: options.Cache = None,
) -> None:
    """Estimate coil sensitivity maps from the centre of k-space."""
    from mri_io.config import load_config
    from mri_recon.calibrate import CALIBRATIONS
    from mri_recon.calibrate import calibrate as calibrate_cohort

    config = load_config(CALIBRATIONS[method][0], None, set_ or ()) if method in CALIBRATIONS else None
    summary = calibrate_cohort(
        cohort,
        method=method,
        config=config,
        name=name,
        mask=mask,
        split=split,
        part=part,
        scheduler=scheduler,
        device=device,
        replace=replace,
    )
    typer.echo(summary)
    raise typer.Exit(0 if summary.ok else 1)


@app.command()
def compress(
    cohort: options.Cohort,
    out: Annotated[Path, typer.Argument(help="Folder of the cohort of compressed volumes.")],
    set_: options.Set = None,
    split: options.PartSplit = None,
    part: options.Part = None,
    scheduler: options.Scheduler = "sync",
    replace: options.Replace = False,
    cache: options.Cache = None,
) -> None:
    """Compress coils to fewer virtual ones; the volumes go to another cohort."""
    from mri_io.config import load_config
    from mri_recon.compress import CompressionConfig
    from mri_recon.compress import compress as compress_cohort

    config = load_config(CompressionConfig, None, set_ or ())
    summary = compress_cohort(cohort, out, config=config, split=split, part=part, scheduler=scheduler, replace=replace)
    typer.echo(summary)
    raise typer.Exit(0 if summary.ok else 1)


@app.command(epilog=f"\b\nMethods:\n{method_lines()}")
def run(
    cohort: options.Cohort,
    method: Annotated[str | None, typer.Option(help="A method, see below.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="model.ckpt of a run, in place of a method.")] = None,
    mask: mask_options.Mask = None,
    acceleration: mask_options.Acceleration = None,
    center_fraction: mask_options.CenterFraction = None,
    mask_seed: mask_options.MaskSeed = None,
    mask_set: mask_options.MaskSet = None,
    maps: Annotated[str | None, typer.Option(help="Coil maps sens/NAME; none: root sum of squares.")] = None,
    set_: options.Set = None,
    name: Annotated[str | None, typer.Option(help="The result is recon/NAME.")] = None,
    split: options.PartSplit = None,
    part: options.Part = None,
    scheduler: options.Scheduler = "sync",
    device: options.Device = "cpu",
    replace: options.Replace = False,
    cache: options.Cache = None,
) -> None:
    """Reconstruct by a classical method or a trained network."""
    from mri_io.config import load_config
    from mri_recon.errors import ConfigError
    from mri_recon.run import outcome_lines
    from mri_recon.run import run as run_cohort
    from mri_recon.stored_masks import MaskConfig

    if checkpoint is not None and set_:
        raise ConfigError("--set: a checkpoint has its own configuration. Leave --set out.")
    config = load_config(METHODS[method].load()[0], None, set_ or ()) if method in METHODS else None
    summary = run_cohort(
        cohort,
        method=method,
        config=config,
        checkpoint=checkpoint,
        mask=MaskConfig.of_options(mask, acceleration, center_fraction, mask_seed, mask_set),
        maps=maps,
        name=name,
        split=split,
        part=part,
        scheduler=scheduler,
        device=device,
        replace=replace,
    )
    typer.echo(summary)
    for line in outcome_lines(summary.results):
        typer.echo(line)
    raise typer.Exit(0 if summary.ok else 1)


@app.command()
def train(
    cohort: options.Cohort,
    config: options.Config = None,
    set_: options.Set = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run [COHORT/runs/recon].")] = None,
    print_config: options.PrintConfig = False,
    cache: options.Cache = None,
) -> None:
    """Train a network on fully sampled data, masked anew for every sample; continues an interrupted run."""
    from mri_io.config import dump_config, load_config
    from mri_io.store.remote.paths import local_place
    from mri_recon.config import RunConfig
    from mri_recon.training import train as train_network

    resolved = load_config(RunConfig, config, set_ or ())
    if print_config:
        typer.echo(dump_config(resolved))
        return
    result = train_network(cohort, resolved, out or local_place(cohort, "runs", "recon"))
    typer.echo(f"{result.checkpoint} after {result.steps} steps")


@app.command()
def evaluate(
    cohort: options.Cohort,
    reference: Annotated[str, typer.Option(help="Element taken as true.")] = "recon/reference",
    methods: options.Methods = None,
    split: options.Split = "default",
    part: Annotated[str, typer.Option(help="Part of the split; all for all volumes.")] = "test",
    region: Annotated[
        str, typer.Option(help="all: the whole image; head: where the reference shows the object; or labels seg/NAME.")
    ] = "all",
    scale: Annotated[
        Literal["none", "least-squares"], typer.Option(help="Factor on each volume before it is compared.")
    ] = "none",
    peak: Annotated[
        Literal["volume", "slice"], typer.Option(help="PSNR and SSIM relative to this maximum of the reference.")
    ] = "volume",
    name: options.EvaluationName = "reconstruction",
    scheduler: options.Scheduler = "sync",
    cache: options.Cache = None,
) -> None:
    """Measure PSNR, SSIM, NMSE and HFEN against a reference: a table, and a picture with matplotlib installed."""
    from mri_io.evaluation_tables import print_evaluation
    from mri_recon.evaluate import evaluate as evaluate_methods
    from mri_recon.evaluation_figure import can_draw

    evaluation = evaluate_methods(
        cohort,
        reference=reference,
        methods=methods or (),
        split=split,
        part=None if part == "all" else part,
        region=region,
        scale=scale,
        peak=peak,
        name=name,
        scheduler=scheduler,
    )
    print_evaluation(evaluation)
    made = "json, csv, png" if can_draw() else "json, csv; a picture needs matplotlib: pip install 'mri-io[report]'"
    typer.echo(f"{cohort.rstrip('/')}/evaluations/{name} ({made})")
    raise typer.Exit(1 if evaluation.get("missing") else 0)
