"""Networks of a few thousand weights, for `mri_io.testing.tiny_cohort`."""

from pathlib import Path

from mri_io.training import TrainingConfig, save_checkpoint, set_seed
from mri_joint.config import RunConfig
from mri_recon.config import RunConfig as ReconRunConfig
from mri_recon.config import VarNetConfig
from mri_recon.networks import build_network as build_reconstruction
from mri_seg.config import MonaiUnetConfig
from mri_seg.config import RunConfig as SegRunConfig
from mri_seg.networks import build_network as build_segmentation

__all__ = ["tiny_config", "tiny_starts"]

RECONSTRUCTION = VarNetConfig(cascades=2, channels=4, pools=2, coil_maps="stored")
SEGMENTATION = MonaiUnetConfig(widths=(8, 16), residual_units=1)
LABELS = {1: "outer", 2: "inner"}


def tiny_config(steps: int = 4, **fields: object) -> RunConfig:
    """Return a joint run of tiny networks on stored maps, without a progress report."""
    training = TrainingConfig(
        steps=steps,
        batch_size=2,
        learning_rate=3e-3,
        validate_every=steps // 2,
        checkpoint_every=3,
        log_every=1,
        loggers=("csv",),
        progress=False,
    )
    values = {"reconstruction": RECONSTRUCTION, "segmentation": SEGMENTATION, "training": training, **fields}
    return RunConfig.model_validate(values)


def tiny_starts(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Write checkpoints of an untrained reconstruction and an untrained segmentation network, and return the paths."""
    recon = ReconRunConfig(model=RECONSTRUCTION)
    seg = SegRunConfig(model=SEGMENTATION, labels=LABELS)
    set_seed(seed)
    networks = {
        "recon": (build_reconstruction(recon.model), recon),
        "seg": (build_segmentation(seg.model, channels=1, labels=len(LABELS) + 1), seg),
    }
    paths = []
    for kind, (network, config) in networks.items():
        state = {f"network.{name}": value for name, value in network.state_dict().items()}
        paths.append(save_checkpoint(folder / f"{kind}.ckpt", state, kind=kind, config=config))
    return paths[0], paths[1]
