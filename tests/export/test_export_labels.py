"""Exported labels are what was predicted, in files that the judges of both formats accept."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ome_types
import pytest
import tifffile
import zarr
from ome_zarr_models.v05 import Image, ImageLabel, Labels

from biom3d.export import main
from biom3d.io import Header, read_header, read_volume, write_labels, write_volume

SHAPE = (2, 5, 20, 30)
SPACING = (0.5, 0.2, 0.3)
Export = Callable[..., Path]


def make_case(folder: Path, name: str, shape: tuple[int, int, int, int] = SHAPE, axes: str = "CZYX") -> None:
    rng = np.random.default_rng(0)
    header = Header(shape, np.dtype("uint16"), axes, SPACING, ("DAPI", "GFP") if shape[0] == 2 else ())
    write_volume(folder / "in" / name, rng.integers(100, 4000, shape).astype(np.uint16), header)
    write_labels(folder / "pred" / name, rng.integers(0, 3, shape[1:]).astype(np.uint8), header)


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Export what lies in `pred` and `in`, and return the output folder."""

    def run(*options: str, code: int = 0) -> Path:
        folders = [str(tmp_path / name) for name in ("pred", "in", "out")]
        argv = ["labels", "--path_pred", folders[0], "--path_in", folders[1], "--out_dir", folders[2], *options]
        assert main(argv) == code
        return Path(folders[2])

    return run


@pytest.fixture
def out(tmp_path: Path, export: Export) -> Path:
    make_case(tmp_path, "n1.tif")
    return export()


@pytest.fixture
def wide(tmp_path: Path, export: Export) -> zarr.Group:
    """An exported image that needs three levels, with odd sides."""
    make_case(tmp_path, "wide.tif", (2, 2, 9, 521))
    return zarr.open_group(export("--formats", "ome-zarr") / "wide.ome.zarr", mode="r")


def labels_of(folder: Path, name: str = "n1.tif") -> np.ndarray:
    return read_volume(folder / "pred" / name).array[0]


def test_ome_tiff_holds_the_labels(out: Path, tmp_path: Path) -> None:
    assert (read_volume(out / "n1.ome.tif").array[0] == labels_of(tmp_path)).all()


def test_ome_tiff_is_valid_for_ome_types_and_names_the_labels(out: Path) -> None:
    pixels = ome_types.from_tiff(out / "n1.ome.tif").images[0].pixels
    assert [channel.name for channel in pixels.channels] == ["prediction"]


def test_ome_tiff_has_the_voxel_size_of_the_image(out: Path) -> None:
    pixels = ome_types.from_tiff(out / "n1.ome.tif").images[0].pixels
    sizes = (pixels.physical_size_z, pixels.physical_size_y, pixels.physical_size_x)
    assert sizes == pytest.approx(SPACING)
    assert pixels.physical_size_x_unit.value == "µm"


def test_ome_tiff_is_compressed(out: Path) -> None:
    with tifffile.TiffFile(out / "n1.ome.tif") as file:
        assert file.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE


def test_labels_of_64_bits_are_stored_in_fewer(tmp_path: Path, export: Export) -> None:
    make_case(tmp_path, "n1.npy")
    np.save(tmp_path / "pred" / "n1.npy", np.full(SHAPE[1:], 300, np.int64))
    assert read_header(export("--formats", "ome-tiff") / "n1.ome.tif").dtype == np.uint16


def test_ome_zarr_image_is_valid_and_equal(out: Path, tmp_path: Path) -> None:
    group = zarr.open_group(out / "n1.ome.zarr", mode="r")
    Image.from_zarr(group)
    assert (np.asarray(group["0"]) == read_volume(tmp_path / "in" / "n1.tif").array).all()


def test_ome_zarr_labels_are_valid_and_equal(out: Path, tmp_path: Path) -> None:
    group = zarr.open_group(out / "n1.ome.zarr", mode="r")
    assert Labels.from_zarr(group["labels"]).label_paths == ["prediction"]
    assert (np.asarray(group["labels/prediction/0"]) == labels_of(tmp_path)).all()


def test_the_labels_group_states_its_version(out: Path) -> None:
    attributes = json.loads((out / "n1.ome.zarr" / "labels" / "zarr.json").read_text())["attributes"]
    assert attributes["ome"]["version"] == "0.5"


