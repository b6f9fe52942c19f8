import pytest
from biom3d_workflow.hints import foreign_hint, windows_hint


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("C:\\Users\\eva\\im", "in WSL it is '/mnt/c/Users/eva/im'"),
        ("d:/im", "in WSL it is '/mnt/d/im'"),
        ("\\\\server\\share", "mount it"),
        ("data\\im", "perhaps 'data/im'"),
        ("data/im", ""),
    ],
)
def test_a_path_of_windows_is_told(path, hint):
    assert hint in windows_hint(path)
    assert bool(hint) == bool(windows_hint(path))


def test_formats_of_microscopes_are_named_with_a_way_to_convert_them(tmp_path):
    for name in ("b.czi", "a.ND2", "c.tif"):
        (tmp_path / name).touch()
    assert foreign_hint(str(tmp_path)).startswith("'a.ND2' (and 1 more): .nd2 is not read; convert it to OME-TIFF")
    assert foreign_hint(str(tmp_path / "b.czi")).startswith(f"'{tmp_path}/b.czi': .czi is not read")
    assert foreign_hint(str(tmp_path / "c.tif")) == ""
    assert foreign_hint(str(tmp_path / "none")) == ""
