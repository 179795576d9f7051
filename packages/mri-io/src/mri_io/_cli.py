"""The data commands of ``mri-cli``."""

from pathlib import Path
from typing import Annotated

import typer

from mri_io import options

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def convert(
    sources: Annotated[
        list[str] | None, typer.Argument(help="Files or folders; the last argument is the cohort.")
    ] = None,
    cohort: Annotated[str | None, typer.Argument(help="Folder or URL of the cohort; made when there is none.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Folder of label maps STEM_NAME.nii.gz.")] = None,
    scheduler: options.Scheduler = "sync",
    format: Annotated[
        str, typer.Option(help="Name of a reader; auto finds it from the content, list prints all.")
    ] = "auto",
    axes: Annotated[
        str | None, typer.Option(help="Dimensions of arrays in .npy and .mat files, first to last, e.g. coil,ky,kx.")
    ] = None,
    variable: Annotated[str | None, typer.Option(help="Array to take of a file that holds several.")] = None,
    oversampling: Annotated[str, typer.Option(help="Of the readout: remove or keep.")] = "remove",
    noise: Annotated[str, typer.Option(help="Noise scans: keep as they are, or prewhiten the coils, too.")] = "keep",
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Discard results of volumes whose source changed, and convert those anew; check the others, and make "
            "their damaged elements again.",
        ),
    ] = False,
) -> None:
    """Convert raw and image files into volumes of a cohort; continues where it was interrupted."""
    if format == "list":
        from mri_io.describe import print_formats

        print_formats()
        return
    if not sources or cohort is None:
        raise typer.BadParameter("expected SOURCES... COHORT, e.g. mri-cli convert scans/ cohort")
    from mri_io.config import validate_config
    from mri_io.convert import convert as convert_files
    from mri_io.formats import ReadOptions

    names = None if axes is None else tuple(name.strip() for name in axes.split(","))
    chosen = {"axes": names, "variable": variable, "oversampling": oversampling, "noise": noise}
    options = validate_config(ReadOptions, chosen, where="convert")
    summary = convert_files(
        sources, cohort, labels=labels, scheduler=scheduler, format=format, options=options, replace=replace
    )
    typer.echo(summary)
    raise typer.Exit(0 if summary.ok else 1)


def prep(
    cohort: Annotated[str, typer.Argument(help="Folder or URL of the cohort; list alone prints all steps.")],
    step: Annotated[str | None, typer.Argument(help="Name of the step.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Option of the step: key=value; repeat.")] = None,
    volume: options.Volumes = None,
    split: options.PartSplit = None,
    part: options.Part = None,
    scheduler: options.Scheduler = "sync",
    cache: options.Cache = None,
) -> None:
    """Run a preparation step of an installed package on the volumes of a cohort; continues where it was interrupted."""
    from mri_io.config import load_config
    from mri_io.prep import get_step, run_step

    if step is None:
        if cohort != "list":
            raise typer.BadParameter("expected COHORT STEP, or list")
        from mri_io.describe import print_steps

        print_steps()
        return
    options = load_config(get_step(step).options, None, set_ or ())
    summary = run_step(cohort, step, options, volumes=volume, split=split, part=part, scheduler=scheduler)
    typer.echo(summary)
    raise typer.Exit(0 if summary.ok else 1)


def migrate(
    cohort: options.Cohort,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List only.")] = False,
) -> None:
    """Bring metadata that older releases wrote to the present version of the store; data are not touched."""
    from mri_io.store import migrate as migrate_cohort

    report = migrate_cohort(cohort, dry_run=dry_run)
    for change in report.changes:
        typer.echo(change)
    typer.echo(report)


def ls(cohort: options.Cohort, as_json: Json = False) -> None:
    """List the volumes of a cohort with their elements."""
    from mri_io.describe import list_volumes, print_json, print_listing

    rows = list_volumes(cohort)
    (print_json if as_json else print_listing)(rows)


