"""Give voxels to structures by score, so that each structure gets as many as it should."""

import heapq
from collections.abc import Mapping

import numpy as np

__all__ = ["assign"]

ROUNDS = 40
"""So often the biases of all labels are adjusted, before what is left is moved voxel by voxel."""
_GOLDEN = 0.6180339887498949
_JITTER = 1e-5


def assign(labels: np.ndarray, scores: np.ndarray, counts: np.ndarray, wanted: Mapping[int, int]) -> np.ndarray:
    """Return the label of each voxel, maximising the sum of scores under the wanted numbers of voxels.

    That is a transport problem; its dual has one bias per label, and a voxel goes to the label of the largest score
    plus bias. The biases are found label after label, each exactly, the others held. What is then still missing moves
    voxel by voxel along the cheapest chains of labels, which keeps the sum the largest (successive shortest paths;
    Ahuja, Magnanti, Orlin, Network Flows, 1993, section 9.7), until the numbers are met or no chain leads from a label
    with too many voxels to one with too few. Scores that are equal, as symmetric shapes have them, are told apart by
    position.

    Parameters
    ----------
    labels
        The labels that compete for the voxels, integers, voxel after voxel, of each by falling score. 0 is background.
    scores
        Their scores, 0 to 1.
    counts
        How many labels compete for each voxel, at least one.
    wanted
        Voxels for each label but the background, which gets the rest.

    Returns
    -------
    numpy.ndarray
        (voxel,), of the dtype of `labels`.
    """
    problem = _Transport(labels, scores, counts, wanted)
    problem.adjust()
    return labels[problem.repaired()]


class _Transport:
    """Voxels, the labels that compete for them, and how many voxels each label is to have."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray, counts: np.ndarray, wanted: Mapping[int, int]) -> None:
        names = np.flatnonzero(np.bincount(labels))
        number = np.zeros(int(names[-1]) + 1, np.uint16)
        number[names] = np.arange(len(names))
        self.competing = number[labels]
        self.counts = counts.astype(np.int32)
        self.starts = np.cumsum(counts, dtype=np.int64) - counts
        self.owners = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self.totals = scores.astype(np.float64)  # scores plus biases
        self.totals[self.starts] += _JITTER * (np.arange(len(counts)) * _GOLDEN % 1)
        self.names = [int(name) for name in names]
        self.wanted = np.array([wanted.get(name, 0) if name else 0 for name in self.names], dtype=np.int64)
        self.background = self.names.index(0) if 0 in self.names else None
        if self.background is not None:
            self.wanted[self.background] = len(counts) - self.wanted.sum()
        order = np.argsort(self.competing, kind="stable").astype(np.int32)
        ends = np.cumsum(np.bincount(self.competing, minlength=len(names)))
        self.entries = np.split(order, ends[:-1])

    def adjust(self) -> None:
        """Set the biases label after label, until each has its number or for so many rounds."""
        for _ in range(ROUNDS):
            changed = [self._adjust(label) for label in range(len(self.names)) if label != self.background]
            if not any(changed):
                return

    def _adjust(self, label: int) -> bool:
        """Set the bias with which a label gets the voxels that it wants, given the others'; whether it changed."""
        entries = self.entries[label]
        lead = self.totals[entries] - self._rivals(entries)
        wanted = int(np.clip(self.wanted[label], 0, lead.size))
        if int((lead > 0).sum()) == wanted:
            return False
        ordered = np.sort(lead)[::-1]
        upper = ordered[wanted - 1] if wanted else ordered[0] + 1
        lower = ordered[wanted] if wanted < lead.size else ordered[-1] - 1
        shift = -(upper + lower) / 2
        if np.isfinite(shift):  # not where nothing else competes
            self.totals[entries] += shift
        return bool(np.isfinite(shift) and shift)

    def _rivals(self, entries: np.ndarray) -> np.ndarray:
        """Return the largest total of the others in the voxels of a label's entries."""
        voxels = self.owners[entries]
        lengths = self.counts[voxels]
        offsets = np.cumsum(lengths, dtype=np.int64) - lengths
        first = self.starts[voxels]
        totals = self.totals[np.repeat(first - offsets, lengths) + np.arange(int(lengths.sum()))]
        totals[offsets + entries - first] = -np.inf
        rivals: np.ndarray = np.maximum.reduceat(totals, offsets)
        return rivals

    def repaired(self) -> np.ndarray:
        """Return for each voxel the entry that it goes to, after moving what the biases leave at a wrong label."""
        best = np.maximum.reduceat(self.totals, self.starts)
        hits = np.flatnonzero(self.totals == best[self.owners])
        chosen = hits[np.flatnonzero(np.diff(self.owners[hits], prepend=-1))]  # the first of equal ones
        excess = np.bincount(self.competing[chosen], minlength=len(self.names)) - self.wanted
        if (excess > 0).any() and (excess < 0).any():
            moves = _Moves(self, chosen)
            while (excess > 0).any() and (excess < 0).any() and moves.one(excess):
                pass
        return chosen


