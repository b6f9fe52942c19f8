"""Tests for another user than root: what needs root is taken out of the run, counted, and named at its end.

It starts sshd, container engines, Slurm or networks of its own, or makes accounts. As root nothing is taken out.
"""

import os
from collections import Counter

import pytest

from tests.docker_engine import answering

BY_FIXTURE = ("account", "server", "cluster")
BY_PARAMETER = ("ssh",)  # of a test that asks for its fixture only when it runs
OF_DOCKER = ("docker_client", "container")  # a fixture, a parameter; they need root where no engine answers
BY_MODULE = (
    "tests/images/test_engine.py",
    "tests/images/test_archive.py",
    "tests/remote/test_gpus.py",
    "tests/remote/test_jump.py",
    "tests/remote/test_podman.py",
    "tests/remote/test_run.py",
    "tests/workflow/test_slurm.py",
)
LEFT_OUT = pytest.StashKey[Counter[str]]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out what needs root, unless root runs the tests."""
    if os.geteuid() == 0:
        return
    words = {*BY_FIXTURE, *BY_PARAMETER, *(() if answering() else OF_DOCKER)}
    out = [item for item in items if needs_root(item, words)]
    items[:] = [item for item in items if item not in set(out)]
    config.hook.pytest_deselected(items=out)
    config.stash[LEFT_OUT] = Counter(module_of(item) for item in out)


def needs_root(item: pytest.Item, words: set[str]) -> bool:
    """Say whether a test needs root, by the fixtures and parameters that it has or the module that it is in."""
    call = getattr(item, "callspec", None)
    parameters = {value for value in call.params.values() if isinstance(value, str)} if call else set()
    return bool(words & {*getattr(item, "fixturenames", ()), *parameters}) or module_of(item) in BY_MODULE


def module_of(item: pytest.Item) -> str:
    """Return the file of a test."""
    return item.nodeid.partition("::")[0]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was left out."""
    left_out = config.stash.get(LEFT_OUT, Counter())
    if left_out:
        terminalreporter.section("left out, because it needs root: `sudo make test` runs all")
        for module, number in sorted(left_out.items()):
            terminalreporter.line(f"{number:5}  {module}")
        terminalreporter.line(f"{left_out.total():5}  in all")
