"""Draw docs/images/noncartesian.png: a phantom's closed-form k-space along spokes and spirals, and its images."""

import argparse
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch

from mri_recon.classical.cg_sense import conjugate_gradient
from mri_recon.physics.density import iterative_density
from mri_recon.physics.noncartesian import NonCartesianSense
from mri_recon.physics.trajectories import radial, spiral
from mri_recon.testing.analytic import ellipse_kspace

SHAPE = (96, 96)
ELLIPSES = (  # height, radii, centre
    (1.0, (0.42, 0.32), (0.0, 0.0)),
    (-0.7, (0.39, 0.29), (0.0, 0.0)),
    (0.4, (0.14, 0.07), (-0.06, -0.11)),
    (0.3, (0.17, 0.08), (-0.05, 0.11)),
    (0.5, (0.05, 0.05), (0.2, 0.0)),
)


def draw(path: Path) -> None:
    """Write the picture."""
    matplotlib.use("Agg")
    maps = torch.ones((1, 1, *SHAPE), dtype=torch.complex128)
    trajectories = {"48 golden-angle spokes": radial(48, 192, 96, golden=True), "16 spirals": spiral(16, 700, 96)}
    figure, axes = plt.subplots(2, 4, figsize=(9, 4.8), layout="constrained")
    for row, (name, trajectory) in zip(axes, trajectories.items(), strict=True):
        operator = NonCartesianSense(maps, trajectory)
        samples = sum(h * ellipse_kspace(trajectory, SHAPE, radii, at) for h, radii, at in ELLIPSES)
        assert isinstance(samples, torch.Tensor)
        plain = operator.adjoint(samples[None])
        weighted = operator.adjoint((iterative_density(trajectory, SHAPE) * samples)[None])
        solved, _, _ = conjugate_gradient(operator, plain, 0.02, 30, 1e-6)
        row[0].plot(*trajectory[::4].flip(-1).unbind(-1), ".", markersize=0.6, color="black")
        for line in trajectory[::4]:
            row[0].plot(line[:, 1], line[:, 0], linewidth=0.5, color="tab:blue")
        row[0].set(aspect="equal", title=name, xticks=[-48, 0, 48], yticks=[-48, 0, 48])
        titles = ("adjoint", "weighted adjoint", "conjugate gradients")
        for axis, title, image in zip(row[1:], titles, (plain, weighted, solved), strict=True):
            shown = image[0].abs()
            top = None if title == "adjoint" else 1.05
            axis.imshow(shown, cmap="gray", vmin=0, vmax=top)
            axis.set(title=title, xticks=[], yticks=[])
    figure.savefig(path, dpi=64)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images/noncartesian.png"))
    draw(parser.parse_args().out)
