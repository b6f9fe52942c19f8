"""Result files -> the tables of README.md, between two marks for each budget."""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from methods import BUDGETS
from sets import SETS, DataSet

from biom3d.files import write_text

Result = dict[str, Any]
TITLES = {
    "ours": "ours",
    "biom3d": "Biom3d",
    "monai_dynunet": "MONAI DynUNet",
    "monai_basicunet": "MONAI BasicUNet",
    "nnunet": "nnU-Net v2",
    "threshold": "threshold",
}
LEARNED = [method for method in TITLES if method != "threshold"]


def write_tables(folder: Path) -> None:
    """Write the tables of all budgets into README.md."""
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8")
    for budget in BUDGETS:
        begin, end = f"<!-- {budget} -->\n", f"<!-- end of {budget} -->"
        before, rest = text.split(begin)
        results = [json.loads(path.read_text()) for path in sorted((folder / "out" / budget).glob("*.json"))]
        body = tables(results) if results else "Never run.\n"
        text = before + begin + "\n" + body + "\n" + end + rest.split(end)[1]
    write_text(readme, text)


def tables(results: Sequence[Result]) -> str:
    """Return what the results say: Dice, HD95, time, and where they come from."""
    found = {data.name: [r for r in results if r["set"] == data.name] for data in SETS}
    methods = [method for method in TITLES if any(r["method"] == method for r in results)]
    parts = [
        "Dice, mean over the classes (± standard deviation over the seeds); **bold**: the best mean.\n",
        *_dice_table(found, methods),
        "\nDice and HD95 of each class; HD95 is the mean over the test volumes where it is defined (in brackets: how "
        "many of all volumes and seeds have none, because nothing was predicted).\n",
        *_class_table(found, methods),
        "\nSeconds of one training, CPU time (clock time), median of the seeds; `n` is the number of seeds.\n",
        *_time_table(found, methods),
        "",
        *_origin(results),
    ]
    return "\n".join(parts) + "\n"


def _dice_table(found: dict[str, list[Result]], methods: Sequence[str]) -> list[str]:
    lines = _head(["set", "labels", "train + validation / test", *(TITLES[m] for m in methods)], 3)
    common: list[dict[str, float]] = []
    for data in SETS:
        per_method = {m: [_mean_dice(r) for r in found[data.name] if r["method"] == m] for m in methods}
        averages = {m: statistics.mean(v) for m, v in per_method.items() if v}
        if not averages:
            continue
        if len(averages) == len(methods):
            common.append(averages)
        train, validation, test = found[data.name][0]["volumes"]
        cells = [_cell(per_method[m], averages.get(m) == max(averages.values())) for m in methods]
        lines.append(_row([data.title, data.labels, f"{train} + {validation} / {test}", *cells]))
    if common:
        means = [statistics.mean(averages[m] for averages in common) for m in methods]
        cells = [f"**{mean:.3f}**" if mean == max(means) else f"{mean:.3f}" for mean in means]
        lines.append(_row([f"mean of the {len(common)} sets that all did", "", "", *cells]))
    return lines


def _class_table(found: dict[str, list[Result]], methods: Sequence[str]) -> list[str]:
    lines = _head(["set, class", "HD95 in", *(TITLES[m] for m in methods)], 2)
    for data in SETS:
        for number, name in enumerate(data.classes, start=1):
            cells = [_class_cell(data, number, [r for r in found[data.name] if r["method"] == m]) for m in methods]
            if found[data.name]:
                lines.append(_row([f"{data.title}, {name}", data.unit, *cells]))
    return lines


def _class_cell(data: DataSet, number: int, results: Sequence[Result]) -> str:
    if not results:
        return "-"
    rows = [row for r in results for row in r["cases"] if row["class"] == number and row["dice"] is not None]
    dice = statistics.mean(statistics.mean(_of_class(r, number)) for r in results)
    column, factor = ("hd95_voxels", 1.0) if data.unit == "voxels" else ("hd95_um", 1e-3 if data.unit == "mm" else 1.0)
    distances = [row[column] * factor for row in rows if row[column] is not None]
    missing = len(rows) - len(distances)
    note = f" ({missing} of {len(rows)})" if missing else ""
    return f"{dice:.3f} / {statistics.mean(distances):.2f}{note}" if distances else f"{dice:.3f} / -{note}"


def _time_table(found: dict[str, list[Result]], methods: Sequence[str]) -> list[str]:
    learned = [m for m in methods if m in LEARNED]
    lines = _head(["set", "patch", "patches seen", *(f"{TITLES[m]} (n)" for m in learned)], 3)
    for data in SETS:
        if not found[data.name]:
            continue
        budget = found[data.name][0]["budget"]
        cells = []
        for method in learned:
            seconds = [r["seconds"] for r in found[data.name] if r["method"] == method]
            cpu, wall = (statistics.median(s[k] for s in seconds) if seconds else 0 for k in ("train_cpu", "train"))
            cells.append(f"{cpu:.0f} ({wall:.0f}), n = {len(seconds)}" if seconds else "-")
        lines.append(_row([data.title, " x ".join(map(str, budget["patch"])), str(budget["samples"]), *cells]))
    return lines


def _origin(results: Sequence[Result]) -> list[str]:
    lines = []
    for method in TITLES:
        mine = [r["versions"] for r in results if r["method"] == method]
        if mine:
            names = sorted({f"{name} {version}" for versions in mine for name, version in versions.items()})
            lines.append(f"- {TITLES[method]}: {', '.join(names)}")
    dates = sorted({r["date"] for r in results})
    return [*lines, f"- dates: {', '.join(dates)}"]


def _mean_dice(result: Result) -> float:
    """Return the mean over the classes of the mean over the cases."""
    return statistics.mean(float(mean["dice"]) for mean in result["mean"].values())


def _of_class(result: Result, number: int) -> list[float]:
    return [row["dice"] for row in result["cases"] if row["class"] == number and row["dice"] is not None]


def _cell(values: Sequence[float], best: bool) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    mean = f"{statistics.mean(values):.3f}"
    return (f"**{mean}**" if best else mean) + spread


def _head(titles: Sequence[str], words: int) -> list[str]:
    return [_row(titles), _row(["---"] * words + ["--:"] * (len(titles) - words))]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
