"""Files as other programs of the field write them, through the steps: the right result, or one line that says why."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
import zarr

from biom3d import check, eval, pred, preprocess, preprocess_train
from biom3d.export.__main__ import main as export
from biom3d.io import read_volume
from tests.dicom_files import itk_image, write_series
from tests.web_server import serve

SIDE = (16, 32, 32)
SPACE = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
Run = Callable[..., tuple[int, str]]


def mask_of(number: int) -> np.ndarray:
    z, y, x = np.ogrid[: SIDE[0], : SIDE[1], : SIDE[2]]
    return ((z - 8) ** 2 + (y - 12 - 2 * number) ** 2 + (x - 16) ** 2 < 36).astype(np.uint16)


def raw_of(number: int) -> np.ndarray:
    noise = np.random.default_rng(number).integers(50, 90, SIDE).astype(np.uint16)
    return (noise + 500 * mask_of(number)).astype(np.uint16)


SHARE = 100 * np.mean([mask_of(number).mean() for number in range(3)])  # per cent of class 1


@pytest.fixture
def run(capsys) -> Run:
    """Run a step; return its exit code and all that it printed."""

    def call(step: ModuleType | Callable[[list[str]], int], *words: object) -> tuple[int, str]:
        capsys.readouterr()
        main = step.main if isinstance(step, ModuleType) else step
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.err + said.out

    return call


def put_image(group: zarr.Group, array: np.ndarray, *more: dict) -> None:
    """Write an OME-Zarr 0.4 image by hand, as other programs do."""
    chunks = (4, *SIDE[1:])
    encoding = {"name": "v2", "separator": "/"}
    group.create_array("0", shape=array.shape, dtype=array.dtype, chunks=chunks, chunk_key_encoding=encoding)[...] = (
        array
    )
    steps = [{"type": "scale", "scale": [0.5, 0.5, 0.5]}, *more]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": SPACE, "datasets": datasets}]


def put_zarr(path: Path, array: np.ndarray, *more: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    put_image(zarr.open_group(path, mode="w", zarr_format=2), array, *more)


def put_imagej(path: Path, array: np.ndarray, **metadata: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"axes": "ZYX", "spacing": 0.5, "unit": "um"} | metadata
    tifffile.imwrite(path, array, imagej=True, resolution=(2, 2), metadata=said)


def put_nifti(path: Path, array: np.ndarray, affine: np.ndarray, pixdim: float | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array.T.astype(np.int16), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 0 if pixdim else 1)
    if pixdim:
        image.header["pixdim"][1:4] = pixdim
    nibabel.save(image, path)


def class_shares(folder: Path) -> float:
    """Return how many per cent of the voxels of preprocessed masks are class 1."""
    return float(100 * np.mean([np.load(path).mean() for path in sorted(folder.glob("*.npy"))]))


# Which array


@pytest.fixture
def h5_cases(tmp_path) -> Path:
    """HDF5 with raw and label in one file, as PlantSeg has them."""
    for number in range(3):
        with h5py.File(tmp_path / f"c{number}.h5", "w") as file:
            for name, array in (("raw", raw_of(number)), ("label", mask_of(number))):
                file.create_dataset(name, data=array).attrs["element_size_um"] = (0.5, 0.5, 0.5)
    return tmp_path


@pytest.fixture
def zarr_cases(tmp_path) -> Path:
    """OME-Zarr images with their segmentation in labels/nuclei, as the specification has it."""
    for number in range(3):
        root = zarr.open_group(tmp_path / f"c{number}.ome.zarr", mode="w", zarr_format=2)
        put_image(root, raw_of(number))
        labels = root.create_group("labels")
        labels.attrs["labels"] = ["nuclei"]
        put_image(labels.create_group("nuclei"), mask_of(number))
    return tmp_path


@pytest.mark.parametrize("layout", ["h5_cases", "zarr_cases"])
@pytest.mark.parametrize("more", [[], ["--instances"]])
def test_one_file_with_image_and_labels_serves_as_both(run, request, layout, more):
    cases = request.getfixturevalue(layout)
    code, said = run(check, "--img_path", cases, "--msk_path", cases, "--num_classes", 1, *more)
    assert (code, f"class 1: {SHARE:.3g} % of the voxels, in 3 of 3 masks" in said) == (0, True)
    assert "is taken as the mask" in said


@pytest.mark.parametrize("layout", ["h5_cases", "zarr_cases"])
def test_masks_in_the_files_of_the_images_need_no_second_path(run, request, layout, tmp_path):
    cases = request.getfixturevalue(layout)
    out = tmp_path / "pre"
    code, _ = run(preprocess, "--img_path", cases, "--out_dir", out, "--plan_out", tmp_path / "plan.yaml")
    assert (code, class_shares(out / "masks")) == (0, pytest.approx(SHARE))


def test_without_masks_anywhere_preprocess_says_so(run, tmp_path):
    put_imagej(tmp_path / "images" / "a.tif", raw_of(0))
    code, said = run(preprocess, "--img_path", tmp_path / "images", "--out_dir", tmp_path / "pre")
    assert (code, "give --msk_path DIR, the masks of the images" in said) == (2, True)


def test_the_image_itself_is_no_mask(run, h5_cases):
    words = ("--img_path", h5_cases, "--msk_path", h5_cases, "--msk_key", "raw", "--num_classes", 1)
    code, said = run(check, *words)
    assert (code, "the mask is its image" in said, "--num_classes " in said.partition("error")[2]) == (2, True, False)
    code, said = run(preprocess, *words, "--out_dir", h5_cases / "pre")
    assert (code, "its array 'raw' would be image and mask at once" in said) == (2, True)


def test_labels_in_an_ome_zarr_can_be_a_path(run, zarr_cases):
    path = zarr_cases / "c0.ome.zarr"
    for labels in (path / "labels" / "nuclei", f"{path}:labels/nuclei", f"{path}:nuclei"):
        code, said = run(check, "--img_path", path, "--msk_path", labels, "--num_classes", 1)
        assert (code, f"class 1: {100 * mask_of(0).mean():.3g} %" in said) == (0, True)


def test_a_zarr_array_without_metadata_says_what_it_is(run, tmp_path):
    zarr.save(str(tmp_path / "a.zarr"), raw_of(0))
    code, said = run(check, "--img_path", tmp_path)
    assert (code, "is a Zarr array of shape (16, 32, 32) without OME-Zarr metadata" in said) == (2, True)


def test_a_stack_written_page_by_page_is_read(run, tmp_path):
    with tifffile.TiffWriter(tmp_path / "loop.tif") as file:
        for plane in raw_of(0):
            file.write(plane)
    code, said = run(check, "--img_path", tmp_path)
    assert (code, "shape    16 x 32 x 32" in said, "16 single pictures of one size" in said) == (0, True, True)


def test_a_second_field_of_a_file_is_told(run, tmp_path):
    size = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 0.5}
    with tifffile.TiffWriter(tmp_path / "two.ome.tif") as file:
        for field in (raw_of(0), raw_of(0)[:5]):
            file.write(field, photometric="minisblack", metadata=size)
    code, said = run(check, "--img_path", tmp_path)
    assert (code, "(5 x 32 x 32, uint16) in the same file is left out" in said) == (0, True)
    code, said = run(check, "--img_path", f"{tmp_path}/two.ome.tif:1")
    assert (code, "shape    5 x 32 x 32" in said) == (0, True)


# Metadata and messages


def test_slices_that_are_stored_as_channels_are_named(run, tmp_path):
    for folder, array in (("images", raw_of(0)), ("masks", mask_of(0))):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", array, imagej=True)  # 16 channels, one plane
    advice = "if these are slices, set them as such (Fiji: Image > Properties, channels 1, slices 16"
    code, said = run(check, "--img_path", tmp_path / "images", "--msk_path", tmp_path / "masks", "--num_classes", 1)
    assert (code, advice in said.partition("error")[2], "one grey-value image" in said) == (2, True, False)
    code, said = run(check, "--img_path", tmp_path / "images")
    assert (code, "16 channels in a 2D image" in said, advice in said) == (0, True, True)


def test_a_renamed_ome_tiff_is_read(run, tmp_path):
    uuid = '<UUID FileName="before.ome.tif">urn:uuid:11111111-2222-3333-4444-555555555555</UUID>'
    planes = "".join(f'<TiffData FirstZ="{z}" IFD="{z}" PlaneCount="1">{uuid}</TiffData>' for z in range(16))
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="32" SizeY="32"'
        ' SizeZ="16" SizeC="1" SizeT="1" PhysicalSizeX="0.2" PhysicalSizeY="0.2" PhysicalSizeZ="0.6">'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
    )
    options = {"photometric": "minisblack", "metadata": None}
    tifffile.imwrite(tmp_path / "after.ome.tif", raw_of(0), description=xml.encode(), **options)
    code, said = run(check, "--img_path", tmp_path)
    assert (code, "shape    16 x 32 x 32" in said, "0.6 x 0.2 x 0.2 µm" in said) == (0, True, True)
    assert "was called 'before.ome.tif'" in said


def test_composed_and_decomposed_names_pair(run, tmp_path):
    for number in range(2):
        name = f"Zölle é {number}.tif"
        put_imagej(tmp_path / "images" / unicodedata.normalize("NFC", name), raw_of(number))
        put_imagej(tmp_path / "masks" / unicodedata.normalize("NFD", name), mask_of(number))
    code, said = run(check, "--img_path", tmp_path / "images", "--msk_path", tmp_path / "masks", "--num_classes", 1)
    assert (code, "cases    2" in said) == (0, True)


# Silence


def test_what_is_passed_over_is_told_and_strict_refuses_it(run, tmp_path):
    put_imagej(tmp_path / "a.tif", raw_of(0))
    (tmp_path / "c.czi").write_bytes(b"ZISRAWFILE" + bytes(90))
    (tmp_path / "day2").mkdir()
    code, said = run(check, "--img_path", tmp_path)
    assert (code, "warning" in said, "1 file and 1 folder passed over: 'c.czi', 'day2'" in said) == (0, True, True)
    code, said = run(check, "--img_path", tmp_path, "--strict")
    assert (code, "error: 1 problem" in said, "'c.czi', 'day2'" in said) == (2, True, True)


def test_missing_chunks_are_told(run, tmp_path):
    put_zarr(tmp_path / "a.ome.zarr", raw_of(0))
    for part in ("2", "3"):
        for chunk in (tmp_path / "a.ome.zarr" / "0" / part).rglob("*"):
            if chunk.is_file():
                chunk.unlink()
    code, said = run(check, "--img_path", tmp_path)
    assert (code, "2 of 4 chunks are not there and count as 0: is the copy whole?" in said) == (0, True)


# Geometry


def moved(by: float) -> np.ndarray:
    affine = np.diag([0.5, 0.5, 0.5, 1.0])
    affine[:3, 3] = by
    return affine


def test_a_mask_or_truth_of_another_place_is_told(run, tmp_path):
    for folder, array, by in (("images", raw_of(0), 0), ("masks", mask_of(0), 0), ("shifted", mask_of(0), 90)):
        put_nifti(tmp_path / folder / "a.nii.gz", array, moved(by))
    masks, shifted = tmp_path / "masks", tmp_path / "shifted"
    for words in (
        (check, "--img_path", tmp_path / "images", "--msk_path", shifted, "--num_classes", 1),
        (eval, "--path_pred", shifted, "--path_lab", masks),
    ):
        code, said = run(*words)
        assert (code, "the first voxel is at 90, 90, 90 mm and at 0, 0, 0 mm" in said) == (0, True)
        assert run(*words, "--strict")[0] == 2


def test_lengths_are_told_in_the_unit_of_the_data(run, tmp_path):
    put_nifti(tmp_path / "pred" / "a.nii.gz", mask_of(1), moved(0))
    put_nifti(tmp_path / "true" / "a.nii.gz", mask_of(0), moved(0))
    words = ("--path_pred", tmp_path / "pred", "--path_lab", tmp_path / "true", "--out_json", tmp_path / "m.json")
    code, said = run(eval, *words)
    micrometres = json.loads((tmp_path / "m.json").read_text())["cases"][0]["hd95_um"]
    assert (code, f"HD95 {micrometres / 1000:.2f} mm" in said, micrometres > 100) == (0, True, True)
    assert "spacing  0.5 x 0.5 x 0.5 mm (z, y, x)" in run(check, "--img_path", tmp_path / "true")[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model that has seen 0.5 µm; two steps of training are enough for where things lie."""
    folder = tmp_path_factory.mktemp("model")
    for number in range(2):
        put_imagej(folder / "images" / f"c{number}.tif", raw_of(number))
        put_imagej(folder / "masks" / f"c{number}.tif", mask_of(number))
    options = ["--folds", 1, "--num_epochs", 1, "--num_steps", 2, "--batch_size", 2, "--width", 4]
    options += ["--patch_size", 16, 16, 16]
    paths = ["--img_path", folder / "images", "--msk_path", folder / "masks", "--out_dir", folder / "pre"]
    words = [*paths, "--plan_out", folder / "plan.yaml", "--run_dir", folder / "run", *options]
    assert preprocess_train.main([str(word) for word in words]) == 0
    return folder / "run"


