"""The main job: simulated raw files to a report, by the public commands that a user would type.

Every stage is one ``mri-cli`` command, all of them in this process so that the libraries behind them are loaded
once. Each command skips what is done, so an interrupted demonstration continues when it is run again. Budgets are
numbers of steps, never seconds.
"""

import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

__all__ = ["SIZES", "DemoError", "Size", "Stage", "run_demo", "stages"]

MASK = "equispaced-r4"
IMAGES = ("reference", "zero-filled-r4", "cg-sense-r4", "varnet-r4")


class DemoError(Exception):
    """A stage failed, or something that the demonstration needs is not installed."""

    exit_code = 1


@dataclass(frozen=True)
class Size:
    """How much data the demonstration makes and how long it trains."""

    train: int
    val: int
    test: int
    slices: int
    matrix: tuple[int, int]
    coils: int
    overrides: dict[str, tuple[str, ...]]

    @property
    def subjects(self) -> int:
        """Number of subjects in all three parts."""
        return self.train + self.val + self.test


_OFTEN = ("training.validate_every=2", "training.checkpoint_every=2")

SIZES = {
    "full": Size(train=14, val=1, test=4, slices=4, matrix=(192, 160), coils=8, overrides={}),
    # The same commands on next to nothing: shows that every step works, not that anything is learnt.
    "tiny": Size(
        train=2,
        val=1,
        test=1,
        slices=2,
        matrix=(96, 128),  # narrower, and the centre has too few lines to calibrate from
        coils=4,
        overrides={
            "recon": ("model.cascades=2", "model.channels=4", "model.pools=2", "training.steps=4", *_OFTEN),
            "seg": ("training.steps=4", *_OFTEN),
            "joint": ("training.steps=4", "curriculum.epochs=2", "curriculum.steps_per_epoch=1", *_OFTEN),
        },
    ),
}


@dataclass(frozen=True)
class Stage:
    """One command of the demonstration, without its leading ``mri-cli``, and what it is for."""

    title: str
    command: str

    def __str__(self) -> str:
        """Return the command as a user would type it."""
        return f"mri-cli {self.command}"


def stages(out: Path, size: Size) -> Iterator[Stage]:
    """Yield the commands of the main job in order.

    Parameters
    ----------
    out
        Folder for the raw files, the cohort, the run configurations and the report.
    size
        One of `SIZES`.
    """
    cohort, raw, labels = (shlex.quote(str(out / name)) for name in ("cohort", "raw", "raw/labels"))
    workers = "--scheduler local:2"
    yield Stage(
        f"Simulate raw files of {size.subjects} subjects from real anatomy",
        f"simulate brains {raw} --subjects {size.subjects} --slices {size.slices}"
        f" --matrix {size.matrix[0]} {size.matrix[1]} --coils {size.coils} --seed 0",
    )
    yield Stage("Convert them, with their label maps", f"convert {raw} {cohort} --labels {labels} {workers}")
    yield Stage(
        "Split by subject",
        f"split {cohort} --train {size.train} --val {size.val} --test {size.test} --seed 0",
    )
    yield from _classical_stages(cohort, workers)
    yield from _training_stages(out, cohort, size)
    yield from _evaluation_stages(cohort)
    yield Stage("Verify every byte of the cohort", f"verify {cohort}")
    report = shlex.quote(str(out / "report.html"))
    yield Stage("Write the report", f"report {cohort} --out {report}")


def _classical_stages(cohort: str, workers: str) -> Iterator[Stage]:
    calibrate, run = f"recon calibrate {cohort} {workers}", f"recon run {cohort}"
    yield Stage(
        "Coil maps by ESPIRiT from the fully sampled data, for the reference, on two dask workers",
        f"{calibrate} --name espirit-full",
    )
    yield Stage(
        "Reference: coil combination of the fully sampled data",
        f"{run} --method zero-filled --mask none --maps espirit-full --name reference",
    )
    yield Stage(
        "Zero-filled at 4x",
        f"{run} --method zero-filled --mask equispaced --acceleration 4 --center-fraction 0.08"
        " --maps espirit-full --name zero-filled-r4",
    )
    yield Stage(
        "Coil maps by ESPIRiT from the calibration lines of the accelerated scan, on two dask workers",
        f"{calibrate} --mask {MASK} --name espirit",
    )
    yield Stage(
        "CG-SENSE at 4x of the held-out subjects",
        f"{run} --method cg-sense --mask {MASK} --maps espirit --part test --name cg-sense-r4",
    )


