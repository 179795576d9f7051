"""Which samples make the batch of each training step, as a pure function of the seed and the step."""

from collections.abc import Iterator, Sequence

import numpy as np

from mri_io.errors import ConfigError, expected_got

__all__ = ["StepSampler"]


class StepSampler:
    """Batches of ``(index, draw)``; a run that starts at a later step sees the batches it would have seen.

    Samples are drawn by permutation: each comes once per pass over the data. `draw` is the number of the pass, which
    seeds the random transforms of the sample.

    Parameters
    ----------
    n
        Number of samples.
    batch_size
        Samples per batch.
    steps
        Number of the last batch plus one.
    seed
        Of the permutations.
    start_step
        First batch to yield; a resumed run gives the number of finished steps.
    groups
        Samples of equal shape, as lists of indices. A batch then holds samples of one group only.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        steps: int,
        seed: int = 0,
        start_step: int = 0,
        groups: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if n < 1 or batch_size < 1 or steps < start_step or start_step < 0:
            raise ConfigError(
                expected_got(
                    "sampler",
                    expected="n, batch_size >= 1 and 0 <= start_step <= steps",
                    got=f"n={n}, batch_size={batch_size}, steps={steps}, start_step={start_step}",
                )
            )
        self.n, self.batch_size, self.steps, self.seed = n, batch_size, steps, seed
        self.start_step = start_step
        self.groups = [list(group) for group in groups] if groups else None
        self._per_pass = -(-n // batch_size)
        if self.groups is not None:
            self._per_pass = sum(-(-len(group) // batch_size) for group in self.groups)

    def __len__(self) -> int:
        """Return the number of batches that will be yielded."""
        return self.steps - self.start_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the batches from `start_step` on."""
        for step in range(self.start_step, self.steps):
            yield self.batch(step)

    def batch(self, step: int) -> list[tuple[int, int]]:
        """Return the batch of one step."""
        if self.groups is None:
            positions = range(step * self.batch_size, (step + 1) * self.batch_size)
            return [(self._permutation(p // self.n)[p % self.n], p // self.n) for p in positions]
        number, place = divmod(step, self._per_pass)
        return [(index, number) for index in self._grouped(number)[place]]

    def _permutation(self, number: int) -> list[int]:
        if getattr(self, "_cached", (None, None))[0] != number:
            order = np.random.default_rng([self.seed, number]).permutation(self.n)
            self._cached = (number, [int(i) for i in order])
        return self._cached[1]

    def _grouped(self, number: int) -> list[list[int]]:
        """Return the batches of one pass: shuffled within groups, cut into batches, the batches shuffled."""
        if getattr(self, "_cached_groups", (None, None))[0] != number:
            rng = np.random.default_rng([self.seed, number])
            batches = []
            for group in self.groups or []:
                order = [group[i] for i in rng.permutation(len(group))]
                for start in range(0, len(order), self.batch_size):
                    batch = order[start : start + self.batch_size]
                    batches.append([batch[i % len(batch)] for i in range(self.batch_size)])
            self._cached_groups = (number, [batches[i] for i in rng.permutation(len(batches))])
        return self._cached_groups[1]
