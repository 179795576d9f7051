"""The ``mri-cli seg`` commands."""

from pathlib import Path
from typing import Annotated

import typer

from mri_io import options

app = typer.Typer(help="Segment images and reconstructions: train, run, evaluate.", no_args_is_help=True)


@app.command()
def train(
    cohort: options.Cohort,
    config: options.Config = None,
    set_: options.Set = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run [COHORT/runs/seg].")] = None,
    print_config: options.PrintConfig = False,
    cache: options.Cache = None,
) -> None:
    """Train a network on images and their label maps; an interrupted run is continued."""
    from mri_io.config import dump_config, load_config
    from mri_io.store.remote.paths import local_place
    from mri_seg.config import RunConfig
    from mri_seg.training import train as train_network

    resolved = load_config(RunConfig, config, set_ or ())
    if print_config:
        typer.echo(dump_config(resolved))
        return
    result = train_network(cohort, resolved, out or local_place(cohort, "runs", "seg"))
    typer.echo(f"{result.checkpoint} after {result.steps} steps")


@app.command()
def run(
    cohort: options.Cohort,
    checkpoint: Annotated[Path, typer.Option(help="model.ckpt of a run.")],
    input: Annotated[
        list[str] | None, typer.Option(help="Element to segment instead of the one trained on; once per channel.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The result is seg/NAME.")] = None,
    split: options.PartSplit = None,
    part: options.Part = None,
    window: Annotated[tuple[int, int] | None, typer.Option(help="Size of sliding windows [whole slices].")] = None,
    device: options.Device = "cpu",
    scheduler: options.Scheduler = "sync",
    replace: options.Replace = False,
    cache: options.Cache = None,
) -> None:
    """Segment volumes with a trained network; the checkpoint is all it needs."""
    from mri_seg.run import run as run_network

    summary = run_network(
        cohort,
        checkpoint,
        inputs=tuple(input or ()),
        name=name,
        split=split,
        part=part,
        window=window,
        device=device,
        scheduler=scheduler,
        replace=replace,
    )
    typer.echo(summary)
    raise typer.Exit(0 if summary.ok else 1)


@app.command()
def evaluate(
    cohort: options.Cohort,
    reference: Annotated[str, typer.Option(help="Element with the true labels.")] = "seg/tissue",
    methods: options.Methods = None,
    split: options.Split = "default",
    part: Annotated[str | None, typer.Option(help="Part of the split; 'all' for all volumes.")] = "test",
    name: options.EvaluationName = "segmentation",
    scheduler: options.Scheduler = "sync",
    cache: options.Cache = None,
) -> None:
    """Measure Dice, IoU, HD95 and ASD per class against a reference."""
    from mri_io.evaluation_tables import print_evaluation
    from mri_seg.errors import ConfigError
    from mri_seg.evaluate import evaluate as evaluate_methods

    if not methods:
        raise ConfigError("--methods: expected at least one element, e.g. --methods seg/unet-reference.")
    evaluation = evaluate_methods(
        cohort,
        reference=reference,
        methods=methods,
        split=split,
        part=None if part == "all" else part,
        name=name,
        scheduler=scheduler,
    )
    print_evaluation(evaluation)
    raise typer.Exit(1 if evaluation.get("missing") else 0)
