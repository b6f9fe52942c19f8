"""A real Snakemake with a configuration and a table of somebody who wants to run commands on the reader's computer.

What is not refused at the door must go through all rules as plain words: each hostile text would make a file.
"""

import json
from pathlib import Path

import pytest

from tests.workflow.conftest import HEADER, ROOT, run_snakemake, write_request

pytestmark = pytest.mark.system
LOCAL = ["--workflow-profile", str(ROOT / "profiles/local"), "--cores", "2"]
# Each one, read by a shell, by Python's or Snakemake's own formatting, or as an option, would do something.
WORDS = [
    "$(touch HARM)",
    "`touch HARM`",
    "a; touch HARM",
    "a && touch HARM",
    "a | touch HARM",
    "a\ntouch HARM\n",
    "' ; touch HARM ; '",
    '" ; touch HARM ; "',
    "'\"'\"'; touch HARM #",
    "\\'; touch HARM #",
    "$IFS$(touch$IFS''HARM)",
    "${HOME:+$(touch HARM)}",
    "<(touch HARM)",
    "a > HARM",
    "--config=HARM",
    "-h",
    "--out_dir",
    "{input}",
    "{wildcards.model.__class__.__init__.__globals__}",
    "{config[models]}",
    "{{touch HARM}}",
    "%(x)s",
    "!touch HARM",
    "a\r\ntouch HARM",
    "\x1b[2J",
    "../HARM",
    "/tmp/HARM",
    "~/HARM",
]


def harm() -> list[str]:
    """Return the files that only a hostile text would have made."""
    return [str(path) for place in (Path(), Path.home(), Path("/tmp")) for path in place.glob("HARM*")]


def refusals(done) -> str:
    """Return what the door says; it must say so in words, before any rule ran."""
    text = done.stdout + done.stderr
    assert done.returncode == 1
    assert "Traceback" not in text
    assert "To do:" not in text
    assert harm() == []
    return "\n".join(line for line in text.splitlines() if not line.startswith("Using workflow"))


def cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def test_hostile_names_of_data_sets_are_refused_at_the_door(folder):
    rows = [f"{cell(word)}\tdata/b/images\t\t\tm" for word in WORDS]
    write_request(rows=["A\tdata/a/images\tdata/a/masks\tm", *rows])
    told = refusals(run_snakemake(*LOCAL))
    assert told.count("dataset: found ") == len(WORDS)


def test_hostile_names_of_models_are_refused_at_the_door(folder):
    write_request(json.dumps({"models": {word: {} for word in WORDS}}), ["A\tdata/a/images\tdata/a/masks\tm"])
    told = refusals(run_snakemake(*LOCAL))
    assert told.count(": not a good name; ") == len(WORDS)


@pytest.mark.parametrize("key", ["image", "engine", "datasets", "gpu"])
def test_a_hostile_value_is_refused_at_the_door(folder, key):
    write_request(json.dumps({key: WORDS[0], "models": {"m": {}}}))
    assert refusals(run_snakemake(*LOCAL))


@pytest.mark.parametrize("key", ["keep", "device", "preset", "optimizer", "seed", "width", "formats", "patch_size"])
def test_hostile_options_of_models_are_refused_at_the_door(folder, key):
    write_request(json.dumps({"models": {f"m{number}": {key: word} for number, word in enumerate(WORDS)}}))
    told = refusals(run_snakemake(*LOCAL))
    assert told.count(f".{key}: found ") == len(WORDS)


