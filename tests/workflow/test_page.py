"""The table of the report is the one that the run read."""

import csv
from pathlib import Path

from biom3d_workflow.page import TABLE, write_table

from tests.workflow.conftest import ROWS


def read() -> list[dict[str, str]]:
    return list(csv.DictReader(Path(TABLE).read_text(encoding="utf-8").splitlines(), delimiter="\t"))


def test_the_table_is_kept_with_the_columns_that_are_used(request_of) -> None:
    write_table(request_of(rows=[*ROWS, "C\tdata/b/images\t\t\tm\t2,0.5,0.5"]).datasets.values())
    rows = read()
    assert list(rows[0]) == ["dataset", "images", "masks", "train", "predict", "spacing_um"]
    assert [row["dataset"] for row in rows] == ["A", "B", "C"]
    assert rows[2] == {"dataset": "C", "images": "data/b/images", "masks": "", "train": "", "predict": "m"} | {
        "spacing_um": "2,0.5,0.5"
    }


def test_a_column_of_the_users_own_is_kept(request_of) -> None:
    rows = [f"{ROWS[0]}\t\t\tmouse 7", *ROWS[1:]]
    write_table(
        request_of(rows=rows, header="dataset\timages\tmasks\ttrain\tpredict\tspacing_um\tnotes").datasets.values()
    )
    assert read()[0]["notes"] == "mouse 7"