def info(
    path: Annotated[str, typer.Argument(help="Folder or URL of a cohort, or of a volume.")],
    volume: Annotated[str | None, typer.Option(help="Id of one volume of the cohort.")] = None,
    as_json: Json = False,
) -> None:
    """Describe a cohort or a volume: shapes, voxel sizes, labels, bytes, provenance."""
    from mri_io.describe import describe, print_description, print_json

    content = describe(path, volume)
    (print_json if as_json else print_description)(content)


def verify(
    path: Annotated[str, typer.Argument(help="Folder or URL of a cohort, or of a volume.")],
    fast: Annotated[bool, typer.Option("--fast", help="Check metadata, sizes and shard indices only.")] = False,
    scheduler: options.Scheduler = "sync",
) -> None:
    """Check that everything committed is whole; every byte, unless --fast."""
    from mri_io.describe import verify_with_progress
    from mri_io.prep.summary import counted

    report = verify_with_progress(path, fast=fast, scheduler=scheduler)
    for problem in report.problems:
        typer.echo(f"{problem.kind}: {problem.volume} {problem.element}: {problem.message}", err=True)
    for volume, error in report.unchecked.items():
        typer.echo(f"not checked: {volume}: {error}", err=True)
    if report.orphans:
        orphans = counted(len(report.orphans), "orphan")
        typer.echo(f"{orphans} of interrupted writers, invisible to readers: mri-cli gc {path}")
    for kind, number in sorted(report.unknown.items()):
        some = f"{counted(number, 'element')} of the type {kind!r} {'is' if number == 1 else 'are'} not checked"
        typer.echo(f"{some}: no installed package knows it")
    typer.echo(
        f"{counted(report.volumes, 'volume')}, {counted(report.elements, 'element')}, {report.bytes / 1e6:.1f} MB: "
        + ("all whole" if report.ok else counted(len(report.problems), "problem"))
        + (f", {counted(len(report.unchecked), 'volume')} not checked" if report.unchecked else "")
    )
    raise typer.Exit(0 if report.ok else 1)


def gc(
    cohort: options.Cohort,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List only.")] = False,
    failures: Annotated[
        str | None,
        typer.Option(help="In place of that: remove the recorded failures of a stage, as `mri-cli info` names it."),
    ] = None,
) -> None:
    """Remove what killed writers left behind, or failures of work that will not be done again."""
    from mri_io.store import collect_garbage, open_cohort

    if failures is not None:
        from mri_io.describe import clear_failures

        clear_failures(open_cohort(cohort), failures, dry_run=dry_run)
        return
    removed = collect_garbage(open_cohort(cohort), dry_run=dry_run)
    for folder in removed:
        typer.echo(folder)
    typer.echo(f"{len(removed)} {'would be ' if dry_run else ''}removed")


def remove(
    cohort: options.Cohort,
    volume: Annotated[str, typer.Argument(help="Id of the volume.")],
    element: Annotated[str | None, typer.Argument(help="Element to remove, e.g. recon/cg [the whole volume].")] = None,
) -> None:
    """Remove a volume or an element, at once and without asking; what was computed from it stays, and is named."""
    from mri_io.describe import print_removal
    from mri_io.store import open_cohort
    from mri_io.store import remove as remove_from

    print_removal(remove_from(open_cohort(cohort), volume, element))


def index(cohort: options.Cohort) -> None:
    """Rebuild the index of a cohort, index.jsonl."""
    from mri_io.store import build_index, open_cohort

    typer.echo(f"{len(build_index(open_cohort(cohort)))} volumes indexed")