def test_a_prediction_lies_where_its_nifti_image_lies_though_the_header_contradicts_itself(run, model, tmp_path):
    put_nifti(tmp_path / "images" / "a.nii.gz", raw_of(0), moved(3), pixdim=1.0)
    code, said = run(check, "--img_path", tmp_path / "images")
    assert (code, "two voxel sizes, 1 x 1 x 1 and 0.5 x 0.5 x 0.5 mm" in said) == (0, True)
    words = ("--log", model, "--path_in", tmp_path / "images", "--out_dir", tmp_path / "pred")
    assert run(pred, *words, "--spacing", 0.5, 0.5, 0.5)[0] == 0
    image, labels = (nibabel.load(tmp_path / folder / "a.nii.gz") for folder in ("images", "pred"))
    np.testing.assert_array_equal(labels.affine, image.affine)
    np.testing.assert_array_equal(labels.header["pixdim"], image.header["pixdim"])


def test_a_prediction_and_an_export_keep_the_translation_of_their_image(run, model, tmp_path):
    shift = {"type": "translation", "translation": [5.0, 7.0, 9.0]}
    put_zarr(tmp_path / "images" / "a.zarr", raw_of(0), shift)
    assert run(pred, "--log", model, "--path_in", tmp_path / "images", "--out_dir", tmp_path / "pred")[0] == 0
    paths = ("--path_pred", tmp_path / "pred", "--path_in", tmp_path / "images", "--out_dir", tmp_path / "out")
    assert run(export, "labels", *paths, "--formats", "ome-zarr")[0] == 0
    exported = tmp_path / "out" / "a.ome.zarr"
    for path in (tmp_path / "pred" / "a.zarr", exported, exported / "labels" / "prediction"):
        attributes = dict(zarr.open_group(path, mode="r").attrs)
        level = attributes.get("ome", attributes)["multiscales"][0]["datasets"][0]
        assert shift in level["coordinateTransformations"]