def put_images(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name in "12":
        (path / f"{name}.tif").touch()


REFUSED = "{}<>\n\r"  # signs that no path of the table may have
PLACES = [f"data/x{word}" if word.startswith(("/", "~", ".")) else f"data/{word}" for word in WORDS]
GOOD = [place for place in PLACES if not set(REFUSED) & set(place)]


def rows_of(places: list[str]) -> list[str]:
    """Return rows that train and rows that predict, each with a path as images and as masks."""
    rows = []
    for number, place in enumerate(places):
        path = cell(place)
        put_images(Path(place))
        rows += [f"T{number}\t{path}\t{path}\tm", f"P{number}\t{path}\t{path}\t\tm"]
    return rows


def test_hostile_folders_that_would_meet_a_formatter_are_refused_at_the_door(folder):
    bad = [place for place in PLACES if place not in GOOD]
    write_request(rows=rows_of(bad), header=HEADER)
    told = refusals(run_snakemake(*LOCAL))
    assert told.count("the path holds one of { } < > or a line break") == 4 * len(bad) >= 20


def test_other_hostile_folders_are_plain_words_in_every_rule(folder, stand_in):
    write_request(rows=rows_of(GOOD), header=HEADER)
    done = run_snakemake(*LOCAL, PYTHONPATH=str(stand_in))
    assert done.returncode == 0, done.stdout + done.stderr
    assert harm() == []
    calls = Path("calls.txt").read_text()
    assert [place for place in GOOD if f"--img_path {place} " not in calls or f"--path_in {place} " not in calls] == []


def write_starts(key: str, places: list[str]) -> None:
    """Write a configuration whose models start from plans or models at these places."""
    for place in places:
        plan = Path(place, "plan.yaml") if key == "fine_tune" else Path(place)
        plan.parent.mkdir(parents=True, exist_ok=True)
        plan.write_text("a: 1\n")
    models = {f"m{number}": {key: place, "folds": 1} for number, place in enumerate(places)}
    write_request(json.dumps({"models": models}), [f"A\tdata/a/images\tdata/a/masks\t{','.join(models)}"])


@pytest.mark.parametrize("key", ["plan", "fine_tune"])
def test_hostile_paths_that_would_meet_a_formatter_are_refused_at_the_door(folder, key):
    bad = [place for place in PLACES if place not in GOOD]
    write_starts(key, bad)
    assert refusals(run_snakemake(*LOCAL)).count("the path holds one of { } < > or a line break") == len(bad)


@pytest.mark.parametrize("key", ["plan", "fine_tune"])
def test_hostile_paths_in_the_options_of_models_are_plain_words(folder, stand_in, key):
    write_starts(key, GOOD)
    done = run_snakemake(*LOCAL, PYTHONPATH=str(stand_in))
    assert done.returncode == 0, done.stdout + done.stderr
    assert harm() == []
    calls = Path("calls.txt").read_text()
    assert [place for place in GOOD if f"--base_config {place}" not in calls] == []


@pytest.mark.parametrize("word", WORDS[:10])
def test_a_hostile_value_on_the_command_line_is_refused(folder, word):
    done = run_snakemake(*LOCAL, "--config", f"image={word}")
    assert done.returncode == 1
    assert harm() == []


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir [HARM]", "!!python/name:os.mkdir", "!!ruby/x {}"])
def test_object_tags_in_the_configuration_are_refused(folder, tag):
    write_request(f"models:\n  m:\n    seed: {tag}\n")
    done = run_snakemake(*LOCAL)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert harm() == []


@pytest.mark.parametrize("kind", ["[{}]", "{{{}}}"])
def test_a_yaml_bomb_in_the_configuration_is_refused_before_it_is_written_out(folder, kind):
    parts = ["&a " + kind.format("k: x, l: x" if "{{" in kind else "x, x")]
    for number in range(60):
        before, here = (chr(97 + (number + shift) // 26) + chr(97 + (number + shift) % 26) for shift in (0, 1))
        before = "a" if not number else before
        inside = f"k: *{before}, l: *{before}" if "{{" in kind else f"*{before}, *{before}"
        parts.append(f"&{here} {kind.format(inside)}")
    write_request(f"models: {{m: {{patch_size: [{', '.join(parts)}]}}}}\n")
    assert "its aliases stand for more than" in refusals(run_snakemake(*LOCAL))
