"""Pictures of the report, drawn with matplotlib's object interface and returned as PNG bytes."""

import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["LABEL_COLOURS", "comparison_figure", "curves_figure", "png_bytes"]

# Okabe and Ito's colours, which colour-blind readers can tell apart.
LABEL_COLOURS = ("#009E73", "#E69F00", "#56B4E9", "#D55E00", "#CC79A7", "#F0E442")
ERROR_SCALE = 0.1
"""Top of the error maps' scale, relative to the maximum of the reference."""


def png_bytes(figure: Any) -> bytes:
    """Return a figure as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # names in any script are welcome
        FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def comparison_figure(
    images: Mapping[str, np.ndarray],
    reference: str | None,
    labels: Mapping[str, np.ndarray | None],
    notes: Mapping[str, str],
) -> Any:
    """Draw methods side by side: image, error against the reference, label overlay.

    Parameters
    ----------
    images
        Magnitudes (y, x) by method, in one unit; the first row.
    reference
        Key of the reference among `images`; None leaves the error row out.
    labels
        Label map (y, x) to lay over each method's image, or None.
    notes
        Text below each title, e.g. the PSNR.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    rows = ["image"]
    if reference is not None and len(images) > 1:
        rows.append("error")
    if any(value is not None for value in labels.values()):
        rows.append("labels")
    first = next(iter(images.values()))
    aspect = first.shape[0] / first.shape[1]
    width = 2.0
    titles = {method: f"{textwrap.fill(method, 24)}\n{notes.get(method, '')}" for method in images}
    margin = 0.17 + 0.125 * max(title.count("\n") + 1 for title in titles.values())
    figure = Figure(figsize=(width * len(images), (width * aspect) * len(rows) + margin + 0.03), dpi=110)
    axes = figure.subplots(len(rows), len(images), squeeze=False)
    base = images[reference] if reference is not None else first
    top = float(np.percentile(base, 99.7)) or 1.0
    peak = float(base.max()) or 1.0
    colours = ListedColormap(["none", *LABEL_COLOURS])
    for column, (method, image) in enumerate(images.items()):
        axes[0, column].set_title(titles[method], fontsize=7)
        for row, kind in enumerate(rows):
            axis = axes[row, column]
            axis.set_axis_off()
            if kind == "error":
                if method == reference:
                    axis.text(0.5, 0.5, f"|error|\n0 .. {ERROR_SCALE:.0%}\nof the maximum", ha="center", va="center")
                    axis.texts[-1].set_fontsize(7)
                    axis.texts[-1].set_transform(axis.transAxes)
                    continue
                axis.imshow(np.abs(image - base) / peak, cmap="inferno", vmin=0, vmax=ERROR_SCALE)
                continue
            axis.imshow(image, cmap="gray", vmin=0, vmax=top)
            overlay = labels.get(method)
            if kind == "labels" and overlay is not None:
                limited = np.where(overlay > 0, 1 + (overlay - 1) % len(LABEL_COLOURS), 0)
                axis.imshow(limited, cmap=colours, vmin=0, vmax=len(LABEL_COLOURS), alpha=0.5, interpolation="nearest")
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.005, top=1 - margin / figure.get_figheight(), wspace=0.03)
    figure.subplots_adjust(hspace=0.03)
    return figure


def curves_figure(runs: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> Any:
    """Draw training curves, one panel per metric, one line per run.

    Parameters
    ----------
    runs
        ``{run: {metric: [(step, value), ...]}}``; ``train/loss`` and ``val/loss`` share a panel per run's metric name.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    metrics = sorted({metric for curves in runs.values() for metric in curves})
    columns = min(3, max(len(metrics), 1))
    rows = -(-len(metrics) // columns) if metrics else 1
    figure = Figure(figsize=(4.2 * columns, 2.7 * rows), dpi=100, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, metric in zip(axes, metrics, strict=False):
        lines = {}
        for number, (run, curves) in enumerate(runs.items()):
            points = curves.get(metric)
            if points:
                steps, values = zip(*points, strict=True)
                style = {"marker": "o", "markersize": 3} if len(points) < 30 else {"linewidth": 1}
                lines[run] = axis.plot(steps, values, color=f"C{number}", **style)[0]
        axis.set_title(metric, fontsize=9, parse_math=False)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        legend = axis.legend(lines.values(), lines.keys(), fontsize=7)
        for text in legend.get_texts():  # a name with a dollar is no formula
            text.set_parse_math(False)
    for axis in axes[len(metrics) :]:
        axis.set_axis_off()
    return figure