def split(
    cohort: options.Cohort,
    train: Annotated[float, typer.Option(help="Share of subjects (below 1) or their number.")] = 0.8,
    val: Annotated[float, typer.Option(help="Share or number of subjects for validation.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share or number of subjects for testing.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of the shuffle.")] = 0,
    name: options.Split = "default",
) -> None:
    """Divide the subjects of a cohort into train, val and test."""
    from mri_io.describe import split_sizes
    from mri_io.store import make_split, open_cohort

    opened = open_cohort(cohort)
    made = make_split(opened, name, seed=seed, **split_sizes(train, val, test))
    opened.write_split(made)
    typer.echo(f"{name}: {len(made.train)} train, {len(made.val)} val, {len(made.test)} test subjects")
    wanted = {"train": train, "val": val, "test": test}
    empty = [part for part, share in wanted.items() if share and not getattr(made, part)]
    if empty:
        typer.echo(
            f"warning: too few subjects for the share of {' and '.join(empty)}; give numbers, e.g. --train 2 --val 1 "
            "--test 1",
            err=True,
        )


def stats(
    cohort: options.Cohort,
    elements: Annotated[
        list[str] | None,
        typer.Option("--element", help="Element; repeat for several [all images and reconstructions]."),
    ] = None,
    split: Annotated[str, typer.Option(help="Name of the split; its training part is used.")] = "default",
    scheduler: options.Scheduler = "sync",
    cache: options.Cache = None,
) -> None:
    """Compute intensity statistics over the training part of a split."""
    from mri_io.describe import image_elements, print_statistics
    from mri_io.prep.statistics import cohort_statistics
    from mri_io.store import open_cohort

    opened = open_cohort(cohort)
    found = cohort_statistics(opened, elements or image_elements(opened, split), split=split, scheduler=scheduler)
    print_statistics(found)


def export(
    cohort: Annotated[str | None, typer.Argument(help="Folder or URL of the cohort.")] = None,
    element: Annotated[str | None, typer.Argument(help="Element, e.g. recon/cg-sense-r4.")] = None,
    out: Annotated[Path | None, typer.Argument(help="Folder for the files.")] = None,
    format: Annotated[str, typer.Option(help="Name of an exporter; list prints all with their options.")] = "nifti",
    part: Annotated[
        str | None,
        typer.Option(help="Of complex images: magnitude, phase, real, imag or complex [magnitude; for bart complex]."),
    ] = None,
    volume: options.Volumes = None,
    subjects: Annotated[
        str | None, typer.Option(help="train, val or test: only that part of the split [all volumes].")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Name of the split.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Label map to write with the element, seg/NAME; repeat for several.")
    ] = None,
    channel: Annotated[
        list[str] | None, typer.Option(help="Further image on the element's grid; repeat for several.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Name of the data set that is written.")] = None,
    levels: Annotated[int | None, typer.Option(help="Number of resolutions.")] = None,
    source: Annotated[
        Path | None, typer.Option(help="Folder of the files that the volumes were converted from.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite files that exist.")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Keep files that exist, and write those that are missing.")
    ] = False,
    scheduler: options.Scheduler = "sync",
    cache: options.Cache = None,
) -> None:
    """Write an element of the volumes as files for other tools: NIfTI, PNG, BART, ..."""
    if format == "list":
        from mri_io.describe import print_exporters

        print_exporters()
        return
    if cohort is None or element is None or out is None:
        raise typer.BadParameter("expected COHORT ELEMENT OUT, e.g. mri-cli export cohort image/t1 out")
    from mri_io.export import export_cohort
    from mri_io.prep.summary import counted
    from mri_io.store import open_cohort

    summary = export_cohort(
        open_cohort(cohort),
        element,
        out,
        format,
        volumes=volume,
        subjects=subjects,
        replace=replace,
        skip_existing=skip_existing,
        scheduler=scheduler,
        part=part,
        split=split,
        labels=label,
        channels=channel,
        dataset=dataset,
        levels=levels,
        source=source,
    )
    files = summary.files
    typer.echo(f"{counted(len(files), 'folder' if files and files[0].is_dir() else 'file')} in {out}")
    if summary.failures or summary.count("skipped"):
        typer.echo(summary)
    raise typer.Exit(0 if summary.ok else 1)


