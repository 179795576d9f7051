"""Find the commands of whatever is installed, and load one only when it is invoked.

A distribution offers a command through the entry-point group ``mri_cli.commands``: the name is the command's
name, the value a function, a ``typer.Typer`` or a Typer command. The module behind it must import typer and
the standard library only, so that help stays quick; heavy imports belong inside the command's body.
"""

import re
from collections import Counter
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["GROUP", "CommandHost", "UnavailableCommandError"]

GROUP = "mri_cli.commands"

# Commands of the project's own packages, for the hint when the package is absent.
HOMES = {
    **dict.fromkeys(
        [
            "convert",
            "export",
            "gc",
            "index",
            "info",
            "ls",
            "migrate",
            "prep",
            "remove",
            "report",
            "resample",
            "simulate",
            "split",
            "stats",
            "verify",
        ],
        "mri-io",
    ),
    "recon": "mri-recon",
    "seg": "mri-seg",
    "joint": "mri-joint",
}


class UnavailableCommandError(Exception):
    """A command exists but cannot be loaded, or the package that has it is not installed."""

    exit_code = 3


class CommandHost(TyperGroup):
    """A command group whose members are the installed entry points."""

    @cached_property
    def _found(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=GROUP)}

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the installed commands, sorted."""
        return sorted({*super().list_commands(ctx), *self._found})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a stub with the command's help; `resolve_command` loads the real one."""
        entry = self._found.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        return TyperCommand(cmd_name, help=self._summary(entry), add_help_option=False)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Load the entry point that the first argument names."""
        name = args[0] if args else ""
        entry = self._found.get(name)
        if entry is not None:
            return name, _load(entry), args[1:]
        if name in HOMES:
            raise UnavailableCommandError(
                f"the command {name!r} is part of the package {HOMES[name]}, which is not installed. "
                f"Install it: pip install {HOMES[name]}"
            )
        return super().resolve_command(ctx, args)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """List the commands that other packages of the project would add."""
        absent: dict[str, list[str]] = {}
        for name, package in HOMES.items():
            if name not in self._found:
                absent.setdefault(package, []).append(name)
        if absent:
            with formatter.section("Not installed"):
                formatter.write_dl(
                    [(f"pip install {package}", "adds " + ", ".join(names)) for package, names in absent.items()]
                )
        super().format_epilog(ctx, formatter)

    @cached_property
    def _commands_per_distribution(self) -> Counter[str]:
        return Counter(_distribution(entry) for entry in self._found.values())

    def _summary(self, entry: EntryPoint) -> str:
        """Return the distribution's summary, or the command's own help where a distribution has several."""
        summary = entry.dist.metadata["Summary"] if entry.dist else None
        if summary and self._commands_per_distribution[_distribution(entry)] == 1:
            return summary
        try:
            command = _load(entry)
        except UnavailableCommandError as error:
            return f"(unavailable: {error})"
        return command.help or summary or ""


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.module


def _load(entry: EntryPoint) -> Any:
    """Import an entry point and return it as a Typer command of that name."""
    try:
        loaded = entry.load()
    except ImportError as error:
        raise UnavailableCommandError(
            f"the command {entry.name!r} of {_distribution(entry)} cannot be loaded: {error}. "
            f"Reinstall it: pip install --force-reinstall {_distribution(entry)}"
        ) from error
    if isinstance(loaded, TyperCommand | TyperGroup):
        return loaded
    if not isinstance(loaded, typer.Typer):
        function, loaded = loaded, typer.Typer(add_completion=False)
        loaded.command(entry.name)(function)
    loaded._add_completion = False
    command = typer.main.get_command(loaded)
    command.name = entry.name
    _show_brackets(command)
    return command


def _show_brackets(command: Any) -> None:
    """Have the help of a command and its subcommands show words in brackets, which rich would take for its markup."""
    for owner in (command, *command.params):
        if getattr(owner, "help", None):
            owner.help = re.sub(r"(?<!\\)\[(?=[a-z#/@])", r"\\[", owner.help)
    for member in getattr(command, "commands", {}).values():
        _show_brackets(member)
