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


def test_a_folder_in_place_of_a_table_is_told(tmp_path: Path):
    assert "cannot be read: Is a directory" in str(read_table(str(tmp_path))[1][0])


def test_names_are_split_once_each():
    assert names(" a,b ,,a") == ("a", "b")


@pytest.mark.parametrize("cell", ["1,2,0", "1,2,nan", "1;2;3", "1,2,3,4", "-1,1,1"])
def test_spacing_must_be_three_positive_numbers(cell):
    with pytest.raises(ValueError, match=r"."):
        parse_spacing(cell)
