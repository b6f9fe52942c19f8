"""A model survives the way through one zip, and a zip that is not ours does no harm."""

import hashlib
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from biom3d.errors import ConfigError, DataError, OutputError
from biom3d.export.package import MANIFEST, pack_model, plan_package, unpack_model

Edit = Callable[[dict[str, bytes]], None]


def make_run(folder: Path, desc: str = "nuclei") -> Path:
    for name in ("plan.yaml", "log/config.yaml", "log/log.csv", "log/folds.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} of {folder.name}\n")
    (folder / "model").mkdir()
    (folder / "model" / f"{desc}.pth").write_bytes(b"state to resume from")
    (folder / "model" / f"{desc}_best.pth").write_bytes(b"weights of " + folder.name.encode())
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [make_run(tmp_path / "logs" / "nuclei" / f"fold_{k}") for k in range(2)]


@pytest.fixture
def packed(runs: list[Path], tmp_path: Path) -> Path:
    pack_model(runs, tmp_path / "model.zip")
    return tmp_path / "model.zip"


def content(packed: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(packed) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def tampered(packed: Path, edit: Edit, method: int = zipfile.ZIP_STORED) -> Path:
    """Pack the files of `packed` anew after `edit`, which may change or add any of them."""
    files = content(packed)
    edit(files)
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed


def with_file(files: dict[str, bytes], name: str, data: bytes) -> None:
    """Add a file and, as an attacker would, the right line in the manifest."""
    manifest = json.loads(files[MANIFEST])
    manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    files[name], files[MANIFEST] = data, json.dumps(manifest).encode()


def test_unpacked_runs_hold_what_was_packed(packed: Path, runs: list[Path], tmp_path: Path) -> None:
    for run, copy in zip(runs, unpack_model(packed, tmp_path / "out"), strict=True):
        for path in copy.rglob("*.*"):
            assert path.read_bytes() == (run / path.relative_to(copy)).read_bytes()


def test_the_layout_is_that_of_a_model_folder(packed: Path) -> None:
    small = ["log/config.yaml", "log/folds.csv", "log/log.csv", "model/nuclei_best.pth", "plan.yaml"]
    assert sorted(content(packed)) == [f"fold_{k}/{name}" for k in range(2) for name in small] + [MANIFEST]


def test_run_folders_come_back_in_the_order_of_their_folds(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"fold_{k}") for k in (10, 9)]
    pack_model(runs, tmp_path / "m.zip")
    assert [run.name for run in unpack_model(tmp_path / "m.zip", tmp_path / "out")] == ["fold_9", "fold_10"]


def test_equal_runs_give_the_same_bytes(packed: Path, runs: list[Path], tmp_path: Path) -> None:
    pack_model(runs[::-1], tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


def test_the_manifest_names_model_folds_and_version(packed: Path) -> None:
    manifest = json.loads(content(packed)[MANIFEST])
    assert (manifest["desc"], manifest["folds"], manifest["biom3d_version"]) == ("nuclei", 2, "0.1.0")


def test_unpacking_twice_replaces_the_first(packed: Path, tmp_path: Path) -> None:
    first = unpack_model(packed, tmp_path / "out")
    (first[0] / "plan.yaml").write_text("edited")
    assert (unpack_model(packed, tmp_path / "out")[0] / "plan.yaml").read_text() == "plan.yaml of fold_0\n"


def test_a_run_of_biom3d_without_a_plan_is_packed_with_its_config(tmp_path: Path) -> None:
    run = make_run(tmp_path / "20261123-200051-nuclei_fold3")
    (run / "plan.yaml").unlink()
    assert "fold_3/log/config.yaml" in dict(plan_package([run]).members)


def test_a_run_without_best_weights_is_refused(runs: list[Path]) -> None:
    (runs[1] / "model" / "nuclei_best.pth").unlink()
    with pytest.raises(DataError, match=r"fold_1.*0 files"):
        plan_package(runs)


def test_a_missing_run_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        plan_package([tmp_path / "nowhere"])


def test_the_same_fold_twice_is_refused(runs: list[Path]) -> None:
    with pytest.raises(ConfigError, match="both fold_0"):
        plan_package([runs[0], runs[0]])


def test_two_models_in_one_package_are_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="different models"):
        plan_package([runs[0], make_run(tmp_path / "fold_7", "cells")])


