import contextlib
import re

import numpy as np
import ome_types
import pytest
import tifffile

from biom3d.errors import DataError
from biom3d.io import Header, read_header, read_volume, write_labels, write_volume

KINDS = {
    "plain": {"metadata": None},
    "shaped": {},
    "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
    "tiled": {"tile": (16, 16), "metadata": {"axes": "ZYX"}},
}


def test_imagej_zcyx_becomes_czyx(tmp_path, make):
    array = make(5, 2, 12, 14)
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "ZCYX"})
    back = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(back.array, array.swapaxes(0, 1))
    assert (back.header.axes, back.header.shape) == ("ZCYX", (2, 5, 12, 14))


def test_imagej_spacing_unit_and_resolution_give_the_voxel_size(tmp_path, make):
    metadata = {"axes": "ZYX", "spacing": 300, "unit": "nm"}
    resolution = (0.01, 0.005)
    tifffile.imwrite(tmp_path / "a.tif", make(5, 12, 14), imagej=True, resolution=resolution, metadata=metadata)
    header = read_header(tmp_path / "a.tif")
    assert (header.unit, header.spacing_um) == ("nm", pytest.approx((0.3, 0.2, 0.1)))


@pytest.mark.parametrize("unit", ["micron", "um", "\\u00B5m", "micrometer"])
def test_imagej_spells_micrometre_in_many_ways(tmp_path, make, unit):
    metadata = {"axes": "ZYX", "spacing": 2, "unit": unit}
    tifffile.imwrite(tmp_path / "a.tif", make(5, 12, 14), imagej=True, resolution=(2, 2), metadata=metadata)
    assert read_header(tmp_path / "a.tif").spacing_um == (2, 0.5, 0.5)


def test_imagej_leaves_spacing_out_when_it_is_one(tmp_path, make):
    tifffile.imwrite(tmp_path / "a.tif", make(5, 12, 14), imagej=True, resolution=(2, 2), metadata={"unit": "um"})
    assert read_header(tmp_path / "a.tif").spacing_um == (1, 0.5, 0.5)


def test_pixels_are_no_unit_of_length(tmp_path, make):
    metadata = {"axes": "ZYX", "spacing": 3, "unit": "pixel"}
    tifffile.imwrite(tmp_path / "a.tif", make(5, 12, 14), imagej=True, metadata=metadata)
    assert read_header(tmp_path / "a.tif").spacing_um is None


def test_a_72_dpi_tag_is_no_voxel_size(tmp_path, make):
    tifffile.imwrite(tmp_path / "a.tif", make(5, 12, 14), resolution=(72, 72), resolutionunit="INCH")
    assert read_header(tmp_path / "a.tif").spacing_um is None


def test_resolution_in_centimetres_counts_where_z_is_said(tmp_path, make):
    options = {"resolution": (50000, 50000), "resolutionunit": "CENTIMETER"}
    metadata = {"axes": "ZYX", "spacing": 0.5, "unit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", make(5, 12, 14), metadata=metadata, **options)
    assert read_header(tmp_path / "a.tif").spacing_um == pytest.approx((0.5, 0.2, 0.2))


def test_ome_sizes_may_each_have_their_unit(tmp_path, make):
    sizes = {"PhysicalSizeZ": 0.001, "PhysicalSizeZUnit": "mm", "PhysicalSizeY": 200, "PhysicalSizeYUnit": "nm"}
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.1, **sizes}
    tifffile.imwrite(tmp_path / "a.ome.tif", make(5, 12, 14), metadata=metadata)
    assert read_header(tmp_path / "a.ome.tif").spacing_um == pytest.approx((1, 0.2, 0.1))


def test_ome_without_z_size_has_no_spacing(tmp_path, make):
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1}
    tifffile.imwrite(tmp_path / "a.ome.tif", make(5, 12, 14), metadata=metadata)
    assert read_header(tmp_path / "a.ome.tif").spacing_um is None


def test_what_the_origin_preprocessed_reads_as_one_channel(tmp_path, make):
    array = make(1, 5, 12, 14, dtype="float32")
    tifffile.imwrite(tmp_path / "a.tif", array, compression="zlib", metadata={})
    back = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(back.array, array)
    assert back.header.shape == (1, 5, 12, 14)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd"])
def test_colour_pictures_have_three_channels(tmp_path, make, compression):
    array = make(5, 12, 14, 3, dtype="uint8")
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", compression=compression)
    back = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(back.array, np.moveaxis(array, 3, 0))
    assert back.header.axes == "ZYXC"


