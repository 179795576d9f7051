"""The folder of a run: what an earlier call left in it, and how it is completed."""

from dataclasses import dataclass
from pathlib import Path

from mri_io.config import Config, dump_config
from mri_io.errors import ConfigError
from mri_io.training.checkpoint import SplitLike, make_header, read_raw, write_checkpoint
from mri_io.training.config import TrainingConfig, differing_keys

__all__ = ["Earlier", "RunFolder"]


@dataclass(frozen=True)
class Earlier:
    """What an earlier call left: steps taken, whether the run reached its end, the file to continue from."""

    step: int = 0
    complete: bool = False
    path: Path | None = None


class RunFolder:
    """Paths and state of one run.

    Parameters
    ----------
    path
        The folder; made by `start`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.metrics = path / "config.yaml", path / "metrics.csv"
        self.last, self.best, self.model = path / "last.ckpt", path / "best.ckpt", path / "model.ckpt"

    def earlier(self, kind: str, config: Config, split: SplitLike | None) -> Earlier:
        """Find the run to continue; refuse one of another configuration or split, naming what differs."""
        path = next((path for path in (self.model, self.last) if path.is_file()), None)
        if path is None:
            return Earlier()
        header = read_raw(path)["mri"]
        now = make_header(kind=kind, config=config, split=split, step=0, complete=False)
        problems = differing_keys(header["config"], config)
        if header["kind"] != kind:
            problems.append(f"kind: {header['kind']} -> {kind}")
        if header["split"].get("hash") != now["split"].get("hash"):
            names = [item["split"].get("name", "(none)") for item in (header, now)]
            problems.append(f"split: {names[0]} -> {names[1]} (other subjects)")
        if problems:
            raise ConfigError(
                f"{self.path}: holds a run of another configuration:\n  " + "\n  ".join(problems) + "\n"
                "Give another output folder, remove this one, or restore these keys to continue it."
            )
        return Earlier(int(header["step"]), bool(header["complete"]), path)

    def start(self, config: Config) -> None:
        """Make the folder and save the configuration."""
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.config.with_name(".config.yaml.tmp")
        temporary.write_text(dump_config(config), encoding="utf-8")
        temporary.replace(self.config)

    def finish(self, settings: TrainingConfig) -> None:
        """Write model.ckpt from last.ckpt or best.ckpt; do nothing if it is there."""
        if not self.model.is_file():
            end = read_raw(self.last)
            source = read_raw(self.best) if settings.keeps_best and self.best.is_file() else end
            header = {**source["mri"], "complete": True}
            write_checkpoint(self.model, header, source["state_dict"])
        self.best.unlink(missing_ok=True)
