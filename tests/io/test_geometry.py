"""Where a volume lies survives reading and writing, for every reader; units are read in all spellings."""

from dataclasses import replace
from itertools import product

import nibabel
import numpy as np
import ome_types
import pytest
import SimpleITK
import tifffile
import zarr

from biom3d.data.dataset import place_warnings, same_orientation
from biom3d.io import read_header, write_labels, write_volume
from biom3d.io.geometry import place_of

ANGLE = np.deg2rad(20)
OBLIQUE = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]])
DIRECTIONS = {
    "straight": np.eye(3),
    "flipped": np.diag([-1.0, 1, 1]),
    "oblique": OBLIQUE,
    "oblique and flipped": OBLIQUE @ np.diag([1.0, 1, -1]),
}
NAMES = ("a.tif", "a.ome.tif", "a.h5", "a.zarr")


def affine(name: str) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = DIRECTIONS[name] * (0.5, 0.7, 2)
    matrix[:3, 3] = (5, -7, 9)
    return matrix


def save_nifti(path, matrix, qform, sform, pixdim=None):
    image = nibabel.Nifti1Image(np.zeros((14, 12, 5), np.int16), None)
    image.header.set_xyzt_units("mm")
    image.set_qform(matrix, qform)
    image.set_sform(matrix, sform)
    if pixdim:
        image.header["pixdim"][1:4] = pixdim
    nibabel.save(image, path)


def labels_of(path, out):
    write_labels(out, np.zeros((5, 12, 14), np.uint8), read_header(path))
    return out


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_labels_lie_on_their_nifti_image_for_every_pair_of_codes(tmp_path, direction):
    for qform, sform in product(range(5), range(5)):
        save_nifti(tmp_path / "a.nii", affine(direction), qform, sform)
        labels_of(tmp_path / "a.nii", tmp_path / "b.nii")
        assert seen_by_nibabel(tmp_path / "a.nii") == seen_by_nibabel(tmp_path / "b.nii")
        assert seen_by_itk(tmp_path / "a.nii") == seen_by_itk(tmp_path / "b.nii")


def seen_by_nibabel(path):
    image = nibabel.load(path)
    forms = [*image.get_qform(coded=True), *image.get_sform(coded=True), image.affine, image.header["pixdim"]]
    return [None if one is None else np.asarray(one).tolist() for one in forms]


def seen_by_itk(path):
    image = SimpleITK.ReadImage(path)
    return image.GetOrigin(), image.GetDirection(), image.GetSpacing(), image.GetSize()


def test_two_transforms_that_differ_both_survive(tmp_path):
    save_nifti(tmp_path / "a.nii", affine("straight"), 1, 0)
    image = nibabel.load(tmp_path / "a.nii")
    image.set_sform(affine("oblique"), 4)
    nibabel.save(image, tmp_path / "c.nii")
    labels_of(tmp_path / "c.nii", tmp_path / "b.nii")
    assert seen_by_nibabel(tmp_path / "c.nii") == seen_by_nibabel(tmp_path / "b.nii")


def test_a_scale_of_the_affine_that_is_not_pixdim_is_kept_and_told(tmp_path):
    save_nifti(tmp_path / "a.nii", affine("straight"), 0, 1, pixdim=(1, 1, 1))
    header = read_header(tmp_path / "a.nii")
    assert (header.remarks[0].kind, "1 x 1 x 1 and 2 x 0.7 x 0.5 mm" in header.remarks[0].text) == ("warning", True)
    labels_of(tmp_path / "a.nii", tmp_path / "b.nii")
    assert seen_by_nibabel(tmp_path / "a.nii") == seen_by_nibabel(tmp_path / "b.nii")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("second", NAMES)
