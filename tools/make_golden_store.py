"""Make the golden cohort of the present store version; run once per version, and keep what it made.

    python tools/make_golden_store.py packages/mri-io/tests/golden/store-1.1

The numbers follow from the formulas in `values`, which the test states again.
"""

import sys
from pathlib import Path

import numpy as np

from mri_io.schema import Header, Provenance, Source
from mri_io.store import Volume, build_index, compute_statistics, create_cohort, make_split


def ramp(*shape: int, dtype: str = "float32") -> np.ndarray:
    """Return 0, 1, 2, ... in C order; for complex dtypes n - 2n i."""
    numbers = np.arange(np.prod(shape)).reshape(shape)
    return (numbers * (1 - 2j) if dtype == "complex64" else numbers).astype(dtype)


def values() -> dict[str, np.ndarray]:
    """Return one array of every element type."""
    return {
        "kspace": ramp(2, 3, 4, 5, dtype="complex64"),
        "noise": ramp(3, 6, dtype="complex64"),
        "mask/acquired": ramp(5, dtype="uint8") % 2,
        "sens/espirit": ramp(2, 1, 3, 4, 5, dtype="complex64"),
        "recon/combined": ramp(2, 4, 5, dtype="complex64"),
        "recon/rss": ramp(2, 4, 5) / 4,
        "image/t1": ramp(2, 4, 5, dtype="int16") - 20,
        "seg/tissue": ramp(2, 4, 5, dtype="uint8") % 3,
        "qmap/t2": ramp(2, 4, 5) / 1000,
        "emb/vit/block-1": ramp(2, 3, 2, 2, dtype="float16"),
        "recon/cine": ramp(2, 3, 2, 4, 5).astype("complex64"),
        "mask/kt": ramp(3, 4, dtype="uint8") % 2,
        "trajectory": ramp(2, 4, 5, 2) / 8,
    }


def fill(volume: Volume) -> None:
    """Write every element type, with all attributes that there are."""
    made = Provenance(method="ramp", package="golden", version="1", config={"step": 1}, seed=0)
    affine = [[0, -2, 0, 10], [1.5, 0, 0, 20], [0, 0, 5, 30], [0, 0, 0, 1]]
    labels = {1: "grey matter", 2: {"name": "white matter", "code": "389081007"}}
    more = {
        "mask/acquired": {"dims": ("kx",)},
        "image/t1": {"affine": affine},
        "seg/tissue": {"affine": affine, "labels": labels},
        "qmap/t2": {"attributes": {"unit": "s"}},
        "recon/cine": {"dims": ("frame", "echo", "slice", "y", "x")},
        "mask/kt": {"dims": ("frame", "ky")},
        "trajectory": {"dims": ("frame", "shot", "sample", "axis"), "attributes": {"unit": "1/pixel"}},
    }
    for path, data in values().items():
        volume.write(path, data, provenance=made, **more.get(path, {}))
    result = Provenance.of("golden", "threshold", {"at": 3.5}, [volume["recon/rss"]], weights_sha256="a" * 64)
    volume.write("recon/derived", ramp(2, 4, 5), provenance=result)
    quantised = {"data": ramp(2, 3, 2, 2, dtype="int8") - np.int8(8), "scales": ramp(2, 3) / 4}
    volume.write("emb/vit/quantised", quantised, provenance=made)
    prompts = {"slice": np.arange(2), "label": np.ones(2, np.int32), "boxes": ramp(2, 4), "points": ramp(2, 2)}
    volume.write("prompts/clicks", {**prompts, "point_label": np.arange(2)}, provenance=made)


def main() -> None:
    """Make the cohort in the folder named on the command line."""
    cohort = create_cohort(Path(sys.argv[1]), name="golden", license="CC0-1.0", exist_ok=False)
    header = Header(recon_matrix=(5, 4, 2), recon_fov_m=(0.01, 0.006, 0.01), te_s=(0.03,), field_T=3.0, vendor="ACME")
    source = Source(uri="ramp.h5", sha256="b" * 64, format="fastmri")
    for subject in ("sub-01", "sub-02"):
        volume_id = f"{subject}_ses-1_acq-ramp_run-1"
        converter = {"package": "golden", "version": "1"}
        with cohort.create_volume(
            volume_id, subject_id=subject, header=header, source=source, converter=converter
        ) as volume:
            if subject == "sub-01":
                fill(volume)
    cohort.write_split(make_split(cohort, counts=(1, 0, 1)))
    subject = cohort.split().train[0]
    row = {"volume_id": f"{subject}_ses-1_acq-ramp_run-1", "subject_id": subject, "method": "ramp", "psnr": 30.5}
    cohort.write_evaluation("ramps", task="recon", rows=[row])
    compute_statistics(cohort, ["recon/rss", "image/t1"])
    cohort.record_failure("ramp-2.h5", "FormatError: not a ramp", "convert")
    build_index(cohort)
    for unneeded in (cohort.path / ".failures.lock", cohort.volumes_path / ".staging"):
        unneeded.rmdir() if unneeded.is_dir() else unneeded.unlink()


if __name__ == "__main__":
    main()