def test_a_flat_colour_picture_is_2d(tmp_path, make):
    array = make(12, 14, 3, dtype="uint8")
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
    back = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(back.array[:, 0], np.moveaxis(array, 2, 0))
    assert back.header.is_2d


@pytest.mark.parametrize(("shape", "axes"), [((2, 5, 12, 14), "CZYX"), ((12, 14, 15, 2), "ZYXC")])
def test_four_plain_axes_have_the_smallest_outer_one_as_channel(tmp_path, make, shape, axes):
    tifffile.imwrite(tmp_path / "a.tif", make(*shape), photometric="minisblack")
    assert read_header(tmp_path / "a.tif").axes == axes


def test_four_plain_axes_with_the_smallest_inside_are_refused(tmp_path, make):
    tifffile.imwrite(tmp_path / "a.tif", make(5, 2, 12, 14))
    with pytest.raises(DataError, match=r"a.tif.*\(5, 2, 12, 14\).*cannot tell.*names its axes"):
        read_header(tmp_path / "a.tif")


def test_pages_without_metadata_are_planes(tmp_path, make):
    array = make(5, 12, 14)
    tifffile.imwrite(tmp_path / "a.tif", array, metadata=None)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").array[0], array)


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_several_time_points_are_refused(tmp_path, make, kind):
    tifffile.imwrite(tmp_path / "a.tif", make(5, 12, 14), metadata={"axes": "TYX"}, **{kind: True})
    with pytest.raises(DataError, match=r"a.tif.*has 5 time points.*one file per time point"):
        read_header(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_one_time_point_is_left_out(tmp_path, make, kind):
    tifffile.imwrite(tmp_path / "a.tif", make(1, 5, 12, 14), metadata={"axes": "TZYX"}, **{kind: True})
    assert read_header(tmp_path / "a.tif").axes == "ZYX"


def test_big_endian_comes_as_native(tmp_path, make):
    array = make(5, 12, 14)
    tifffile.imwrite(tmp_path / "a.tif", array, byteorder=">")
    back = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(back.array[0], array)
    assert back.array.dtype.isnative


def test_one_bit_pictures_become_uint8(tmp_path, make):
    array = make(5, 12, 14) > 50
    tifffile.imwrite(tmp_path / "a.tif", array)
    back = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(back.array[0], array)
    assert back.array.dtype == np.uint8


def test_volumetric_tiles_are_read(tmp_path, make):
    array = make(32, 32, 32)
    tifffile.imwrite(tmp_path / "a.tif", array, volumetric=True, tile=(16, 16, 16), photometric="minisblack")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").array[0], array)


def test_complex_numbers_are_refused(tmp_path, make):
    tifffile.imwrite(tmp_path / "a.tif", make(5, 12, 14, dtype="complex64"))
    with pytest.raises(DataError, match=r"a.tif.*complex64; wanted integers or floats"):
        read_header(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_tiff_is_refused_or_whole(tmp_path, make, kind, compression):
    array, path = make(5, 48, 48), tmp_path / "a.tif"
    tifffile.imwrite(path, array, compression=compression, **KINDS[kind])
    content = path.read_bytes()
    for size in np.linspace(100, len(content) - 1, 20).astype(int):
        path.write_bytes(content[:size])
        assert_refused_or_equal(path, array)


def assert_refused_or_equal(path, array):
    with contextlib.suppress(DataError):
        np.testing.assert_array_equal(read_volume(path).array[0], array)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_cut_tiff_is_refused_before_its_voxels_are_read(tmp_path, make, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, make(5, 48, 48), compression=compression, metadata={"axes": "ZYX"})
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(DataError, match=r"a.tif.*damaged or cut off .*; copy it again"):
        read_header(path)


def test_a_stack_that_is_cut_off_is_counted_as_it_was(tmp_path, make):
    write_volume(tmp_path / "a.tif", make(1, 16, 24, 24), Header((1, 16, 24, 24), np.dtype(np.uint16), "ZYX"))
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:4000])
    with pytest.raises(DataError, match=r"plane \d+ of 16 ends after the end of the file"):
        read_volume(tmp_path / "a.tif")