def test_an_origin_survives_from_format_to_format(tmp_path, make, header, name, second):
    (tmp_path / "1").mkdir()
    write_volume(tmp_path / "1" / name, make(1, 5, 12, 14), replace(header, origin_um=(5.0, -7.0, 9.0)))
    write_labels(tmp_path / second, make(5, 12, 14), read_header(tmp_path / "1" / name))
    assert read_header(tmp_path / second).origin_um == pytest.approx((5, -7, 9), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_origin_stays_no_origin(tmp_path, make, header, name):
    write_volume(tmp_path / name, make(1, 5, 12, 14), header)
    assert read_header(tmp_path / name).origin_um is None


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("where", ["level", "image", "both"])
def test_the_translation_of_ome_zarr_is_read_and_written(tmp_path, make, version, where):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2 if version == "0.4" else 3)
    group.create_array("0", data=make(5, 12, 14))
    scale = {"type": "scale", "scale": [0.5, 0.5, 0.5]}
    shift = {"type": "translation", "translation": [5.0, 7.0, 9.0]}
    own = [scale, shift] if where != "image" else [scale]
    outer = {"image": [{"type": "scale", "scale": [1, 1, 1]}, shift], "both": [{"type": "scale", "scale": [2, 2, 2]}]}
    multiscale = {
        "version": version,
        "axes": [{"name": axis, "type": "space", "unit": "millimeter"} for axis in "zyx"],
        "datasets": [{"path": "0", "coordinateTransformations": own}],
        "coordinateTransformations": outer.get(where, []),
    }
    content = {"multiscales": [multiscale]}
    group.attrs.update(content if version == "0.4" else {"ome": {"version": version, **content}})
    factor = 2 if where == "both" else 1
    assert place_of(read_header(tmp_path / "a.zarr")) == pytest.approx([factor * um for um in (5000, 7000, 9000)])
    labels_of(tmp_path / "a.zarr", tmp_path / "b.zarr")
    attributes = dict(zarr.open_group(tmp_path / "b.zarr", mode="r").attrs)
    steps = attributes.get("ome", attributes)["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert steps[1]["translation"] == [5 * factor, 7 * factor, 9 * factor]


def test_the_stage_position_of_ome_tiff_survives_as_it_was(tmp_path, make):
    position = {"PositionX": 1.5, "PositionXUnit": "mm", "PositionY": 2.5, "PositionYUnit": "reference frame"}
    planes = {key: [value] * 5 for key, value in position.items()}
    sizes = {"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1, "PhysicalSizeZ": 0.3}
    tifffile.imwrite(tmp_path / "a.ome.tif", make(5, 12, 14), metadata={"axes": "ZYX", "Plane": planes, **sizes})
    labels_of(tmp_path / "a.ome.tif", tmp_path / "b.ome.tif")
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as file:
        plane = ome_types.from_xml(file.ome_metadata).images[0].pixels.planes[0]
    assert (plane.position_x, plane.position_x_unit.value) == (1.5, "mm")
    assert (plane.position_y, plane.position_y_unit.value) == (2.5, "reference frame")


def test_planes_of_ome_tiff_lie_one_step_apart(tmp_path, make, header):
    write_volume(tmp_path / "a.ome.tif", make(1, 5, 12, 14), replace(header, origin_um=(1.0, 0.0, 0.0)))
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        planes = ome_types.from_xml(file.ome_metadata).images[0].pixels.planes
    assert [plane.position_z for plane in planes] == pytest.approx([1, 1.3, 1.6, 1.9, 2.2])


def test_the_origin_of_imagej_is_in_pixels(tmp_path, make):
    metadata = {"axes": "ZYX", "spacing": 2.0, "unit": "um", "xorigin": 10, "zorigin": -3}
    tifffile.imwrite(tmp_path / "a.tif", make(5, 12, 14), imagej=True, resolution=(2, 2), metadata=metadata)
    assert read_header(tmp_path / "a.tif").origin_um == (6, 0, -5)
    labels_of(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        found = file.imagej_metadata
    assert (found["xorigin"], found["yorigin"], found["zorigin"]) == (10, 0, -3)


def test_another_place_is_told_with_both_values(tmp_path):
    save_nifti(tmp_path / "a.nii", affine("straight"), 1, 1)
    moved = affine("straight")
    moved[:3, 3] += (1, 0, 0)
    save_nifti(tmp_path / "b.nii", moved, 1, 1)
    files = [tmp_path / "b.nii", tmp_path / "a.nii"]
    (line,) = place_warnings(files[0], read_header(files[0]), files[1], read_header(files[1]))
    assert "at 9, -7, 6 mm and at 9, -7, 5 mm (z, y, x)" in line


@pytest.mark.parametrize(("shift", "codes"), [(0.2, 1), (100, 0)])
def test_less_than_half_a_voxel_or_no_place_at_all_needs_no_word(tmp_path, shift, codes):
    save_nifti(tmp_path / "a.nii", affine("straight"), 1, 1)
    moved = affine("straight")
    moved[:3, 3] += shift
    save_nifti(tmp_path / "b.nii", moved, codes, codes)
    first, second = read_header(tmp_path / "a.nii"), read_header(tmp_path / "b.nii")
    assert place_warnings(tmp_path, first, tmp_path, second) == []


def test_a_file_without_direction_agrees_with_every_other(tmp_path):
    save_nifti(tmp_path / "a.nii", affine("straight"), 1, 1)
    save_nifti(tmp_path / "b.nii", affine("straight"), 0, 0)
    save_nifti(tmp_path / "c.nii", affine("flipped"), 1, 1)
    headers = [read_header(tmp_path / f"{name}.nii") for name in "abc"]
    assert [same_orientation(headers[0], one) for one in headers] == [True, True, False]


# Units


def imagej(path, lines, y=0.5, code="utf-8"):
    """Write what ImageJ writes, with its words as they are."""
    text = f"ImageJ=1.53t\nimages=5\nslices=5\n{lines}loop=false\n".encode(code)
    sizes = {"resolution": (2, 1 / y), "resolutionunit": 1}
    tifffile.imwrite(
        path, np.zeros((5, 12, 14), np.uint8), metadata=None, byteorder=">", description=text, contiguous=True, **sizes
    )
    return read_header(path)


@pytest.mark.parametrize("code", ["utf-8", "latin-1"])
@pytest.mark.parametrize("unit", ["µm", "\\u00B5m", "um", "micron"])
def test_imagej_may_write_the_letter_itself(tmp_path, unit, code):
    assert imagej(tmp_path / "a.tif", f"unit={unit}\nspacing=2.0\n", code=code).spacing_um == (2, 0.5, 0.5)


@pytest.mark.parametrize("unit", ["Âµm", "Î¼m"])
def test_a_letter_that_was_decoded_wrongly_is_understood(tmp_path, unit):
    assert imagej(tmp_path / "a.tif", f"unit={unit}\nspacing=2.0\n").spacing_um == (2, 0.5, 0.5)


@pytest.mark.parametrize(
    ("lines", "y"),
    [
        ("unit=micron\nyunit=micron\nzunit=nm\nspacing=300.0\n", 0.5),
        ("unit=micron\nyunit=nm\nzunit=micron\nspacing=0.3\n", 500),
        ("unit=pm\nyunit=micron\nzunit=micron\nspacing=0.3\n", 0.5),
    ],
)
def test_imagej_may_have_a_unit_for_each_axis(tmp_path, lines, y):
    x = 0.5e-6 if "unit=pm" in lines else 0.5
    assert imagej(tmp_path / "a.tif", lines, y).spacing_um == pytest.approx((0.3, 0.5, x))


@pytest.mark.parametrize("unit", ["furlong", "sec"])
def test_an_unknown_unit_is_named(tmp_path, unit):
    header = imagej(tmp_path / "a.tif", f"unit={unit}\nspacing=2.0\n")
    assert header.spacing_um is None
    assert f"unit '{unit}' is not known" in header.remarks[0].text


@pytest.mark.parametrize("unit", ["pixel", "Pixels", "null"])
def test_pixels_are_no_unknown_unit(tmp_path, unit):
    assert imagej(tmp_path / "a.tif", f"unit={unit}\nspacing=2.0\n").remarks == ()
