"""The ``mri-cli recon`` commands."""

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(help="Reconstruct images from k-space: calibrate, run, train, evaluate.", no_args_is_help=True)

CohortArgument = Annotated[str, typer.Argument(help="Folder or URL of the cohort.")]
SplitOption = Annotated[str, typer.Option(help="Name of the split.")]
ChosenSplitOption = Annotated[str | None, typer.Option(help="Name of the split of --part [default].")]
PartOption = Annotated[str | None, typer.Option(help="Part of the split [all volumes].")]
SchedulerOption = Annotated[str, typer.Option(help="sync, local[:N], slurm[:N] or tcp://host:port.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Replace results that exist.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override a field: a.b=value.")]


@app.command()
def calibrate(
    cohort: CohortArgument,
    method: Annotated[str, typer.Option(help="espirit.")] = "espirit",
    mask: Annotated[
        str | None, typer.Option(help="Stored mask: use only its central lines [acquired, or everything].")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The result is sens/NAME [the method].")] = None,
    set_: SetOption = None,
    split: ChosenSplitOption = None,
    part: PartOption = None,
    scheduler: SchedulerOption = "sync",
    device: DeviceOption = "cpu",
    replace: ReplaceOption = False,
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
def run(
    cohort: CohortArgument,
    method: Annotated[str | None, typer.Option(help="zero-filled or cg-sense.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="model.ckpt of a run, in place of a method.")] = None,
    mask: Annotated[
        str | None,
        typer.Option(help="none, a stored mask, or equispaced, equispaced-fraction, random [acquired, or none]."),
    ] = None,
    acceleration: Annotated[float | None, typer.Option(help="Of a mask that is made [4].")] = None,
    center_fraction: Annotated[
        float | None, typer.Option(help="Fully sampled share of a mask that is made [0.08].")
    ] = None,
    mask_seed: Annotated[int | None, typer.Option(help="Seed of a mask that is made [0].")] = None,
    maps: Annotated[str | None, typer.Option(help="Coil maps sens/NAME; none: root sum of squares.")] = None,
    set_: SetOption = None,
    name: Annotated[str | None, typer.Option(help="The result is recon/NAME.")] = None,
    split: ChosenSplitOption = None,
    part: PartOption = None,
    scheduler: SchedulerOption = "sync",
    device: DeviceOption = "cpu",
    replace: ReplaceOption = False,
) -> None:
    """Reconstruct by a classical method or a trained network."""
    from mri_io.config import load_config
    from mri_recon.errors import ConfigError
    from mri_recon.run import METHODS, MaskConfig
    from mri_recon.run import run as run_cohort

    if checkpoint is not None and set_:
        raise ConfigError("--set: a checkpoint has its own configuration. Leave --set out.")
    config = load_config(METHODS[method][0], None, set_ or ()) if method in METHODS else None
    summary = run_cohort(
        cohort,
        method=method,
        config=config,
        checkpoint=checkpoint,
        mask=MaskConfig.of_options(mask, acceleration, center_fraction, mask_seed),
        maps=maps,
        name=name,
        split=split,
        part=part,
        scheduler=scheduler,
        device=device,
        replace=replace,
    )
    typer.echo(summary)
    raise typer.Exit(0 if summary.ok else 1)


@app.command()
def train(
    cohort: CohortArgument,
    config: Annotated[Path | None, typer.Option(help="Run configuration, YAML.")] = None,
    set_: SetOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run [COHORT/runs/recon].")] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the configuration only.")] = False,
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
    cohort: CohortArgument,
    reference: Annotated[str, typer.Option(help="Element taken as true.")] = "recon/reference",
    methods: Annotated[list[str] | None, typer.Option(help="Element to compare; repeat for several.")] = None,
    split: SplitOption = "default",
    part: Annotated[str, typer.Option(help="Part of the split; all for all volumes.")] = "test",
    region: Annotated[
        Literal["all", "head"], typer.Option(help="The whole image, or where the reference shows the object.")
    ] = "all",
    scale: Annotated[
        Literal["none", "least-squares"], typer.Option(help="Factor on each volume before it is compared.")
    ] = "none",
    name: Annotated[str, typer.Option(help="Name of the evaluation.")] = "reconstruction",
) -> None:
    """Measure PSNR, SSIM and NMSE against a reference."""
    from mri_io.evaluation_tables import print_evaluation
    from mri_recon.evaluate import evaluate as evaluate_methods

    print_evaluation(
        evaluate_methods(
            cohort,
            reference=reference,
            methods=methods or (),
            split=split,
            part=None if part == "all" else part,
            region=region,
            scale=scale,
            name=name,
        )
    )