def test_a_prediction_without_voxel_size_says_what_is_assumed(run, model, tmp_path):
    tifffile.imwrite(tmp_path / "thick.tif", raw_of(0)[::3], photometric="minisblack", metadata={"axes": "ZYX"})
    words = ("--log", model, "--path_in", tmp_path / "thick.tif")
    code, said = run(pred, *words, "--out_dir", tmp_path / "1")
    assert (code, "does not tell its voxel size; that of the model is assumed, 0.5 x 0.5 x 0.5 µm" in said) == (0, True)
    code, said = run(pred, *words, "--out_dir", tmp_path / "2", "--spacing", 1.5, 0.5, 0.5)
    assert (code, "assumed" in said) == (0, False)
    code, said = run(pred, *words, "--out_dir", tmp_path / "3", "--strict")
    assert (code, (tmp_path / "3").exists()) == (2, False)


def test_intensities_unlike_those_of_training_are_told(run, model, tmp_path):
    put_imagej(tmp_path / "images" / "same.tif", raw_of(7))
    hot = np.random.default_rng(0).random(SIDE) < 0.015  # a few voxels far brighter than all others
    put_imagej(tmp_path / "images" / "other.tif", np.where(hot, 50000, raw_of(8)).astype(np.uint16))
    words = ("--log", model, "--path_in", tmp_path / "images", "--out_dir")
    code, said = run(pred, *words, tmp_path / "pred")
    told = [line for line in said.splitlines() if "unlike those of training" in line]
    assert (code, len(told), "other.tif': intensities unlike" in told[0]) == (0, 1, True)
    code, said = run(pred, *words, tmp_path / "strict", "--strict")
    assert (code, "(a warning, which --strict makes an error)" in said) == (2, True)


