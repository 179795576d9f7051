"""A tiny task for the tests of training; run as a script it is a training process that can be killed.

``python training_toy.py OUT [--sleep S] [key=value ...]``
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningModule

from mri_io.config import Config, load_config
from mri_io.training import TrainingConfig, TrainResult, make_optimizer, set_seed, train


class ToyTraining(TrainingConfig):
    steps: int = 40
    batch_size: int = 4
    validate_every: int = 10
    checkpoint_every: int = 7
    log_every: int = 5
    ema_decay: float | None = 0.99
    schedule: str = "cosine"
    warmup_steps: int = 3
    accumulate: int = 2
    weight_decay: float = 0.01
    gradient_clip: float | None = 1.0
    progress: bool = False


class ToyConfig(Config):
    hidden: int = 8
    dropout: float = 0.2
    batch_norm: bool = True
    poison_step: int = -1
    training: ToyTraining = ToyTraining()


class ToyData(torch.utils.data.Dataset):
    """Sums of three numbers; a sample is a function of (index, draw)."""

    def __init__(self, n: int = 16, sleep: float = 0.0) -> None:
        self.n, self.sleep = n, sleep

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, item):
        index, draw = item if isinstance(item, tuple) else (item, 0)
        x = np.random.default_rng([1, index, draw]).normal(size=3).astype("float32")
        time.sleep(self.sleep)
        return {"x": torch.from_numpy(x), "y": torch.tensor([x.sum()]), "index": index}


class ToyTask(LightningModule):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.seen: list[list[int]] = []
        self.net = torch.nn.Sequential(
            torch.nn.Linear(3, config.hidden),
            torch.nn.BatchNorm1d(config.hidden) if config.batch_norm else torch.nn.Identity(),
            torch.nn.ReLU(),
            torch.nn.Dropout(config.dropout),
            torch.nn.Linear(config.hidden, 1),
        )

    def training_step(self, batch, batch_idx):
        self.seen.append(batch["index"].tolist())
        loss = ((self.net(batch["x"]) - batch["y"]) ** 2).mean()
        if self.global_step == self.config.poison_step:
            loss = loss * float("nan")
        self.log("train/loss", loss, batch_size=len(batch["x"]))
        return loss

    def validation_step(self, batch, batch_idx):
        loss = ((self.net(batch["x"]) - batch["y"]) ** 2).mean()
        self.log("val/loss", loss, batch_size=len(batch["x"]), sync_dist=True)

    def configure_optimizers(self):
        return make_optimizer(self.parameters(), self.config.training)


def collate(samples):
    return torch.utils.data.default_collate(samples)


def run(out: Path, config: ToyConfig, *, task: ToyTask | None = None, sleep: float = 0.0, **options) -> TrainResult:
    if task is None:
        set_seed(config.training.seed)
        task = ToyTask(config)
    options = {"kind": "recon", "val_data": ToyData(6), **options}
    return train(task, config=config, train_data=ToyData(sleep=sleep), out=out, collate=collate, **options)


def main() -> None:
    out, *rest = sys.argv[1:]
    sleep = float(rest[rest.index("--sleep") + 1]) if "--sleep" in rest else 0.0
    run(Path(out), load_config(ToyConfig, overrides=[text for text in rest if "=" in text]), sleep=sleep)


if __name__ == "__main__":
    main()
