"""The ``mri-cli joint`` commands."""

from pathlib import Path
from typing import Annotated

import typer

from mri_io import options
from mri_recon import mask_options

app = typer.Typer(help="Reconstruction and segmentation, end to end: train, run, evaluate.", no_args_is_help=True)


@app.command()
def train(
    cohort: options.Cohort,
    config: options.Config = None,
    set_: options.Set = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run [COHORT/runs/joint].")] = None,
    print_config: options.PrintConfig = False,
    cache: options.Cache = None,
) -> None:
    """Fine-tune two networks together, or one of them through the other; an interrupted run is continued."""
    from mri_io.config import dump_config
    from mri_io.store.remote.paths import local_place
    from mri_joint.resolve import load_run_config
    from mri_joint.training import train as train_networks

    resolved = load_run_config(config, set_ or ())
    if print_config:
        typer.echo(dump_config(resolved))
        return
    result = train_networks(cohort, resolved, out or local_place(cohort, "runs", "joint"))
    typer.echo(f"{result.checkpoint} after {result.steps} steps")


@app.command()
def run(
    cohort: options.Cohort,
    checkpoint: Annotated[Path, typer.Option(help="model.ckpt of a joint run.")],
    mask: mask_options.Mask = None,
    acceleration: mask_options.Acceleration = None,
    center_fraction: mask_options.CenterFraction = None,
    mask_seed: mask_options.MaskSeed = None,
    mask_set: mask_options.MaskSet = None,
    maps: Annotated[str | None, typer.Option(help="Coil maps sens/NAME [those of the training].")] = None,
    name: Annotated[str | None, typer.Option(help="The results are recon/NAME and seg/NAME.")] = None,
    split: options.PartSplit = None,
    part: options.Part = None,
    scheduler: options.Scheduler = "sync",
    device: options.Device = "cpu",
    replace: options.Replace = False,
    cache: options.Cache = None,
) -> None:
    """Reconstruct and segment volumes with a jointly trained network; the checkpoint is all it needs."""
    from mri_joint.run import run as run_network
    from mri_recon.stored_masks import MaskConfig

    summary = run_network(
        cohort,
        checkpoint,
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
    raise typer.Exit(0 if summary.ok else 1)


@app.command()
def evaluate(
    cohort: options.Cohort,
    methods: Annotated[
        list[str] | None,
        typer.Option(help="NAME=recon/IMAGE+seg/LABELS; repeat for every method, control and oracle."),
    ] = None,
    reference: Annotated[str, typer.Option(help="Element with the true image.")] = "recon/reference",
    labels: Annotated[str, typer.Option(help="Element with the true labels.")] = "seg/tissue",
    split: options.Split = "default",
    part: Annotated[str, typer.Option(help="Part of the split; all for all volumes.")] = "test",
    name: options.EvaluationName = "joint",
    scheduler: options.Scheduler = "sync",
    cache: options.Cache = None,
) -> None:
    """Put image quality, overlap and image quality within the labels of several methods into one table."""
    from mri_io.evaluation_tables import print_evaluation
    from mri_joint.evaluate import evaluate as evaluate_methods
    from mri_joint.evaluate import parse_methods

    evaluation = evaluate_methods(
        cohort,
        reference=reference,
        labels=labels,
        methods=parse_methods(methods or ()),
        split=split,
        part=None if part == "all" else part,
        name=name,
        scheduler=scheduler,
    )
    print_evaluation(evaluation)
    raise typer.Exit(1 if evaluation.get("missing") else 0)