def test_dicom_series_go_through_the_steps(run, model, tmp_path):
    image = write_series(tmp_path / "images" / "p1", raw_of(0).astype(np.int16))
    write_series(tmp_path / "images" / "p2", raw_of(1).astype(np.int16))
    (tmp_path / "masks").mkdir()
    for number, name in enumerate(("p1", "p2")):
        labels = itk_image(mask_of(number).astype(np.uint8))
        SimpleITK.WriteImage(labels, tmp_path / "masks" / f"{name}.nii.gz")
    paths = ("--img_path", tmp_path / "images", "--msk_path", tmp_path / "masks")
    code, said = run(check, *paths, "--strict")
    assert (code, "2 x 0.7 x 0.5 mm" in said) == (0, True)
    assert (
        run(preprocess, *paths, "--out_dir", tmp_path / "pre", "--plan_out", tmp_path / "p.yaml", "--folds", 1)[0] == 0
    )
    words = ("--log", model, "--path_in", tmp_path / "images", "--out_dir", tmp_path / "pred")
    assert run(pred, *words, "--spacing", 0.5, 0.5, 0.5)[0] == 0  # as if it were a model of such images
    assert sorted(path.name for path in (tmp_path / "pred").glob("*.nii*")) == ["p1.nii.gz", "p2.nii.gz"]
    predicted = SimpleITK.ReadImage(tmp_path / "pred" / "p1.nii.gz")
    for place in ((0, 0, 0), (31, 3, 15)):
        there = predicted.TransformIndexToPhysicalPoint(place)
        assert there == pytest.approx(image.TransformIndexToPhysicalPoint(place), abs=1e-4)


