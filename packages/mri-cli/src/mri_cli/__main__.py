"""Entry point of the ``mri-cli`` command, also ``python -m mri_cli``."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mri_cli.host import CommandHost

__all__ = ["main"]

app = typer.Typer(
    cls=CommandHost,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_versions(value: bool) -> None:
    if not value:
        return
    from importlib.metadata import PackageNotFoundError, version

    for package in ("mri-cli", "mri-io", "mri-recon", "mri-seg", "mri-joint"):
        try:
            typer.echo(f"{package} {version(package)}")
        except PackageNotFoundError:
            typer.echo(f"{package} not installed")
    raise typer.Exit


@app.callback(no_args_is_help=True)
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_versions, is_eager=True, help="Print versions and exit."),
    ] = False,
) -> None:
    """From raw MRI data to segmented images: convert, reconstruct, train, segment, evaluate."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demonstration makes.")] = Path("demo-output"),
    size: Annotated[
        str,
        typer.Option(help="'full' (about ten minutes on two cores) or 'tiny' (the same steps, too short to learn)."),
    ] = "full",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the commands (and write the configurations they name), run nothing."),
    ] = False,
) -> None:
    """Run the main job from raw files to a report, printing every command."""
    from mri_cli.demo import run_demo

    run_demo(out, size=size, dry_run=dry_run)


def main() -> None:
    """Run the command line; an error made on purpose becomes one line and its exit status.

    Every error of the packages carries ``exit_code`` (1 failed, 2 wrong use, 3 something to install).
    """
    # Threads of GNU OpenMP wait by spinning, by default so long that training slows tenfold when anything else runs
    # on the same cores. Torch's library reads this when it is loaded; a user's own choice stands.
    os.environ.setdefault("GOMP_SPINCOUNT", "50000")
    try:
        app()
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except ModuleNotFoundError as error:
        if "--debug" in sys.argv:
            raise
        fix = "" if getattr(error, "exit_code", None) else f" Install it: pip install {error.name}"
        typer.echo(f"error: {error}.{fix}" if fix else f"error: {error}", err=True)
        sys.exit(3)
    except Exception as error:
        status = getattr(error, "exit_code", None)
        if not isinstance(status, int) or "--debug" in sys.argv:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(status)


if __name__ == "__main__":
    main()
