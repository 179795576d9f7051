"""Progress with rate and time left: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_report"]

LINE_EVERY_S = 15.0

Advance = Callable[[str, bool], None]


@contextmanager
def progress_report(total: int, description: str, *, shown: bool = True) -> Iterator[Advance]:
    """Yield a function to call with the name of each finished item and whether it failed."""
    if not shown:
        yield lambda name, failed: None
    elif sys.stderr.isatty():
        yield from _bar(total, description)
    else:
        yield _lines(total, description)


def _bar(total: int, description: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    start, done, failures = time.monotonic(), 0, 0
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total, rate="", failed="")

        def advance(name: str, failed: bool) -> None:
            nonlocal done, failures
            done, failures = done + 1, failures + failed
            rate = f"{done / max(time.monotonic() - start, 1e-9):.2f}/s"
            progress.update(task, advance=1, rate=rate, failed=f"[red]{failures} failed" if failures else "")

        yield advance


def _lines(total: int, description: str) -> Advance:
    start = last = time.monotonic()
    done = failures = 0

    def advance(name: str, failed: bool) -> None:
        nonlocal done, failures, last
        done, failures = done + 1, failures + failed
        now = time.monotonic()
        if now - last < LINE_EVERY_S or done == total:
            return
        last = now
        rate = done / (now - start)
        left = (total - done) / rate
        text = f"{description}: {done}/{total}, {rate:.2f}/s, {left:.0f} s left"
        sys.stderr.write(text + (f", {failures} failed" if failures else "") + "\n")
        sys.stderr.flush()

    return advance
