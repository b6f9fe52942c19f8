import zipfile
from pathlib import Path

import pytest
from biom3d_workflow.table import Dataset, names, parse_spacing, read_table

HEADER = "dataset\timages\tmasks\ttrain\tpredict\tspacing_um\n"


@pytest.fixture
def read(tmp_path):
    def read(text, encoding="utf-8"):
        file = tmp_path / "t.tsv"
        file.write_bytes(text.encode(encoding))
        rows, problems = read_table(str(file))
        return rows, [str(problem).removeprefix(f"{file}:") for problem in problems]

    return read


def test_a_full_row_is_read(read):
    rows, problems = read(HEADER + "d1\tim/\tmsk\ta, b\tc\t2,0.5,0.5\n")
    assert (rows, problems) == ([Dataset("d1", "im", "msk", ("a", "b"), ("c",), (2, 0.5, 0.5), 2)], [])


def test_columns_may_come_in_any_order_and_be_left_out(read):
    rows, _ = read("images\tdataset\nim\td1\n")
    assert rows == [Dataset("d1", "im", line=2)]


def test_comments_and_empty_lines_keep_the_line_numbers(read):
    rows, _ = read("# note\n\n" + HEADER + "#off\tx\n\nd1\tim\n")
    assert [row.line for row in rows] == [6]


def test_a_spreadsheet_file_is_read(read):
    rows, problems = read((HEADER + 'd1\tim\t\t\tm\t"2,1,1"\n').replace("\n", "\r\n"), "utf-8-sig")
    assert (rows[0].spacing_um, problems) == ((2, 1, 1), [])


def test_paths_may_hold_blanks_quotes_and_signs(read):
    rows, _ = read(HEADER + "d1\tmy data/[1] it's ü\n")
    assert rows[0].images == "my data/[1] it's ü"


@pytest.mark.parametrize(
    ("images", "key", "path", "array"),
    [
        ("im", "raw", "im", "raw"),
        ("im/a.h5:/volumes/raw", "", "im/a.h5", "volumes/raw"),
        ("im/a.ome.zarr:labels/nuclei", "", "im/a.ome.zarr", "labels/nuclei"),
        ("im/a.ome.zarr/labels/nuclei/", "", "im/a.ome.zarr", "labels/nuclei"),
        ("im/a.ome.zarr", "", "im/a.ome.zarr", ""),
        ("im/12:30", "", "im/12:30", ""),
    ],
)
def test_an_array_of_a_file_is_split_from_its_path(read, images, key, path, array):
    rows, problems = read(f"dataset\timages\timage_key\nd1\t{images}\t{key}\n")
    assert (rows[0].images, rows[0].image_key, problems) == (path, array, [])
    assert rows[0].image_arrays == (f"{path}:{array}" if array else path)


def test_masks_with_a_key_alone_are_in_the_files_of_the_images(read):
    rows, _ = read("dataset\timages\tmask_key\ttrain\nd1\tim\tlabels/nuclei\tm\n")
    assert (rows[0].masks, rows[0].mask_arrays) == ("im", "im:labels/nuclei")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no header; the first line names the columns: dataset, images, masks, train, predict, spacing_um"),
        ("dataset images\nd1 im\n", "1: one column found ('dataset images'); separate columns by tabs: dataset, "),
        ("dataset\timage\n", "1: unknown column 'image'; did you mean 'images'? allowed: dataset, images, "),
        ("dataset\timages\timages\n", "1: column 'images' is there twice; keep one"),
        ("dataset\tmasks\n", "1: column 'images' is missing; wanted: dataset, "),
        (HEADER + "d1\tim\t\t\t\t\tmore\n", "2: 7 cells but 6 columns; separate cells by exactly one tab"),
        (HEADER + "d 1\tim\n", "2: dataset: found \"d 1\" (text); wanted: letters, digits, '.', '_' and '-', "),
        (HEADER + "..\tim\n", '2: dataset: found ".." (text); wanted: '),
        (HEADER + "d1\t\n", '2: images: found "" (text); wanted: text, not empty'),
        (HEADER + "d1\ta{b}\n", "2: images: the path holds one of { } < > or a line break; rename the folder"),
        (HEADER + "d1\tim\t\t\t\t2,1\n", "2: spacing_um: found '2,1'; wanted: z,y,x in µm, such as 2.0,0.5,0.5"),
        (HEADER + "d.partial\tim\n", "2: dataset: names that end in .partial are kept for unfinished work; choose "),
    ],
)
def test_a_mistake_is_told_with_its_line(read, text, problem):
    assert [found.strip()[: len(problem)] for found in read(text)[1]] == [problem]


