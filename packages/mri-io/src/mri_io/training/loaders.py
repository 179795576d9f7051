"""Batches for Lightning: the same batch at the same step, however often interrupted or shared by devices."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from mri_io.errors import ConfigError
from mri_io.training.config import TrainingConfig

__all__ = ["TrainBatches", "ValidationBatches"]

Rank = Callable[[], tuple[int, int]]
Collate = Callable[[list[Any]], Any]


class _Loader:
    """Iterable over batches that builds its DataLoader when iterated, in the process that needs it.

    Lightning is not shown the DataLoader itself: it would replace the sampler on several devices.
    """

    def __init__(self, dataset: Any, config: TrainingConfig, collate: Collate | None, rank: Rank) -> None:
        self.dataset, self.config, self.collate, self.rank = dataset, config, collate, rank

    def _loader(self, batch_sampler: Any, *, keep_workers: bool) -> "DataLoader[Any]":
        workers = self.config.num_workers
        if workers:
            # Loading processes are forked from a server that has imported torch already, so they start at
            # once.
            multiprocessing.set_forkserver_preload(["mri_io.torch", "mri_io.store"])
        return DataLoader(
            self.dataset,
            batch_sampler=batch_sampler,
            num_workers=workers,
            collate_fn=self.collate,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context="forkserver" if workers else None,
            persistent_workers=keep_workers and workers > 0,
            # It only seeds the workers; giving one leaves torch's global generator untouched.
            generator=torch.Generator().manual_seed(self.config.seed),
        )


class TrainBatches(_Loader):
    """The batches of steps ``start_step`` to ``config.steps``; each rank gets its share of every batch."""

    def __init__(
        self, dataset: Any, config: TrainingConfig, collate: Collate | None, rank: Rank, start_step: int
    ) -> None:
        super().__init__(dataset, config, collate, rank)
        self.start_step = start_step

    def __iter__(self) -> Iterator[Any]:
        rank, world = self.rank()
        size = self.config.batch_size
        if size % world:
            raise ConfigError(f"training.batch_size: expected a multiple of the {world} devices, got {size}.")
        return iter(self._loader(_Share(self._sampler(), rank, world), keep_workers=False))

    def _sampler(self) -> Any:
        from mri_io.torch import StepSampler

        config = self.config
        options: dict[str, Any] = {}
        if config.batch_size > 1 and hasattr(self.dataset, "shape_groups"):
            options["groups"] = self.dataset.shape_groups()
        return StepSampler(
            len(self.dataset),
            config.batch_size,
            config.steps * config.accumulate,
            config.seed,
            start_step=self.start_step * config.accumulate,
            **options,
        )


class ValidationBatches(_Loader):
    """Every sample once, in order; the ranks take turns. Loading processes are kept between validations."""

    _kept: "DataLoader[Any] | None" = None

    def _share(self) -> list[list[int]]:
        rank, world = self.rank()
        indices = list(range(rank, len(self.dataset), world))
        # With fewer samples than devices the last ranks repeat one, so that every rank has something to
        # average.
        if not indices and len(self.dataset):
            indices = [rank % len(self.dataset)]
        size = self.config.val_batch_size
        return [indices[start : start + size] for start in range(0, len(indices), size)]

    def __len__(self) -> int:
        return len(self._share())

    def __iter__(self) -> Iterator[Any]:
        if self._kept is None:
            self._kept = self._loader(self._share(), keep_workers=True)
        return iter(self._kept)


class _Share:
    """Batch sampler: the part of every batch that belongs to one rank."""

    def __init__(self, batches: Any, rank: int, world: int) -> None:
        self.batches, self.rank, self.world = batches, rank, world

    def __iter__(self) -> Iterator[Sequence[Any]]:
        for batch in self.batches:
            yield batch[self.rank :: self.world]