class _Moves:
    """The cheapest voxel to move from each label to each other, kept up to date while voxels move."""

    def __init__(self, problem: _Transport, chosen: np.ndarray) -> None:
        self.problem, self.chosen = problem, chosen
        self.size = len(problem.names)
        pairs = problem.competing[chosen].astype(np.int32)[problem.owners]
        pairs *= self.size
        pairs += problem.competing
        loss = problem.totals[chosen][problem.owners]
        loss -= problem.totals
        self.order = np.lexsort((loss, pairs))
        self.ends = np.cumsum(np.bincount(pairs, minlength=self.size**2))
        self.next = np.concatenate([[0], self.ends[:-1]])
        self.moved: dict[int, list[tuple[float, int]]] = {}  # by pair, of voxels that have moved already
        self.has_moved: set[int] = set()
        self.costs = np.full((self.size, self.size), np.inf)
        self.cheapest = np.zeros((self.size, self.size), np.int64)
        for pair in np.flatnonzero(self.ends > self.next):
            self._look(int(pair))

    def one(self, excess: np.ndarray) -> bool:
        """Move a voxel along each step of the cheapest chain from a label of too many to one of too few."""
        labels = np.arange(self.size)
        distance, before = np.where(excess > 0, 0.0, np.inf), np.full(self.size, -1)
        for _ in range(self.size):
            through = distance[:, None] + self.costs
            nearest = through.argmin(axis=0)
            shorter = through[nearest, labels] < distance - 1e-12
            if not shorter.any():
                break
            distance = np.where(shorter, through[nearest, labels], distance)
            before = np.where(shorter, nearest, before)
        lacking = np.flatnonzero(excess < 0)
        label = end = int(lacking[distance[lacking].argmin()])
        if not np.isfinite(distance[end]):
            return False
        moves = []
        while before[label] >= 0:
            moves.append(int(self.cheapest[before[label], label]))
            label = int(before[label])
        excess[label] -= 1
        excess[end] += 1
        for entry in moves:
            self._move(entry)
        return True

    def _move(self, entry: int) -> None:
        problem = self.problem
        voxel = int(problem.owners[entry])
        old, new = (int(problem.competing[e]) for e in (self.chosen[voxel], entry))
        self.chosen[voxel] = entry
        self.has_moved.add(voxel)
        start = int(problem.starts[voxel])
        for other in range(start, start + int(problem.counts[voxel])):
            label = int(problem.competing[other])
            pair = new * self.size + label
            loss = float(problem.totals[entry] - problem.totals[other])
            heapq.heappush(self.moved.setdefault(pair, []), (loss, other))
            self._look(pair)
            self._look(old * self.size + label)

    def _look(self, pair: int) -> None:
        """Find the cheapest voxel of a pair of labels, past those that have left the first."""
        origin, label = divmod(pair, self.size)
        if origin == label:
            return
        problem, best = self.problem, (np.inf, 0)
        while self.next[pair] < self.ends[pair]:
            entry = int(self.order[self.next[pair]])
            voxel = int(problem.owners[entry])
            if voxel not in self.has_moved:
                best = (float(problem.totals[self.chosen[voxel]] - problem.totals[entry]), entry)
                break
            self.next[pair] += 1
        heap = self.moved.get(pair, [])
        while heap and int(problem.competing[self.chosen[problem.owners[heap[0][1]]]]) != origin:
            heapq.heappop(heap)
        self.costs[origin, label], self.cheapest[origin, label] = min([best, *heap[:1]])
