"""The ``mri-cli joint`` commands."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Reconstruction and segmentation, end to end: train, run, evaluate.", no_args_is_help=True)

CohortArgument = Annotated[str, typer.Argument(help="Folder or URL of the cohort.")]
SplitOption = Annotated[str, typer.Option(help="Name of the split.")]
ChosenSplitOption = Annotated[str | None, typer.Option(help="Name of the split of --part [default].")]


@app.command()
def train(
    cohort: CohortArgument,
    config: Annotated[Path | None, typer.Option(help="Run configuration, YAML.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a field: a.b=value.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run [COHORT/runs/joint].")] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the configuration only.")] = False,
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
    cohort: CohortArgument,
    checkpoint: Annotated[Path, typer.Option(help="model.ckpt of a joint run.")],
    mask: Annotated[
        str | None,
        typer.Option(help="none, a stored mask, or equispaced, equispaced-fraction, random [acquired, or none]."),
    ] = None,
    acceleration: Annotated[float | None, typer.Option(help="Of a mask that is made [4].")] = None,
    center_fraction: Annotated[
        float | None, typer.Option(help="Fully sampled share of a mask that is made [0.08].")
    ] = None,
    mask_seed: Annotated[int | None, typer.Option(help="Seed of a mask that is made [0].")] = None,
    maps: Annotated[str | None, typer.Option(help="Coil maps sens/NAME [those of the training].")] = None,
    name: Annotated[str | None, typer.Option(help="The results are recon/NAME and seg/NAME.")] = None,
    split: ChosenSplitOption = None,
    part: Annotated[str | None, typer.Option(help="Part of the split [all volumes].")] = None,
    scheduler: Annotated[str, typer.Option(help="sync, local[:N], slurm[:N] or tcp://host:port.")] = "sync",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    replace: Annotated[bool, typer.Option("--replace", help="Replace results that exist.")] = False,
) -> None:
    """Reconstruct and segment volumes with a jointly trained network; the checkpoint is all it needs."""
    from mri_joint.run import run as run_network
    from mri_recon.run import MaskConfig

    summary = run_network(
        cohort,
        checkpoint,
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
def evaluate(
    cohort: CohortArgument,
    methods: Annotated[
        list[str] | None,
        typer.Option(help="NAME=recon/IMAGE+seg/LABELS; repeat for every method, control and oracle."),
    ] = None,
    reference: Annotated[str, typer.Option(help="Element with the true image.")] = "recon/reference",
    labels: Annotated[str, typer.Option(help="Element with the true labels.")] = "seg/tissue",
    split: SplitOption = "default",
    part: Annotated[str, typer.Option(help="Part of the split; all for all volumes.")] = "test",
    name: Annotated[str, typer.Option(help="Name of the evaluation.")] = "joint",
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
    )
    print_evaluation(evaluation)
