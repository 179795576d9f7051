"""Real input, by the public functions behind the commands: a prospectively undersampled brain scan, cardiac frames.

    make bench-real            # or: python benchmarks/real_data.py [brain] [cardiac]

The folder of real data is named by MRI_TEST_DATA, by default ../shared/data beside the checkout. Prints one JSON object
per part and writes pictures to bench-output/.
"""

import json
import os
import platform
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mri_io import make_split, open_cohort, verify
from mri_io.config import load_config
from mri_io.convert import convert
from mri_recon.calibrate import calibrate
from mri_recon.metrics import least_squares_scale, psnr, ssim
from mri_recon.run import run as reconstruct
from mri_seg.config import RunConfig
from mri_seg.evaluate import evaluate as evaluate_segmentation
from mri_seg.run import run as segment
from mri_seg.training import train as train_segmenter

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("MRI_TEST_DATA", ROOT.parent / "shared" / "data"))
OUT = ROOT / "bench-output"
FRAMES, HELD_OUT = 100, 6


def brain() -> dict[str, object]:
    """Reconstruct und2x2 by its own sampling pattern; compare with the coil-combined full scan."""
    cohort = OUT / "brain"
    shutil.rmtree(cohort, ignore_errors=True)
    assert convert([DATA / "kspace_brain8ch"], cohort, progress=False).ok
    start = time.perf_counter()
    assert calibrate(cohort).ok
    calibrated = time.perf_counter() - start
    assert reconstruct(cohort, method="zero-filled").ok
    start = time.perf_counter()
    assert reconstruct(cohort, method="cg-sense", name="cg-sense").ok
    solved = time.perf_counter() - start
    volumes = open_cohort(cohort).volumes()
    full = next(v for v in volumes if "mask/acquired" not in v)
    under = next(v for v in volumes if "mask/acquired" in v)
    reference = np.abs(full["recon/zero-filled"].numpy())
    rows: dict[str, Any] = {"acceleration": round(under["mask/acquired"].attributes["acceleration"], 3)}
    zero_filled = next(path for path in under.elements() if path.startswith("recon/zero-filled"))
    shown = {"full": reference}
    for path in (zero_filled, "recon/cg-sense"):
        image = np.abs(under[path].numpy())
        image = image * least_squares_scale(reference, image)
        rows[path] = {"psnr_db": round(psnr(reference, image), 2), "ssim": round(ssim(reference, image), 3)}
        shown[path] = image
    rows |= {"calibrate_s": round(calibrated, 2), "cg_sense_s": round(solved, 2), "verified": verify(cohort).ok}
    assert rows["recon/cg-sense"]["psnr_db"] >= 35.5, rows
    picture(OUT / "brain.png", {name: image[0] for name, image in shown.items()})
    return rows


def cardiac() -> dict[str, object]:
    """Train the segmenter on a hundred frames of all patients; measure it on patients held out."""
    frames, cohort, out = OUT / "cardiac-frames", OUT / "cardiac", OUT / "cardiac-run"
    for folder in (frames, cohort, out):
        shutil.rmtree(folder, ignore_errors=True)
    patients: dict[str, list[Path]] = {}
    for image in sorted((DATA / "cardiac_cine" / "Images").rglob("*.png")):
        patients.setdefault(image.name.split("-IM")[0], []).append(image)
    count = 0
    for number, images in enumerate(patients.values()):
        share = FRAMES // len(patients) + (number < FRAMES % len(patients))
        chosen = np.unique(np.linspace(0, len(images) - 1, share).round().astype(int))
        count += len(chosen)
        for image in (images[index] for index in chosen):
            for kind in ("Images", "Labels"):
                target = frames / kind / image.name
                target.parent.mkdir(parents=True, exist_ok=True)
                source = DATA / "cardiac_cine" / kind / image.relative_to(DATA / "cardiac_cine" / "Images")
                target.write_bytes(source.read_bytes())
    assert convert([frames], cohort, progress=False).ok
    opened = open_cohort(cohort)
    subjects = len({volume.subject_id for volume in opened.volumes()})
    split = make_split(opened, counts=(subjects - HELD_OUT, 0, HELD_OUT), seed=0)
    opened.write_split(split)
    config = load_config(RunConfig, ROOT / "recipes" / "unet-cine.yaml")
    image, labels = config.data.inputs[0], config.data.labels
    start = time.perf_counter()
    run = train_segmenter(cohort, config, out)
    trained = time.perf_counter() - start
    assert segment(cohort, run.checkpoint, name="unet", part="test").ok
    table = evaluate_segmentation(cohort, reference=labels, methods=["seg/unet"], part="test")
    dice = table["summary"]["seg/unet"]["dice"]
    volume = opened.volumes("default", "test")[0]
    middle = volume[image].shape[0] // 2
    shown = {"frame": volume[image][middle], "manual": volume[labels][middle], "U-Net": volume["seg/unet"][middle]}
    picture(OUT / "cardiac.png", shown)
    return {
        "frames": count,
        "patients": {"train": len(split.train), "held out": len(split.test)},
        "dice_mean": round(dice["mean"], 3),
        "dice_sd": None if dice["std"] is None else round(dice["std"], 3),
        "steps": run.steps,
        "train_s": round(trained, 1),
        "verified": verify(cohort).ok,
    }


def picture(path: Path, images: dict[str, np.ndarray]) -> None:
    """Save images side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(images), 5), layout="constrained")
    for axis, (name, image) in zip(figure.subplots(1, len(images)), images.items(), strict=True):
        axis.imshow(image, cmap="gray")
        axis.set_title(name)
        axis.set_axis_off()
    FigureCanvasAgg(figure).print_png(path)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"
    )
    print(json.dumps({"machine": machine, "mri-io": version("mri-io"), "monai": version("monai")}))
    for name in sys.argv[1:] or ("brain", "cardiac"):
        print(json.dumps({name: {"brain": brain, "cardiac": cardiac}[name]()}), flush=True)