def test_text_that_is_not_utf8_is_told(read):
    assert "not UTF-8 text; save it as UTF-8" in read(HEADER + "d1\tdaten_ü\n", "latin-1")[1][0]


def test_excels_unicode_text_is_read(read):
    assert read(HEADER + "d1\tdaten_ü\n", "utf-16")[0] == [Dataset("d1", "daten_ü", line=2)]


def test_capitals_and_blanks_in_the_header_are_accepted(read):
    rows, problems = read("Dataset\tIMAGES\tSpacing um\nd1\tim\t2,1,1\n")
    assert (rows, problems) == ([Dataset("d1", "im", spacing_um=(2, 1, 1), line=2)], [])


def test_other_columns_are_notes(read):
    rows, problems = read("dataset\timages\tdate\tOperator\nd1\tim\t3 May\t\nd2\tim\t\tEva\n")
    assert problems == []
    assert [row.notes for row in rows] == [(("date", "3 May"),), (("Operator", "Eva"),)]


def test_a_home_folder_is_found(read, monkeypatch):
    monkeypatch.setenv("HOME", "/home/eva")
    rows, _ = read("dataset\timages\tlocation\nd1\t~/im\t\nd2\t~/im\tserver\n")
    assert [row.images for row in rows] == ["/home/eva/im", "~/im"]


def sheet(*rows):
    """Return the XML of a sheet; a cell is its attributes and its content."""
    lines = ((number, "".join(f"<c {of}>{content}</c>" for of, content in cells)) for number, cells in rows)
    text = "".join(f'<row r="{number}">{cells}</row>' for number, cells in lines)
    return f'<?xml version="1.0"?><worksheet {MAIN}><sheetData>{text}</sheetData></worksheet>'


MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
TEXTS = "<si><t>Images</t></si><si><r><t>my </t></r><r><t>im</t></r><rPh><t>spoken</t></rPh></si>"
SHEETS = '<sheets><sheet name="A" r:id="r7"/><sheet name="B" r:id="r1"/></sheets>'
LINKS = '<Relationship Id="r1" Target="worksheets/sheet1.xml"/><Relationship Id="r7" Target="worksheets/s2.xml"/>'


@pytest.fixture
def workbook(tmp_path):
    """Write a workbook as Excel does: its first sheet is not in sheet1.xml, empty cells and rows are left out."""

    def write(xml):
        with zipfile.ZipFile(tmp_path / "table.xlsx", "w") as archive:
            archive.writestr("xl/workbook.xml", f'<workbook {MAIN} xmlns:r="{OFFICE}">{SHEETS}</workbook>')
            archive.writestr("xl/_rels/workbook.xml.rels", f"<Relationships>{LINKS}</Relationships>")
            archive.writestr("xl/sharedStrings.xml", f"<sst {MAIN}>{TEXTS}</sst>")
            archive.writestr("xl/worksheets/sheet1.xml", sheet())
            archive.writestr("xl/worksheets/s2.xml", xml)
        return str(tmp_path / "table.xlsx")

    return write


def inline(place, text):
    return f'r="{place}" t="inlineStr"', f"<is><t>{text}</t></is>"


def test_the_first_sheet_of_a_workbook_is_read(workbook):
    head = [inline("A1", "dataset"), ('r="B1" t="s"', "<v>0</v>"), inline("D1", "predict"), inline("AA1", "run")]
    row = [inline("A4", "d1"), ('r="B4" t="s"', "<v>1</v>"), inline("D4", "m"), ('r="AA4"', "<v>12</v>")]
    rows, problems = read_table(workbook(sheet((1, head), (3, [inline("A3", "# off")]), (4, row))))
    assert problems == []
    assert rows == [Dataset("d1", "my im", predict=("m",), line=4, notes=(("run", "12"),))]


@pytest.mark.parametrize("xml", ["<worksheet", "<!DOCTYPE x><worksheet/>"])
def test_a_damaged_workbook_is_told(workbook, xml):
    assert "save it as tab-delimited text" in str(read_table(workbook(xml))[1][0])


def test_a_zip_of_something_else_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
        archive.writestr("a.txt", "a")
    assert "no Excel workbook" in str(read_table(str(tmp_path / "t.xlsx"))[1][0])


def test_a_folder_in_place_of_a_table_is_told(tmp_path: Path):
    assert "cannot be read: Is a directory" in str(read_table(str(tmp_path))[1][0])


def test_names_are_split_once_each():
    assert names(" a,b ,,a") == ("a", "b")


@pytest.mark.parametrize("cell", ["1,2,0", "1,2,nan", "1;2;3", "1,2,3,4", "-1,1,1"])
def test_spacing_must_be_three_positive_numbers(cell):
    with pytest.raises(ValueError, match=r"."):
        parse_spacing(cell)
