import pytest
from biom3d_workflow.reasons import End, in_our_words, read_end

from biom3d.cli import COMMANDS


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("a\nstep: error: one\nstep: error: two: three\nb\n", End("error", "two: three")),
        ("check: error: 1 problem with the data set:\n  'x': short\n", End("error", "'x': short")),
        ("check: error: 2 of 3 volumes cannot be used:\n  a\n  b\ntail\n", End("error", "a (and 1 more: see the log)")),
        ("train: error: before\ntrain: stopped; run again\n", End("stopped", "")),
        ("train: stopped; x\njob: stopped with 'v' by ann\n", End("stopped", "stopped with 'v' by ann")),
        (
            "train: epoch 2/9  loss -0.1\ntrain: epoch 3/9 5/12, 0:01 left\ntrain: stopped; x\n",
            End("stopped", "", "after epoch 2 of 9"),
        ),
        ("", End("silent", "it ended without a word: killed from outside, or no memory was left")),
    ],
)
def test_the_end_of_a_log(tmp_path, text, end):
    (tmp_path / "x.log").write_text(text)
    assert read_end(str(tmp_path / "x.log")) == end


def test_the_last_line_of_what_was_killed_is_told(tmp_path):
    (tmp_path / "x.log").write_text("train: reading\nKilled\n\n")
    assert read_end(str(tmp_path / "x.log")).text.endswith("; last line: Killed")


def test_where_a_training_goes_on_is_known_also_of_one_that_could_not_say_it(tmp_path):
    (tmp_path / "x.log").write_text("train: epoch 2/9  loss -0.1\n")  # as in a container, whose `tee` ends first
    assert read_end(str(tmp_path / "x.log")).progress == "after epoch 2 of 9"


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("labels 1..7; pass --instances", "labels 1..7; set `instances: true` of model 'm' in config/config.yaml"),
        ("is --num_classes 3 right?", "is `num_classes: 3` of model 'm' in config/config.yaml right?"),
        ("is --msk_path right?", "is column masks of config/datasets.tsv right?"),
        (
            "'x' exists and is no empty folder; choose another --out_dir or remove it",
            "'x' exists and is no empty folder; move it away",
        ),
        ("resume it with --log", "resume it with --log"),
    ],
)
def test_options_become_keys_and_columns(text, ours):
    assert in_our_words(text, ["m"]) == ours


def test_every_command_begins_its_lines_with_a_name_that_is_understood(tmp_path):
    for name in COMMANDS:
        (tmp_path / "x.log").write_text(f"{name}: error: it broke\n")
        assert read_end(str(tmp_path / "x.log")) == End("error", "it broke")