def test_the_image_label_points_to_its_image_and_colours_its_classes(out: Path) -> None:
    label = ImageLabel.from_zarr(zarr.open_group(out / "n1.ome.zarr" / "labels" / "prediction", mode="r"))
    content = label.attributes.ome.image_label
    assert content.source.image == "../../"
    assert [colour.label_value for colour in content.colors] == [1, 2]


def test_classes_have_the_names_that_were_given(tmp_path: Path, export: Export) -> None:
    make_case(tmp_path, "n1.tif")
    group = zarr.open_group(export("--class_names", "soma", "axon") / "n1.ome.zarr" / "labels" / "prediction", mode="r")
    properties = group.attrs["ome"]["image-label"]["properties"]
    assert properties == [{"label-value": 1, "name": "soma"}, {"label-value": 2, "name": "axon"}]
    ImageLabel.from_zarr(group)


def test_names_and_values_of_classes_must_be_as_many(tmp_path: Path, export: Export, capsys) -> None:
    make_case(tmp_path, "n1.tif")
    export("--class_names", "soma", "--label_values", "1", "4", code=2)
    assert "--class_names has 1 names, --label_values 2 values; wanted as many" in capsys.readouterr().err


def test_our_own_reader_finds_spacing_and_channels_of_the_image(out: Path) -> None:
    header = read_header(out / "n1.ome.zarr")
    assert (header.spacing_um, header.channel_names) == (SPACING, ("DAPI", "GFP"))


def test_our_own_reader_finds_the_spacing_of_the_labels(out: Path) -> None:
    group = zarr.open_group(out / "n1.ome.zarr" / "labels" / "prediction", mode="r")
    multiscale = group.attrs["ome"]["multiscales"][0]
    assert multiscale["datasets"][0]["coordinateTransformations"][0]["scale"] == list(SPACING)
    assert {axis["unit"] for axis in multiscale["axes"]} == {"micrometer"}


def test_named_channels_open_with_their_own_contrast(out: Path, tmp_path: Path) -> None:
    window = zarr.open_group(out / "n1.ome.zarr", mode="r").attrs["ome"]["omero"]["channels"][0]["window"]
    channel = read_volume(tmp_path / "in" / "n1.tif").array[0]
    assert (window["start"], window["end"]) == (channel.min(), channel.max())


def test_levels_halve_the_plane_until_it_fits(wide: zarr.Group) -> None:
    assert [wide[level].shape for level in "012"] == [(2, 2, 9, 521), (2, 2, 5, 261), (2, 2, 3, 131)]
    assert "3" not in wide


def test_image_and_labels_have_the_same_grids(wide: zarr.Group) -> None:
    labels = wide["labels/prediction"]
    assert [labels[level].shape for level in "012"] == [wide[level].shape[1:] for level in "012"]


def test_a_coarser_level_of_the_image_is_a_mean(wide: zarr.Group) -> None:
    block = np.asarray(wide["0"])[0, 0, 2:4, 4:6]
    assert wide["1"][0, 0, 1, 2] == np.rint(block.mean())


def test_a_coarser_level_of_the_labels_holds_no_new_label(wide: zarr.Group) -> None:
    assert (np.asarray(wide["labels/prediction/1"]) == np.asarray(wide["labels/prediction/0"])[:, ::2, ::2]).all()


def test_the_field_of_view_stays_where_it_was(wide: zarr.Group) -> None:
    """The first pixel of level 2 stands for four, so its left edge is that of the first pixel of level 0."""
    scale, shift = wide.attrs["ome"]["multiscales"][0]["datasets"][2]["coordinateTransformations"]
    assert shift["translation"][-1] - scale["scale"][-1] / 2 == pytest.approx(-SPACING[2] / 2)


@pytest.mark.parametrize(("shape", "axes"), [((1, 1, 20, 30), "YX"), ((1, 5, 20, 30), "ZYX"), (SHAPE, "ZCYX")])
def test_any_axes_give_a_valid_image(
    tmp_path: Path, export: Export, shape: tuple[int, int, int, int], axes: str
) -> None:
    make_case(tmp_path, "n1.tif", shape, axes)
    Image.from_zarr(zarr.open_group(export() / "n1.ome.zarr", mode="r"))
    assert read_header(export() / "n1.ome.zarr").shape == shape


def test_spacing_of_the_command_line_wins(tmp_path: Path, export: Export) -> None:
    make_case(tmp_path, "n1.tif")
    out = export("--spacing", "3", "2", "1")
    assert read_header(out / "n1.ome.zarr").spacing_um == read_header(out / "n1.ome.tif").spacing_um == (3, 2, 1)


