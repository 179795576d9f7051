r"""The coil operator in two and three dimensions, for one or several map sets.

.. math:: (S x)_c = \sum_m s_{m c} x_m, \qquad (S^H y)_m = \sum_c \overline{s_{m c}} y_c
"""

from torch import Tensor

from mri_recon.errors import ShapeError
from mri_recon.physics.operators.base import LinearOperator

__all__ = ["CoilOperator"]


class CoilOperator(LinearOperator):
    """Coil images of one image per map set, and the matched-filter combination.

    Frames or echoes are batch dimensions of the images; maps without them serve all.

    Parameters
    ----------
    maps
        (..., map, coil, y, x), or (..., map, coil, z, y, x), complex.
    spatial
        Number of spatial dimensions, 2 or 3 (or any).

    Raises
    ------
    ShapeError
        When the maps are not complex or have too few dimensions.
    """

    def __init__(self, maps: Tensor, *, spatial: int = 2) -> None:
        if spatial < 1 or maps.ndim < spatial + 2 or not maps.is_complex():
            expected = ", ".join(("...", "map", "coil", *("z", "y", "x")[-spatial:]))
            raise ShapeError(f"maps: expected complex ({expected}), got {maps.dtype} {tuple(maps.shape)}.")
        self.maps, self.spatial = maps, spatial
        self.coil_dim, self.map_dim = -spatial - 1, -spatial - 2

    def forward(self, x: Tensor) -> Tensor:
        """Return coil images (..., coil, y, x) of images (..., map, y, x)."""
        sets = self.maps.unbind(self.map_dim)
        images = x.unbind(self.coil_dim)
        result = sets[0] * images[0].unsqueeze(self.coil_dim)
        for maps, image in zip(sets[1:], images[1:], strict=True):
            result = result + maps * image.unsqueeze(self.coil_dim)
        return result

    def adjoint(self, y: Tensor) -> Tensor:
        """Return images (..., map, y, x) of coil images (..., coil, y, x)."""
        return (self.maps.conj() * y.unsqueeze(self.map_dim)).sum(dim=self.coil_dim)