def _training_stages(out: Path, cohort: str, size: Size) -> Iterator[Stage]:
    def path(*parts: str) -> str:
        return shlex.quote(str(out.joinpath(*parts)))

    def train(package: str, name: str, recipe: str, *settings: str) -> str:
        every = "".join(f" --set {setting}" for setting in (*size.overrides.get(package, ()), *settings))
        config, run = path("configs", f"{recipe}.yaml"), path("cohort", "runs", name)
        return f"{package} train {cohort} --config {config} --out {run}{every}"

    def checkpoint(name: str) -> str:
        return path("cohort", "runs", name, "model.ckpt")

    yield Stage("Train a small VarNet", train("recon", "varnet", "varnet"))
    yield Stage(
        "Reconstruct the held-out subjects with it",
        f"recon run {cohort} --checkpoint {checkpoint('varnet')} --mask {MASK} --part test --name varnet-r4",
    )
    yield Stage("Train a small segmenter on fully sampled images", train("seg", "unet", "unet"))
    for image in IMAGES:
        yield Stage(
            f"Segment recon/{image}",
            f"seg run {cohort} --checkpoint {checkpoint('unet')} --input recon/{image} --part test --name unet-{image}",
        )
    start = (
        f"init.reconstruction={checkpoint('varnet')}",
        f"init.segmentation={checkpoint('unet')}",
    )
    # A frozen segmenter learns nothing from changed copies of a reconstruction: one is enough.
    for name, title, settings in (
        ("joint", "Joint fine-tuning with the undersampling curriculum", ()),
        ("segmenter-only", "Control: fine-tune the segmenter alone", ("train_reconstruction=false",)),
        (
            "reconstruction-only",
            "Control: fine-tune the reconstruction alone",
            ("train_segmentation=false", "data.views=1"),
        ),
    ):
        yield Stage(title, train("joint", name, "joint", *start, *settings))
        yield Stage(
            f"Reconstruct and segment with the outcome ({name})",
            f"joint run {cohort} --checkpoint {checkpoint(name)} --mask {MASK} --part test --name {name}-r4",
        )


def _evaluation_stages(cohort: str) -> Iterator[Stage]:
    recons = "".join(f" --methods recon/{image}" for image in IMAGES[1:])
    yield Stage(
        "Evaluate the reconstructions on held-out subjects",
        f"recon evaluate {cohort} --reference recon/reference --part test --name reconstruction{recons}",
    )
    segs = "".join(f" --methods seg/unet-{image}" for image in IMAGES)
    yield Stage(
        "Evaluate the segmentations on held-out subjects",
        f"seg evaluate {cohort} --reference seg/tissue --part test --name segmentation{segs}",
    )
    pairs = {"oracle": ("reference", "unet-reference"), "before": ("varnet-r4", "unet-varnet-r4")}
    pairs |= {name: (f"{name}-r4", f"{name}-r4") for name in ("joint", "segmenter-only", "reconstruction-only")}
    methods = "".join(f" --methods {name}=recon/{image}+seg/{seg}" for name, (image, seg) in pairs.items())
    yield Stage(
        "Evaluate joint training beside its controls on held-out subjects",
        f"joint evaluate {cohort} --reference recon/reference --labels seg/tissue --part test --name joint{methods}",
    )


