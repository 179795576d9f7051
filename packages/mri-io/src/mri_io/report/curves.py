"""Read the training curves of the runs in a cohort."""

import csv
import math
from pathlib import Path

__all__ = ["read_curves"]

Curves = dict[str, list[tuple[float, float]]]


def read_curves(runs: Path) -> dict[str, Curves]:
    """Return ``{run: {metric: [(step, value), ...]}}`` of every ``<run>/metrics.csv``; empty cells are passed over."""
    found: dict[str, Curves] = {}
    for path in sorted(runs.glob("*/metrics.csv")):
        curves: Curves = {}
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            for row in csv.DictReader(file):
                step = _number(row.get("step"))
                for name, cell in row.items():
                    # Cells beyond the header's, as a torn line may have, come without a name.
                    value = _number(cell) if name is not None and "/" in name else None
                    if step is not None and value is not None:
                        curves.setdefault(name, []).append((step, value))
        if curves:
            found[path.parent.name] = curves
    return found


def _number(cell: str | None) -> float | None:
    try:
        value = float(cell or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