def test_a_failed_packing_leaves_the_old_zip(packed: Path, tmp_path: Path) -> None:
    before = packed.read_bytes()
    with pytest.raises(DataError):
        pack_model([tmp_path / "nowhere"], packed)
    assert packed.read_bytes() == before


def test_a_changed_file_is_refused_and_not_left_behind(packed: Path, tmp_path: Path) -> None:
    tampered(packed, lambda files: files.update({"fold_0/plan.yaml": b"plan.yaml of fold_X\n"}))
    with pytest.raises(DataError, match=r"fold_0/plan.yaml.*SHA-256"):
        unpack_model(packed, tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/evil",
        "fold_0/../../evil",
        "fold_0\\evil",
        "fold_0/C:evil",
        "evil",
        "fold_0//evil",
        "other/evil",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(packed: Path, tmp_path: Path, name: str) -> None:
    tampered(packed, lambda files: with_file(files, name, b"x"))
    with pytest.raises(DataError, match="do not trust"):
        unpack_model(packed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_is_refused(packed: Path, tmp_path: Path) -> None:
    tampered(packed, lambda files: with_file(files, "fold_0/zlink", b"/etc/passwd"))
    with zipfile.ZipFile(packed, "a") as archive:
        archive.getinfo("fold_0/zlink").external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.comment = b"makes zipfile write the directory anew"
    with pytest.raises(DataError, match="link"):
        unpack_model(packed, tmp_path / "out")


def test_a_zip_bomb_is_refused_before_anything_is_written(packed: Path, tmp_path: Path) -> None:
    tampered(packed, lambda files: with_file(files, "fold_0/zeros", bytes(1 << 20)), zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="100 times"):
        unpack_model(packed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_bytes_than_allowed_are_refused(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at most 100 are allowed"):
        unpack_model(packed, tmp_path / "out", max_bytes=100)


def test_a_zip_compressed_by_hand_is_accepted(packed: Path, tmp_path: Path) -> None:
    tampered(packed, lambda files: None, zipfile.ZIP_DEFLATED)
    assert len(unpack_model(packed, tmp_path / "out")) == 2


def test_a_zip_without_manifest_is_refused(packed: Path, tmp_path: Path) -> None:
    tampered(packed, lambda files: files.pop(MANIFEST))
    with pytest.raises(DataError, match=f"no {MANIFEST}"):
        unpack_model(packed, tmp_path / "out")


@pytest.mark.parametrize("text", [b"{", b"[]", b"{}", b'{"format": "biom3d-model", "files": 3}', b"[" * 100_000])
def test_a_broken_manifest_is_refused(packed: Path, tmp_path: Path, text: bytes) -> None:
    tampered(packed, lambda files: files.update({MANIFEST: text}))
    with pytest.raises(DataError, match="cannot be read"):
        unpack_model(packed, tmp_path / "out")


def test_a_package_of_a_later_version_asks_for_an_update(packed: Path, tmp_path: Path) -> None:
    later = {MANIFEST: b'{"format": "biom3d-model", "format_version": 2, "files": {}}'}
    tampered(packed, lambda files: files.update(later))
    with pytest.raises(DataError, match="update biom3d"):
        unpack_model(packed, tmp_path / "out")


def test_a_file_that_the_manifest_does_not_name_is_refused(packed: Path, tmp_path: Path) -> None:
    tampered(packed, lambda files: files.update({"fold_0/extra": b"x"}))
    with pytest.raises(DataError, match="fold_0/extra"):
        unpack_model(packed, tmp_path / "out")


def test_a_cut_off_zip_is_refused(packed: Path, tmp_path: Path) -> None:
    packed.write_bytes(packed.read_bytes()[:-200])
    with pytest.raises(DataError, match="damaged"):
        unpack_model(packed, tmp_path / "out")


def test_a_missing_zip_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no model package .*missing\.zip"):
        unpack_model(tmp_path / "missing.zip", tmp_path / "out")


def test_a_target_that_is_a_file_is_an_output_error(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="out"):
        unpack_model(packed, tmp_path / "out")