def test_an_image_at_a_url_is_predicted_and_travels_once(run, model, tmp_path):
    put_zarr(tmp_path / "served" / "a.zarr", raw_of(0))
    with serve(tmp_path / "served") as server:
        url = f"http://127.0.0.1:{server.server_port}/a.zarr"
        assert run(pred, "--log", model, "--path_in", url, "--out_dir", tmp_path / "far")[0] == 0
        chunks = [path for path, _ in server.asked if path.startswith("/a.zarr/0/") and "." not in path[10:]]
        assert sorted(chunks) == [f"/a.zarr/0/{z}/0/0" for z in range(4)]
    assert run(pred, "--log", model, "--path_in", tmp_path / "served", "--out_dir", tmp_path / "near")[0] == 0
    far, near = (read_volume(tmp_path / name / "a.zarr") for name in ("far", "near"))
    np.testing.assert_array_equal(far.array, near.array)


def test_an_image_in_a_file_of_several_is_predicted_under_the_name_of_the_file(run, model, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("one", "two"):
            file.create_dataset(f"volumes/{name}", data=raw_of(0)).attrs["element_size_um"] = (0.5, 0.5, 0.5)
    words = ("--log", model, "--out_dir", tmp_path / "pred", "--path_in")
    code, said = run(pred, *words, tmp_path / "a.h5")
    assert (code, "'volumes/one'" in said, "--img_key" in said) == (2, True, True)
    assert run(pred, *words, f"{tmp_path}/a.h5:/volumes/two")[0] == 0
    assert sorted(path.name for path in (tmp_path / "pred").glob("*.h5")) == ["a.h5"]


def test_an_empty_prediction_is_valid_ome_zarr(run, tmp_path):
    put_imagej(tmp_path / "images" / "a.tif", raw_of(0))
    put_imagej(tmp_path / "pred" / "a.tif", np.zeros(SIDE, np.uint8))
    paths = ("--path_pred", tmp_path / "pred", "--path_in", tmp_path / "images", "--out_dir", tmp_path / "out")
    assert run(export, "labels", *paths)[0] == 0
    content = (tmp_path / "out" / "a.ome.zarr" / "labels" / "prediction" / "zarr.json").read_text()
    label = json.loads(content)["attributes"]["ome"]["image-label"]
    assert not {"colors", "properties"} & set(label)  # the schema allows no empty lists


# The table of docs/formats.md


def test_every_situation_of_the_table_names_a_test_that_is_there():
    tests = Path(__file__).parent
    text = (tests.parent / "docs/formats.md").read_text(encoding="utf-8")
    rows = [line for line in text.partition("## Situations of the field")[2].splitlines() if line.startswith("| ")][1:]
    for row in rows:
        place = row.split("`")[-2]
        file, _, name = place.rpartition("::")
        assert f"\ndef {name}(" in (tests / (file or "test_field_data.py")).read_text(encoding="utf-8"), row
    assert len(rows) == 36
