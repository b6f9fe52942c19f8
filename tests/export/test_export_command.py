"""`biom3d export model` and the command line of the step."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from biom3d.cli import main as biom3d
from biom3d.export import main
from biom3d.export.package import unpack_model


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "logs" / "my model" / "fold_0"
    (folder / "model").mkdir(parents=True)
    (folder / "plan.yaml").write_text("desc: my model\n")
    (folder / "model" / "my model_best.pth").write_bytes(b"weights")
    return folder


def test_a_model_is_packed_by_the_umbrella_command(run: Path, tmp_path: Path) -> None:
    assert biom3d(["export", "model", "--log", str(run), "--out", str(tmp_path / "m.zip")]) == 0
    assert unpack_model(tmp_path / "m.zip", tmp_path / "out") == [tmp_path / "out" / "fold_0"]


def test_the_command_says_what_it_packed(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(["model", "--log", str(run), "--out", str(tmp_path / "m.zip")])
    assert "1 fold(s) of 'my model'" in capsys.readouterr().err


def test_events_may_be_given_after_the_command(run: Path, tmp_path: Path) -> None:
    argv = ["model", "--log", str(run), "--out", str(tmp_path / "m.zip"), "--events", str(tmp_path / "events")]
    main(argv)
    assert json.loads((tmp_path / "events").read_text().splitlines()[-1])["event"] == "done"


def test_a_run_that_is_not_there_is_an_input_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["model", "--log", str(tmp_path / "no run"), "--out", str(tmp_path / "m.zip")]) == 2
    assert "no run" in capsys.readouterr().err


def test_a_name_without_zip_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["model", "--log", str(run), "--out", str(tmp_path / "m.tar")]) == 2
    assert "ends in .zip" in capsys.readouterr().err


@pytest.mark.parametrize("step", ["eval", "report", "export"])
def test_help_loads_no_image_library(step: str) -> None:
    code = f"""
import sys
from biom3d.{step} import main
try: main(["--help"])
except SystemExit: pass
heavy = {{"numpy", "torch", "matplotlib", "zarr", "tifffile", "scipy"}} & set(sys.modules)
assert not heavy, heavy"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_labels_are_copied_a_few_planes_at_a_time(tmp_path, monkeypatch):
    from biom3d.export import __main__ as export
    from biom3d.io import Header, read_labels, write_labels, write_volume

    labels = np.random.default_rng(0).integers(0, 4, (9, 10, 12)).astype(np.uint8)
    header = Header((1, 9, 10, 12), np.dtype("uint8"), "ZYX", (1.0, 1.0, 1.0))
    write_volume(tmp_path / "image.tif", labels[None], header)
    write_labels(tmp_path / "labels.tif", labels, header)
    monkeypatch.setattr(export, "PLANES_BYTES", 240)
    export.write_ome_tiff(tmp_path / "out.ome.tif", tmp_path / "image.tif", tmp_path / "labels.tif", "cells")
    assert np.array_equal(read_labels(tmp_path / "out.ome.tif").array[0], labels)
