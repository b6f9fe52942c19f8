"""What readers left out or assumed, told once for all files that it concerns."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from biom3d.events import Reporter
from biom3d.io import Header, Remark, passed_over


def group_remarks(files: Iterable[tuple[Path, Header]]) -> list[Remark]:
    """Return the remarks about the files, one for each text, with the first file and how many more."""
    found: dict[Remark, list[Path]] = {}
    for path, header in files:
        for remark in header.remarks:
            paths = found.setdefault(remark, [])
            if path not in paths:
                paths.append(path)
    return [Remark(one.kind, f"{_files(paths)}: {one.text}") for one, paths in found.items()]


def tell_remarks(files: Iterable[tuple[Path, Header]], report: Reporter) -> None:
    """Tell what was left out or assumed when the files were read."""
    for remark in group_remarks(files):
        if remark.kind == "warning":
            report.warn(remark.text)
        else:
            report.info(f"note: {remark.text}")


def tell_passed_over(folders: Iterable[Path | str], report: Reporter) -> None:
    """Tell which files and folders beside the volumes are not read."""
    for line in lines_passed_over(folders):
        report.warn(line)


def lines_passed_over(folders: Iterable[Path | str]) -> list[str]:
    """Return a line for each folder in which something is not read."""
    lines = (passed_over(folder) for folder in dict.fromkeys(map(Path, folders)))
    return [line for line in lines if line]


def _files(paths: Sequence[Path]) -> str:
    return f"'{paths[0]}'" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
