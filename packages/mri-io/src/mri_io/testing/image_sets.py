"""Small data sets of image files, in the folders and under the names in which they are published."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from mri_io.testing.image_files import AFFINES, box, image

__all__ = ["COARSE", "save", "write_brats", "write_decathlon", "write_isles", "write_nnunet", "write_prostate158"]

COARSE = np.diag([3.0, 3.0, 6.0, 1.0])
"""Affine of the smaller grids."""
_ENDING = ".nii.gz"


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write a NIfTI file and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, AFFINES["oblique"] if affine is None else affine), path)
    return path


def _describe(root: Path, **stated: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(stated))
    return root


def write_nnunet(
    root: Path,
    cases: Sequence[str] = ("p_001", "p_002"),
    tests: Sequence[str] = ("p_003",),
    *,
    channels: Sequence[str] = ("T2", "ADC"),
    labels: Mapping[str, Any] | None = None,
) -> Path:
    """Write a data set of nnU-Net version 2."""
    for folder, names in (("imagesTr", cases), ("imagesTs", tests)):
        for number, case in enumerate(names):
            for channel in range(len(channels)):
                save(root / folder / f"{case}_{channel:04d}{_ENDING}", image(seed=10 * number + channel))
    for case in cases:
        save(root / "labelsTr" / f"{case}{_ENDING}", box(ids=(1, 2)))
    return _describe(
        root,
        channel_names={str(number): name for number, name in enumerate(channels)},
        labels=labels or {"background": 0, "PZ": 1, "TZ": 2},
        numTraining=len(cases),
        file_ending=_ENDING,
    )


def write_decathlon(root: Path, modalities: Sequence[str] = ("FLAIR", "T1w", "t1gd", "T2w")) -> Path:
    """Write a task of the Medical Segmentation Decathlon, with the files that macOS left in its archives."""
    shape = (7, 6, 5, len(modalities)) if len(modalities) > 1 else (7, 6, 5)
    for folder, case in (("imagesTr", "BRATS_001"), ("imagesTr", "BRATS_002"), ("imagesTs", "BRATS_003")):
        save(root / folder / f"{case}{_ENDING}", image(shape, seed=int(case[-1])))
        (root / folder / f"._{case}{_ENDING}").write_bytes(b"\0\5\x16\7")
    for case in ("BRATS_001", "BRATS_002"):
        save(root / "labelsTr" / f"{case}{_ENDING}", box(ids=(1, 3)))
    return _describe(
        root,
        name="BRATS",
        tensorImageSize="4D",
        modality={str(number): name for number, name in enumerate(modalities)},
        labels={"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        numTraining=2,
        training=[{"image": f"./imagesTr/{c}{_ENDING}", "label": f"./labelsTr/{c}{_ENDING}"} for c in ("BRATS_001",)],
        test=[f"./imagesTs/BRATS_003{_ENDING}"],
    )


def write_prostate158(root: Path) -> Path:
    """Write three studies for training, the second without a tumour, and one for tests."""
    rows: dict[str, list[dict[str, str]]] = {"train": [], "valid": [], "test": []}
    for study, folder, part in (
        (20, "train", "train"),
        (21, "train", "train"),
        (22, "train", "valid"),
        (1, "test", "test"),
    ):
        place = root / folder / f"{study:03d}"
        save(place / f"t2{_ENDING}", image(seed=study))
        save(place / f"t2_anatomy_reader1{_ENDING}", box(ids=(1, 2)))
        for contrast in ("adc", "dwi"):
            save(place / f"{contrast}{_ENDING}", image((4, 4, 3), seed=study), COARSE)
        row = {"ID": str(study), "t2": f"{folder}/{study:03d}/t2{_ENDING}"}
        if study == 21:
            save(place / f"empty{_ENDING}", box() * 0)
            row |= dict.fromkeys(("t2_tumor_reader1", "adc_tumor_reader1"), f"{folder}/{study:03d}/empty{_ENDING}")
        else:
            save(place / f"t2_tumor_reader1{_ENDING}", box())
            save(place / f"adc_tumor_reader1{_ENDING}", box((4, 4, 3)), COARSE)
        if folder == "test":
            save(place / f"t2_anatomy_reader2{_ENDING}", box(ids=(1, 2)))
        rows[part].append(row)
    for name, found in rows.items():
        with (root / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["ID", "t2", "t2_tumor_reader1", "adc_tumor_reader1"])
            writer.writeheader()
            writer.writerows(found)
    return root


def write_brats(root: Path, cases: Sequence[str] = ("BraTS20_Training_001", "BraTS-GLI-00002-001")) -> Path:
    """Write cases as they were called until 2021, or, with hyphens, from 2023 on."""
    for number, case in enumerate(cases):
        new = "-" in case
        names = ("-t1n", "-t1c", "-t2w", "-t2f", "-seg") if new else ("_t1", "_t1ce", "_t2", "_flair", "_seg")
        for kind, name in enumerate(names[:4]):
            save(root / case / f"{case}{name}{_ENDING}", image(dtype=np.int16, seed=10 * number + kind))
        save(root / case / f"{case}{names[4]}{_ENDING}", box(ids=(1, 2, 3 if new else 4)))
    return root


def write_isles(root: Path, *, rawdata: bool = False) -> Path:
    """Write two subjects, the second without FLAIR, and the masks beside them."""
    place = root / "rawdata" if rawdata else root
    for number in (1, 2):
        stem = f"sub-strokecase{number:04d}_ses-0001"
        subject = Path(f"sub-strokecase{number:04d}") / "ses-0001"
        for kind in ("dwi", "adc"):
            save(place / subject / "dwi" / f"{stem}_{kind}{_ENDING}", image((4, 4, 3), seed=number), COARSE)
        if number == 1:
            save(place / subject / "anat" / f"{stem}_FLAIR{_ENDING}", image(seed=5))
        save(root / "derivatives" / subject / f"{stem}_msk{_ENDING}", box((4, 4, 3)), COARSE)
    return root