def test_only_the_formats_asked_for_are_written(tmp_path: Path, export: Export) -> None:
    make_case(tmp_path, "n1.tif")
    assert [path.name for path in export("--formats", "ome-tiff").iterdir()] == ["n1.ome.tif"]


def test_names_with_spaces_brackets_and_unicode_are_kept(tmp_path: Path, export: Export) -> None:
    make_case(tmp_path, "größe (2) [x] 'y'.v1.tif")
    names = sorted(path.name for path in export().iterdir())
    assert names == ["größe (2) [x] 'y'.v1.ome.tif", "größe (2) [x] 'y'.v1.ome.zarr"]


def test_a_rerun_replaces_our_own_and_leaves_the_rest(out: Path, export: Export) -> None:
    (out / "notes.txt").write_text("mine")
    export()
    assert sorted(path.name for path in out.iterdir()) == ["n1.ome.tif", "n1.ome.zarr", "notes.txt"]


def test_a_zarr_that_is_not_ours_is_left_alone(tmp_path: Path, export: Export, capsys: pytest.CaptureFixture) -> None:
    make_case(tmp_path, "n1.tif")
    (tmp_path / "out" / "n1.ome.zarr").mkdir(parents=True)
    export(code=2)
    assert "not made by export" in capsys.readouterr().err


def test_an_export_into_the_inputs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make_case(tmp_path, "n1.ome.tif")
    folders = [str(tmp_path / name) for name in ("pred", "in", "pred")]
    assert main(["labels", "--path_pred", folders[0], "--path_in", folders[1], "--out_dir", folders[2]]) == 2
    assert "would replace the input" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["ome-tiff", "ome-zarr"])
def test_labels_of_another_shape_are_refused_and_leave_nothing(
    tmp_path: Path, export: Export, form: str, capsys: pytest.CaptureFixture
) -> None:
    make_case(tmp_path, "n1.tif")
    write_labels(tmp_path / "pred" / "n1.tif", np.ones((4, 20, 30), np.uint8), read_header(tmp_path / "in" / "n1.tif"))
    out = export("--formats", form, code=2)
    assert "(1, 4, 20, 30)" in capsys.readouterr().err
    assert not out.exists() or not list(out.iterdir())


def test_an_image_cut_off_in_the_middle_leaves_nothing_under_the_name(
    tmp_path: Path, export: Export, capsys: pytest.CaptureFixture
) -> None:
    make_case(tmp_path, "n1.nii.gz")
    image = tmp_path / "in" / "n1.nii.gz"
    image.write_bytes(image.read_bytes()[:5000])
    assert list(export("--formats", "ome-zarr", code=2).iterdir()) == []


def test_a_prediction_without_image_is_named(tmp_path: Path, export: Export, capsys: pytest.CaptureFixture) -> None:
    make_case(tmp_path, "n1.tif")
    (tmp_path / "in" / "n1.tif").rename(tmp_path / "in" / "other.tif")
    export(code=2)
    assert "'n1'; found there: 'other'" in capsys.readouterr().err


def test_an_image_without_prediction_is_warned_of(
    tmp_path: Path, export: Export, capsys: pytest.CaptureFixture
) -> None:
    make_case(tmp_path, "n1.tif")
    make_case(tmp_path, "n2.tif")
    (tmp_path / "pred" / "n2.tif").unlink()
    export()
    assert "left out: 'n2'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../evil", "", "a b", "a/b"])
def test_a_label_name_that_is_no_name_is_refused(
    tmp_path: Path, export: Export, name: str, capsys: pytest.CaptureFixture
) -> None:
    make_case(tmp_path, "n1.tif")
    export("--label_name", name, code=2)
    assert "--label_name" in capsys.readouterr().err


def test_a_case_that_cannot_be_exported_does_not_stop_the_others(tmp_path: Path, export: Export, capfd) -> None:
    for name in ("a.tif", "b.tif", "c.tif"):
        make_case(tmp_path, name)
    header = Header((1, 5, 20, 29), np.dtype("uint8"), "ZYX", SPACING)
    write_labels(tmp_path / "pred" / "b.tif", np.zeros((5, 20, 29), np.uint8), header)
    out = export("--formats", "ome-tiff", code=2)
    assert sorted(path.name for path in out.iterdir()) == ["a.ome.tif", "c.ome.tif"]
    said = capfd.readouterr().err
    assert "1 of 3 cases cannot be exported; the others are done:" in said
    assert "b.tif' have shape (1, 5, 20, 29)" in said
