import os
import subprocess
import sys

# Another user, who may still read this checkout and its Python wherever they lie.
RIGHT = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
AS_ANOTHER = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *RIGHT] if os.geteuid() == 0 else []


def collect(*command, file="tests/remote/test_host.py"):
    words = [*command, sys.executable, "-m", "pytest", "--collect-only", file]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=env)


def test_another_user_than_root_is_told_what_is_left_out():
    done = collect(*AS_ANOTHER)
    assert done.returncode == 0, done.stdout
    assert "left out, because it needs root: `sudo make test` runs all" in done.stdout
    assert "[ssh]" not in done.stdout
    assert "test_a_command_answers[local]" in done.stdout


def test_for_root_nothing_is_left_out():
    assert ("left out" in collect().stdout) == (os.geteuid() != 0)
