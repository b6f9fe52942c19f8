import io
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from biom3d import __version__
from biom3d.cli import COMMANDS, main, run_step, step_parser
from biom3d.errors import DataError, OutputError
from biom3d.events import Reporter, duration_text, progress_text
from biom3d.synth import main as synth

BIOM3D = str(Path(sys.executable).parent / "biom3d")


def step(execute, tmp_path, *options):
    return run_step("eval", step_parser("eval", "x"), execute, list(options))


def test_the_umbrella_lists_every_command(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name}" in text for name in COMMANDS)


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert __version__ in capsys.readouterr().out


def test_an_unknown_command_is_wrong_input(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["segment"])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("word", "meant"), [("predict", "pred"), ("evalute", "eval"), ("chek", "check"), ("segment", "pred"), ("xyz", None)]
)
def test_a_mistyped_command_is_told_what_may_be_meant(word, meant, capsys):
    with pytest.raises(SystemExit):
        main([word])
    said = capsys.readouterr().err
    assert f"there is no command '{word}'" in said
    assert (f"did you mean 'biom3d {meant}'?" in said) == bool(meant)


def test_biom3d_of_pypi_beside_us_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "biom3d-0.1.2.dist-info").mkdir()
    facts = "Metadata-Version: 2.1\nName: biom3d\nVersion: 0.1.2\n"
    (tmp_path / "biom3d-0.1.2.dist-info" / "METADATA").write_text(facts)
    assert main([]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.syspath_prepend(tmp_path)
    assert main([]) == 0
    said = capsys.readouterr().err
    assert "Biom3d 0.1.2 is installed in this Python too" in said
    assert "`pip uninstall biom3d`" in said


def test_usage_names_the_command_as_it_was_typed():
    for command, name in ([BIOM3D], "biom3d pred"), ([sys.executable, "-m", "biom3d"], "biom3d pred"):
        done = subprocess.run([*command, "pred"], capture_output=True, text=True, check=False)
        assert done.stderr.startswith(f"usage: {name} ")
    done = subprocess.run([sys.executable, "-m", "biom3d.pred"], capture_output=True, text=True, check=False)
    assert done.stderr.startswith("usage: python -m biom3d.pred ")


@pytest.mark.parametrize("words", ["--help", "pred --help", "plan --img_path {images}", "check --img_path {images}"])
def test_a_reader_that_goes_ends_a_step_without_a_word(words, tmp_path):
    """The pipe is closed before the command writes anything, as by a `head` that has all it wants."""
    assert synth([str(tmp_path), "--count", "1", "--shape", "16", "32", "32"]) == 0
    reading, writing = os.pipe()
    os.close(reading)
    command = [BIOM3D, *words.format(images=tmp_path / "images").split()]
    with open(writing, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode in (0, 141)


def test_results_are_on_stdout_and_progress_on_stderr(tmp_path, capsys):
    assert synth([str(tmp_path), "--count", "1", "--shape", "16", "32", "32"]) == 0
    capsys.readouterr()
    assert main(["check", "--img_path", str(tmp_path / "images")]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("cases    1, 3D")
    assert "cases " not in said.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pre"], ["pred", "preprocess", "preprocess_train"]),
        (["report", "sum"], ["summary"]),
        (["preprocess", "--max_m"], ["--max_minutes"]),
        (["preprocess", "--preset", ""], ["large", "medium", "small"]),
        (["pred", "--log", "logs/"], []),
        (["none", "x"], []),
    ],
)
def test_words_are_completed(words, expected, capsys):
    assert main(["--complete", *words]) == 0
    assert capsys.readouterr().out.split() == expected


def test_bash_completes_commands_and_options():
    """The Tab key itself needs a terminal; what it calls does not."""
    script = 'eval "$(biom3d --completion)"; COMP_WORDS=(biom3d preprocess --max_m); COMP_CWORD=2; _biom3d; '
    script += 'echo "${COMPREPLY[@]}"'
    env = {**os.environ, "PATH": f"{Path(BIOM3D).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--max_minutes"]


@pytest.mark.parametrize(("error", "code"), [(DataError("bad file"), 2), (OutputError("disk full"), 1)])
def test_our_errors_become_one_message_and_an_exit_code(error, code, tmp_path, capsys):
    def execute(args, report):
        raise error

    assert step(execute, tmp_path, "--events", str(tmp_path / "e.jsonl")) == code
    assert capsys.readouterr().err == f"eval: error: {error}\n"
    event = json.loads((tmp_path / "e.jsonl").read_text().splitlines()[-1])
    assert (event["event"], event["message"], event["exit_code"]) == ("error", str(error), code)


def test_other_errors_crash_loudly(tmp_path):
    def execute(args, report):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        step(execute, tmp_path)


def test_ctrl_c_says_that_work_is_kept(tmp_path, capsys):
    def execute(args, report):
        raise KeyboardInterrupt

    assert step(execute, tmp_path) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_an_events_file_that_cannot_be_written_is_an_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert step(lambda a, r: None, tmp_path, "--events", str(tmp_path / "file" / "e.jsonl")) == 1
    assert "error: cannot write" in capsys.readouterr().err


def test_a_log_file_gets_plain_lines_and_no_bar():
    stream = io.StringIO()
    assert list(Reporter("pred", stream=stream).track(range(3), "windows")) == [0, 1, 2]
    assert "\r" not in stream.getvalue()


def test_a_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    assert list(Reporter("pred", stream=stream).track(range(3), "windows")) == [0, 1, 2]
    assert "windows" in stream.getvalue()
    assert "\r" in stream.getvalue()


def test_progress_tells_what_is_left():
    assert progress_text(10, 40, 20.0) == "10/40, 1:00 left"
    assert duration_text(3723) == "1:02:03"


def test_the_first_event_says_with_what_and_on_what_a_step_runs(tmp_path):
    assert step(lambda args, report: None, tmp_path, "--events", str(tmp_path / "e.jsonl")) == 0
    first = json.loads((tmp_path / "e.jsonl").read_text().splitlines()[0])
    assert first["event"] == "start"
    assert first["version"] == __version__
    assert first["packages"]["torch"] == metadata.version("torch")
    assert first["cores"] == len(os.sched_getaffinity(0))
    assert os.uname().nodename not in json.dumps(first)
