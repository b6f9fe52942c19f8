"""The table of what was found in remote use names only tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST = re.compile(r"\btest_\w+")


def test_each_row_of_the_report_names_tests_that_are_there():
    files = (ROOT / "tests").rglob("test_*.py")
    there = {name for path in files for name in re.findall(r"def (test_\w+)", path.read_text())}
    lines = (ROOT / "bench/remote_report.md").read_text().splitlines()
    rows = [line for line in lines if re.match(r"\| (F\d|-|sec|fig)", line)]
    assert len(rows) > 20
    assert [row for row in rows if not TEST.search(row)] == []
    assert {name for row in rows for name in TEST.findall(row)} - there == set()
