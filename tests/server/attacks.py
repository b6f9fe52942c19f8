"""Writes the table of attacks in docs/security.md from the tests that make them: python -m tests.server.attacks"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security.md"
BEGIN, END = "<!-- made by python -m tests.server.attacks -->", "<!-- end -->"
# Heading -> files, and the words that tell an attack there from other tests; none: all of them are.
SOURCES: dict[str, dict[str, tuple[str, ...]]] = {
    "A person whose key opens only the gate": {"tests/server/test_gate.py": (), "tests/server/test_gate_words.py": ()},
    "The same person, and the container engine": {"tests/server/test_gate_engine.py": ()},
    "Steps by hand": {
        "tests/server/test_entry_point.py": ("refused", "sees_nothing", "no_shell", "stand_in", "no_network", "kernel")
    },
    "Keys": {"tests/server/test_login.py": ("gate", "revoked", "good_")},
    "Passwords, after a whole run": {
        "tests/remote/test_secrets.py": ("stands_nowhere",),
        "tests/remote/test_staging.py": ("no_password",),
        "tests/remote/test_venv.py": ("no_secret",),
    },
    "Names in our own commands": {
        "tests/remote/test_commands.py": ("name", "stream"),
        "tests/remote/test_staging.py": ("hostile_names", "leads_out", "not_ours"),
    },
    "A server that lies": {
        "tests/remote/test_collect.py": ("refused", "hostile"),
        "tests/remote/test_hostkeys.py": ("refused",),
        "tests/remote/test_ssh.py": ("changed_host_key", "never_shows"),
    },
    "Files from strangers": {
        "tests/bad_input/test_hostile.py": ("not_run", "refused"),
        "tests/compat/test_read.py": ("not_run", "never_made"),
        "tests/export/test_package.py": ("elsewhere", "link", "bomb", "more_bytes", "does_not_name", "changed_file"),
        "tests/io/test_hdf5.py": ("link_to_another_file",),
        "tests/io/test_numpy_file.py": ("pickle",),
        "tests/io/test_tiff.py": ("entities", "multi_file"),
        "tests/server/test_card.py": ("refused",),
        "tests/test_config.py": ("object_tag",),
    },
    "Words of strangers in a configuration, a table, a name": {
        "tests/workflow/test_hostile.py": (),
        "tests/bad_input/test_names.py": ("image", "volume", "case", "events"),
    },
}


def table() -> str:
    """Return all attacks, a line each: what came of it, in how many forms it was tried, where the test is."""
    lines = []
    for heading, files in SOURCES.items():
        lines += [f"### {heading}", "", "| what came of it | forms | test |", "|---|---|---|"]
        for file, words in files.items():
            every = list(tests_of(ROOT / file))
            lost = [word for word in words if not any(word in name for name, _ in every)]
            if lost:
                raise ValueError(f"no test of {file} has {lost} in its name; an attack without a test stands nowhere")
            rows = [(name, count) for name, count in every if not words or _has(name, words)]
            lines += [f"| {sentence(name)} | {count} | {file.removeprefix('tests/')} |" for name, count in rows]
        lines.append("")
    return "\n".join(lines)


def _has(name: str, words: tuple[str, ...]) -> bool:
    return any(word in name for word in words)


def sentence(name: str) -> str:
    """Return a test's name as words."""
    return name.removeprefix("test_").replace("_", " ")


def tests_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the names of a file's tests, and in how many forms each is run."""
    module = ast.parse(path.read_text())
    sizes: dict[str, int] = {}
    for node in module.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            sizes[node.targets[0].id] = len(_items(node.value))
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            sizes[node.target.id] += len(_items(node.value))
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    fixtures = {node.name: _params(node, sizes) for node in functions}
    for node in functions:
        if node.name.startswith("test_"):
            yield node.name, _forms(node, sizes, fixtures)


def _params(fixture: ast.FunctionDef, sizes: dict[str, int]) -> int:
    """Return in how many forms a fixture comes."""
    calls = [mark for mark in fixture.decorator_list if isinstance(mark, ast.Call)]
    given = [word.value for mark in calls for word in mark.keywords if word.arg == "params"]
    return sizes.get(given[0].id, 1) if given and isinstance(given[0], ast.Name) else 1


def _forms(test: ast.FunctionDef, sizes: dict[str, int], fixtures: dict[str, int]) -> str:
    count = 1
    for argument in test.args.args:
        count *= fixtures.get(argument.arg, 1)
    for mark in test.decorator_list:
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Attribute) and mark.func.attr == "parametrize":
            values = mark.args[1]
            if isinstance(values, ast.Call) and isinstance(values.func, ast.Attribute):  # NAME.values()
                values = values.func.value
            count *= sizes.get(values.id, 1) if isinstance(values, ast.Name) else len(_items(values))
        elif isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "given":
            return "many, made"
    return str(count or "all")


def _items(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.Dict):
        return list(node.values)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:  # sorted(...), list(...)
        return _items(node.args[0])
    if isinstance(node, ast.BinOp):
        return [*_items(node.left), *_items(node.right)]
    return node.elts if isinstance(node, ast.List | ast.Tuple) else []


def page_with_table(page: str) -> str:
    """Return the page with the table made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text()))
