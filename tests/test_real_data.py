"""The commands on real raw data, as the benchmark runs them."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.realdata
def test_a_real_scan_goes_from_file_to_image(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("real_data_benchmark", ROOT / "benchmarks" / "real_data.py")
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    monkeypatch.setattr(benchmark, "DATA", real_data)
    monkeypatch.setattr(benchmark, "OUT", tmp_path)
    found = benchmark.brain()
    assert found["verified"]
    assert found["acceleration"] == pytest.approx(1 / 0.257, rel=0.01)  # of the pattern, found from the data
    assert found["recon/cg-sense"]["psnr_db"] >= 35.5  # BART and SigPy: 35.9