def run_demo(out: Path, *, size: str = "full", dry_run: bool = False) -> None:
    """Run the main job into a folder, printing each command before it runs.

    Parameters
    ----------
    out
        Folder for everything that is made; a second run continues there.
    size
        A key of `SIZES`.
    dry_run
        Print the commands and run nothing; the configurations that they name are written.

    Raises
    ------
    DemoError
        When a package is missing or a command fails; the message names the command to repeat.
    typer.BadParameter
        For an unknown size.
    """
    if size not in SIZES:
        raise typer.BadParameter(f"expected one of {', '.join(SIZES)}, got {size!r}.", param_hint="--size")
    plan = list(stages(out, SIZES[size]))
    if dry_run:
        _write_configs(out / "configs")  # which the printed commands name
        for stage in plan:
            typer.echo(str(stage))
        return
    absent = [m for m in ("mri_io", "mri_recon", "mri_seg", "mri_joint", "nilearn", "jinja2") if find_spec(m) is None]
    if absent:
        raise DemoError(f"the demonstration needs {', '.join(absent)}. Install all of it: pip install 'mri-cli[all]'")
    _write_configs(out / "configs")
    begin = time.monotonic()
    for number, stage in enumerate(plan, start=1):
        typer.secho(f"\n[{number}/{len(plan)}] {stage.title}", bold=True)
        typer.secho(f"$ {stage}", fg="cyan")
        start = time.monotonic()
        _run(stage, number)
        typer.echo(f"  {time.monotonic() - start:.0f} s, {time.monotonic() - begin:.0f} s in all")
    for line in outcome(out / "cohort"):
        typer.echo(line)
    typer.secho(f"\nReport: {out / 'report.html'}", bold=True)


def _run(stage: Stage, number: int) -> None:
    """Run a stage as the command line would; DemoError when it fails."""
    from mri_cli.__main__ import app

    try:
        app(shlex.split(stage.command), prog_name="mri-cli")
    except SystemExit as end:
        problem = f"status {end.code}" if end.code else ""
    except Exception as error:
        if not isinstance(getattr(error, "exit_code", None), int):
            raise
        problem = str(error)
    else:
        problem = ""
    sys.stdout.flush()
    if problem:
        raise DemoError(f"stage {number}: {problem}. To repeat it alone: {stage}")


def _write_configs(folder: Path) -> None:
    """Lay the run configurations where the printed commands name them; a user's edits are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in files("mri_cli").joinpath("demo_configs").iterdir():
        target = folder / source.name
        if source.name.endswith(".yaml") and not target.exists():
            target.write_bytes(source.read_bytes())


def outcome(cohort: Path) -> list[str]:
    """Compare the evaluations with what the main job is expected to reach, one line each.

    The expectations: the VarNet at least 5 dB above zero-filled and not below CG-SENSE; Dice on fully
    sampled images at least 0.92; joint fine-tuning raises the Dice by at least 0.04 and lowers the PSNR by at
    most 0.3 dB.
    """
    psnr = _means(cohort, "reconstruction", "psnr")
    dice = _means(cohort, "segmentation", "dice")
    joint_psnr, joint_dice = _means(cohort, "joint", "psnr"), _means(cohort, "joint", "dice")
    varnet, zero_filled, cg = (psnr[f"recon/{m}-r4"] for m in ("varnet", "zero-filled", "cg-sense"))
    full = dice["seg/unet-reference"]
    gain = joint_dice["joint"] - joint_dice["before"]
    loss = joint_psnr["before"] - joint_psnr["joint"]
    control = joint_dice["segmenter-only"] - joint_dice["before"]
    rows = [
        (
            f"VarNet above zero-filled: {varnet - zero_filled:+.2f} dB (at least +5)",
            varnet - zero_filled >= 5,
        ),
        (f"VarNet above CG-SENSE: {varnet - cg:+.2f} dB (at least 0)", varnet >= cg),
        (f"Dice on fully sampled images: {full:.3f} (at least 0.92)", full >= 0.92),
        (f"Dice gained by joint fine-tuning: {gain:+.3f} (at least +0.04)", gain >= 0.04),
        (f"PSNR given up by joint fine-tuning: {loss:+.2f} dB (at most 0.3)", loss <= 0.3),
    ]
    lines = ["", "On held-out subjects:"]
    lines += [f"  {'reached' if reached else 'MISSED '}  {text}" for text, reached in rows]
    lines.append(f"  beside it  Dice gained by fine-tuning the segmenter alone: {control:+.3f}")
    return lines


def _means(cohort: Path, evaluation: str, metric: str) -> dict[str, float]:
    """Return {method: mean over volumes} of one metric of a stored evaluation."""
    content: dict[str, Any] = json.loads((cohort / "evaluations" / f"{evaluation}.json").read_text())
    return {method: values[metric]["mean"] for method, values in content["summary"].items()}