def test_a_plane_without_data_is_refused(tmp_path, make):
    tifffile.imwrite(tmp_path / "a.tif", make(5, 12, 14), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages[2].tags["StripByteCounts"].overwrite(0)
    with pytest.raises(DataError, match=r"a.tif.*plane 3 of 5 has a part without data"):
        read_volume(tmp_path / "a.tif")


def test_ome_with_missing_planes_is_refused(tmp_path, make):
    tifffile.imwrite(tmp_path / "a.ome.tif", make(5, 12, 14), metadata={"axes": "ZYX"})
    change(tmp_path / "a.ome.tif", 'SizeZ="5"', 'SizeZ="9"')
    with pytest.raises(DataError, match=r"a.ome.tif.*damaged or cut off"):
        read_volume(tmp_path / "a.ome.tif")


def change(path, old, new):
    """Replace a part of the description by one of the same length."""
    content = path.read_bytes()
    assert content.count(old.encode()) == 1
    path.write_bytes(content.replace(old.encode(), new.encode()))


def test_entities_in_the_xml_are_refused_before_parsing(tmp_path, make):
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><OME xmlns="x">&b;</OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", make(5, 12, 14), description=bomb, metadata=None, ome=False)
    with pytest.raises(DataError, match=r"a.ome.tif.*entities"):
        read_header(tmp_path / "a.ome.tif")


@pytest.mark.parametrize(
    "parts",
    [
        '<BinaryOnly MetadataFile="b.ome.tif" UUID="u"/>',
        '<TiffData><UUID FileName="a.tif">urn:1</UUID></TiffData><TiffData><UUID>urn:2</UUID></TiffData>',
    ],
)
def test_a_part_of_a_multi_file_set_is_refused(tmp_path, make, parts):
    xml = f'<?xml version="1.0"?><OME xmlns="x">{parts}</OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", make(5, 12, 14), description=xml, metadata=None, ome=False)
    with pytest.raises(DataError, match=r"a.ome.tif.*one part of a multi-file OME-TIFF"):
        read_header(tmp_path / "a.ome.tif")


def test_two_images_in_one_file_are_refused(tmp_path, make):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(make(5, 12, 14))
        writer.write(make(5, 12, 20))
    with pytest.raises(DataError, match=r"a.tif.*holds 2 images .*'0' \(5 x 12 x 14, uint16\).*FILE:ARRAY"):
        read_header(tmp_path / "a.tif")


def test_a_thumbnail_beside_the_image_is_passed_over(tmp_path, make):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(make(6, 7))
        writer.write(make(5, 12, 14))
    assert read_header(tmp_path / "a.tif").shape == (1, 5, 12, 14)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tif_is_imagej_where_imagej_knows_the_type(tmp_path, make, header, dtype):
    write_volume(tmp_path / "a.tif", make(1, 5, 12, 14, dtype=dtype), header)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_imagej


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "int32", "float64"])
def test_tif_is_ome_for_the_other_types_of_ome(tmp_path, make, header, dtype):
    write_volume(tmp_path / "a.tif", make(1, 5, 12, 14, dtype=dtype), header)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_ome


def test_ome_tiff_refuses_what_it_cannot_hold(tmp_path, make, header):
    with pytest.raises(DataError, match=r"a.ome.tif.*cannot hold int64; write .tif"):
        write_volume(tmp_path / "a.ome.tif", make(1, 5, 12, 14, dtype="int64"), header)


@pytest.mark.parametrize("axes", ["CZYX", "ZCYX"])
def test_ome_xml_follows_its_schema(tmp_path, make, axes):
    header = Header((2, 5, 12, 14), np.dtype("u2"), axes, (0.3, 0.2, 0.1), ("a<b", "µ"), "nm")
    write_volume(tmp_path / "a.ome.tif", make(2, 5, 12, 14), header)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        xml = file.ome_metadata
    ome_types.validate_xml(xml)
    assert sorted(re.findall(r'Size[XYZCT]="(\d+)"', xml), key=int) == ["1", "2", "5", "12", "14"]


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_labels_are_compressed(tmp_path, header, name):
    write_labels(tmp_path / name, np.ones((5, 64, 64), np.uint8), header)
    assert (tmp_path / name).stat().st_size < 5 * 64 * 64 / 2


def test_a_broken_private_tag_is_no_damage_and_prints_nothing(tmp_path, make, capfd):
    array = make(5, 12, 14)
    tifffile.imwrite(tmp_path / "a.tif", array, extratags=[(65000, "s", 0, "a long private note", True)])
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        place = file.pages.first.tags[65000].offset + 8  # where the tag says where its value is
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[place : place + 4] = b"\0\0\0\x70"
    (tmp_path / "a.tif").write_bytes(content)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").array[0], array)
    assert capfd.readouterr() == ("", "")
