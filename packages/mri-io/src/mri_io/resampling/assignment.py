"""Give voxels to structures by score, so that each structure gets as many as it should."""

from collections.abc import Mapping

import numpy as np

__all__ = ["assign"]

ROUNDS = 40
_GOLDEN = 0.6180339887498949
_JITTER = 1e-5


def assign(labels: np.ndarray, scores: np.ndarray, wanted: Mapping[int, int]) -> np.ndarray:
    """Return the label of each voxel, maximising the sum of scores under the wanted numbers of voxels.

    That is a transport problem; its dual has one bias per label, and a voxel goes to the label of the largest score
    plus bias. The biases are found label after label, each exactly, the others held, until the numbers are met or
    nothing changes. Scores that are equal, as symmetric shapes have them, are told apart by position.

    Parameters
    ----------
    labels
        The labels that compete for each voxel, (voxel, rank) integers, by falling score. 0 is background.
    scores
        Their scores, 0 to 1, (voxel, rank); -inf where there are fewer.
    wanted
        Voxels for each label but the background, which gets the rest.

    Returns
    -------
    numpy.ndarray
        (voxel,), of the dtype of `labels`.
    """
    names, competing = np.unique(labels, return_inverse=True)
    competing = competing.reshape(labels.shape)
    competing = np.where(np.isfinite(scores), competing, len(names))  # a place for what is not there
    values = scores.astype(np.float64)
    values[:, 0] += _JITTER * (np.arange(len(values)) * _GOLDEN % 1)
    biases = np.zeros(len(names) + 1)
    places = [np.argwhere(competing == number) for number in range(len(names))]
    for _ in range(ROUNDS):
        changed = False
        for number, name in enumerate(names):
            if int(name) != 0:
                changed |= _adjust(number, wanted.get(int(name), 0), competing, values, biases, places[number])
        if not changed:
            break
    best = np.argmax(values + biases[competing], axis=1)
    return np.take_along_axis(labels, best[:, None], axis=1)[:, 0]


def _adjust(
    number: int,
    wanted: int,
    competing: np.ndarray,
    values: np.ndarray,
    biases: np.ndarray,
    places: np.ndarray,
) -> bool:
    """Set the bias with which a label gets the voxels that it wants, given the others'; whether it changed."""
    voxels, ranks = places.T
    rivals = values[voxels] + biases[competing[voxels]]
    rivals[np.arange(len(voxels)), ranks] = -np.inf
    lead = values[voxels, ranks] - rivals.max(axis=1)
    if int((lead + biases[number] > 0).sum()) == wanted or not lead.size:
        return False
    wanted = min(wanted, lead.size)
    ordered = np.sort(lead)[::-1]
    upper = ordered[wanted - 1] if wanted else ordered[0] + 1
    lower = ordered[wanted] if wanted < lead.size else ordered[-1] - 1
    bias = -(upper + lower) / 2
    changed = bool(bias != biases[number])
    biases[number] = bias
    return changed