def resample(
    cohort: options.Cohort,
    element: Annotated[str, typer.Argument(help="Image, reconstruction, map or label map, e.g. qmap/adc.")],
    to: Annotated[str | None, typer.Option(help="Element of the same volume whose grid is taken.")] = None,
    spacing: Annotated[str | None, typer.Option(help="In place of --to: voxel sizes x,y,slice in mm.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help="Of images bspline, linear or nearest, of label maps label or nearest [bspline; label]."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the result [ELEMENT-to-OTHER].")] = None,
    volume: Annotated[list[str] | None, typer.Option(help="Volume id; repeat for several [all with ELEMENT].")] = None,
    split: options.PartSplit = None,
    part: options.Part = None,
    scheduler: options.Scheduler = "sync",
    replace: options.Replace = False,
    cache: options.Cache = None,
) -> None:
    """Bring an element of every volume to another grid; label maps keep the volume of each structure."""
    from mri_io.resampling import parse_spacing
    from mri_io.resampling import resample as resample_cohort

    summary = resample_cohort(
        cohort,
        element,
        to=to,
        spacing=None if spacing is None else parse_spacing(spacing),
        method=method,
        name=name,
        volumes=volume,
        split=split,
        part=part,
        scheduler=scheduler,
        replace=replace,
    )
    typer.echo(summary)
    raise typer.Exit(0 if summary.ok else 1)


def report(
    cohort: options.Cohort,
    out: Annotated[Path | None, typer.Option(help="The HTML file [COHORT/report.html].")] = None,
    volume: Annotated[list[str] | None, typer.Option(help="Volume to show; repeat for several.")] = None,
    slice: Annotated[int | None, typer.Option(help="Slice to show, counted from 0 [the middle one].")] = None,
    cache: options.Cache = None,
) -> None:
    """Write a self-contained HTML page: images, errors, labels, metrics, curves, provenance."""
    from mri_io.report import write_report
    from mri_io.store import open_cohort
    from mri_io.store.remote.paths import local_place

    place = out or local_place(cohort, "report.html")
    typer.echo(write_report(open_cohort(cohort), place, volumes=volume, slice=slice))


simulate = typer.Typer(help="Make raw files without any download.", no_args_is_help=True)

Out = Annotated[Path, typer.Argument(help="Folder for sub-01.h5 ... and labels/.")]
Subjects = Annotated[int, typer.Option(help="Number of subjects.")]
Slices = Annotated[int, typer.Option(help="Slices of each.")]
Matrix = Annotated[tuple[int, int], typer.Option(help="Rows and columns.")]
Coils = Annotated[int, typer.Option(help="Receive coils.")]
Noise = Annotated[float, typer.Option(help="Standard deviation of the complex noise.")]
Seed = Annotated[int, typer.Option(help="Seed.")]


@simulate.command()
def phantom(
    out: Out,
    subjects: Subjects = 4,
    slices: Slices = 3,
    matrix: Matrix = (128, 128),
    coils: Coils = 8,
    noise: Noise = 0.005,
    seed: Seed = 0,
) -> None:
    """Analytic ellipse phantoms: k-space from the closed form."""
    from mri_io.describe import simulate_with_progress
    from mri_io.simulate import simulate_phantoms

    simulate_with_progress(
        simulate_phantoms, out, subjects=subjects, slices=slices, matrix=matrix, coils=coils, noise=noise, seed=seed
    )


@simulate.command()
def brains(
    out: Out,
    subjects: Subjects = 12,
    slices: Slices = 6,
    matrix: Matrix = (192, 160),
    coils: Coils = 8,
    noise: Noise = 0.015,
    seed: Seed = 0,
) -> None:
    """Heads from real anatomy (the MNI152 template that nilearn carries)."""
    from mri_io.describe import simulate_with_progress
    from mri_io.simulate import simulate_brains

    simulate_with_progress(
        simulate_brains, out, subjects=subjects, slices=slices, matrix=matrix, coils=coils, noise=noise, seed=seed
    )
