"""Make the golden files of the parity tests with fastMRI; run in an environment of its own.

    python -m venv peer
    peer/bin/pip install torch==2.13.0 numpy pandas h5py pyyaml requests tqdm scikit-image
    peer/bin/pip install --no-deps fastmri==0.3.0
    peer/bin/python tools/make_fastmri_goldens.py packages/mri-recon/tests/golden

fastMRI pulls torchvision in by its dependencies, so it never enters the environment of this project.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import fastmri
import numpy as np
import torch
from fastmri.data.subsample import EquispacedMaskFractionFunc, EquiSpacedMaskFunc, RandomMaskFunc
from fastmri.losses import SSIMLoss
from fastmri.models import VarNet


def masks() -> list[dict[str, object]]:
    """Return masks of fastMRI for some sizes and seeds."""
    rows = []
    classes = {"random": RandomMaskFunc, "equispaced": EquiSpacedMaskFunc}
    classes["equispaced-fraction"] = EquispacedMaskFractionFunc
    for name, cls in classes.items():
        for columns, acceleration, fraction, seed in (
            (160, 4, 0.08, 0),
            (368, 4, 0.08, 42),
            (368, 8, 0.04, [1, 2, 3]),
            (171, 6, 0.06, 7),
            (320, 5, 0.08, 123),
        ):
            key = tuple(seed) if isinstance(seed, list) else seed
            sampled, low = cls([fraction], [acceleration])((1, columns, 2), seed=key)
            line = sampled.numpy().ravel().astype(int)
            rows.append(
                {
                    "kind": name,
                    "columns": columns,
                    "acceleration": acceleration,
                    "center_fraction": fraction,
                    "seed": seed,
                    "central_lines": int(low),
                    "mask": "".join(map(str, line)),
                }
            )
    return rows


def varnet(folder: Path) -> None:
    """Save weights, input and output of a tiny fastMRI VarNet."""
    torch.manual_seed(0)
    net = VarNet(num_cascades=2, sens_chans=3, sens_pools=2, chans=4, pools=2).eval()
    state = {key: value + 0.05 * torch.randn_like(value) for key, value in net.state_dict().items()}
    net.load_state_dict(state)
    columns = 36
    mask = torch.zeros(1, 1, 1, columns, 1)
    mask[..., ::4, :] = 1
    mask[..., 14:22, :] = 1
    kspace = torch.randn(1, 4, 30, columns, 2) * mask
    with torch.no_grad():
        out = net(kspace, mask.bool())
        sens = net.sens_net(kspace, mask.bool())
    arrays = {f"state/{key}": value.numpy() for key, value in state.items()}
    arrays |= {"kspace": torch.view_as_complex(kspace.contiguous()).numpy(), "mask": mask[..., 0].numpy()}
    arrays |= {"output": out.numpy(), "maps": torch.view_as_complex(sens.contiguous()).numpy()}
    np.savez_compressed(folder / "fastmri_varnet.npz", **arrays)


def losses(folder: Path) -> None:
    """Save the SSIM loss and metrics of fastMRI for random images."""
    rng = np.random.default_rng(0)
    target = rng.random((3, 40, 36)).astype(np.float32)
    image = (target + 0.1 * rng.standard_normal(target.shape)).astype(np.float32)
    peak = np.array([1.0, 0.8, 1.3], np.float32)
    loss = SSIMLoss()(torch.from_numpy(image)[:, None], torch.from_numpy(target)[:, None], torch.from_numpy(peak))
    mse = float(np.mean((target - image) ** 2))
    np.savez_compressed(
        folder / "fastmri_losses.npz",
        target=target,
        image=image,
        peak=peak,
        ssim_loss=loss.numpy(),
        nmse=np.linalg.norm(target - image) ** 2 / np.linalg.norm(target) ** 2,
        psnr=10 * np.log10(target.max() ** 2 / mse),
    )


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    (out / "fastmri_masks.json").write_text(json.dumps(masks(), indent=1) + "\n")
    varnet(out)
    losses(out)
    provenance = {
        "made_by": "tools/make_fastmri_goldens.py",
        "fastmri": version("fastmri"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "licence": "fastMRI is MIT licensed; the files hold numbers computed with it",
    }
    (out / "PROVENANCE.json").write_text(json.dumps(provenance, indent=1) + "\n")
    print("fastMRI", getattr(fastmri, "__version__", ""), "goldens in", out)
