"""The configuration files: where each key stands, and what is wrong with what they say."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from biom3d_workflow import schema
from biom3d_workflow.problems import Problem
from biom3d_workflow.schema import Place

MAX_NODES = 100_000  # values in a configuration
COMMAND_LINE = "--config"  # stands for the file name of values that come from there


@dataclass(frozen=True)
class Source:
    """One configuration file: the line of every key, and what YAML itself would let pass."""

    file: str
    lines: Mapping[Place, int]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Locator:
    """Finds the file and line of a key; `sources` by precedence, highest first."""

    sources: Sequence[Source]
    overrides: frozenset[str] = frozenset()  # top-level keys given on the command line

    def problem(self, place: Place, text: str, is_warning: bool = False) -> Problem:
        """Return a problem with the key at `place`."""
        file, line = self._find(place)
        name = ".".join(map(str, place))
        return Problem(file, line, f"{name}: {text}" if name else text, is_warning)

    def _find(self, place: Place) -> tuple[str, int]:
        if place and place[0] in self.overrides:
            return COMMAND_LINE, 0
        while place:
            for source in self.sources:
                if place in source.lines:
                    return source.file, source.lines[place]
            place = place[:-1]
        return (self.sources[0].file if self.sources else COMMAND_LINE), 0


def read_source(file: str) -> Source:
    """Read where things stand in a YAML file."""
    text = Path(file).read_text(encoding="utf-8-sig")
    lines: dict[Place, int] = {}
    problems: list[Problem] = []
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or "cannot be read"
        return Source(file, {}, (Problem(file, mark.line + 1 if mark else 0, f"not valid YAML: {what}"),))
    if root is not None and _written_out(root, {}) > MAX_NODES:
        return Source(
            file, {}, (Problem(file, 0, f"its aliases stand for more than {MAX_NODES} values; write them out"),)
        )
    if root is not None:
        _walk(root, (), file, lines, problems)
    return Source(file, lines, tuple(problems))


def refuse_endless(file: str) -> None:
    """Raise ValueError for a small file whose aliases stand for endlessly many values, and for one nested too deeply.

    Snakemake would write them out in memory.
    """
    if Path(file).is_file():
        endless = [problem for problem in read_source(file).problems if not problem.line]
        if endless:
            raise ValueError(str(endless[0]))


def _written_out(node: yaml.Node, known: dict[int, float]) -> float:
    """Return how many values a node holds, aliases written out; infinity for one that holds itself."""
    # As in biom3d.config, which is not imported here: the workflow is linted where nothing but Snakemake is installed.
    if id(node) not in known:
        known[id(node)] = math.inf
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        items = node.value if isinstance(node, yaml.SequenceNode) else [item for pair in pairs for item in pair]
        known[id(node)] = 1 + sum(_written_out(item, known) for item in items)
    return known[id(node)]


def _walk(node: yaml.Node, place: Place, file: str, lines: dict[Place, int], problems: list[Problem]) -> None:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[*place, index] = item.start_mark.line + 1
            _walk(item, (*place, index), file, lines, problems)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here, line = (*place, key.value), key.start_mark.line + 1
        name = ".".join(map(str, here))
        if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            problems.append(Problem(file, line, f"{name}: YAML does not take this name as text; put it in quotes"))
        if here in lines:
            problems.append(Problem(file, line, f"{name}: given twice; first on line {lines[here]}"))
        else:
            lines[here] = line
        _walk(value, here, file, lines, problems)


def check_config(config: Mapping[str, Any], locator: Locator) -> Iterator[Problem]:
    """Yield what is wrong with a configuration, before any table is read."""
    yaml_problems = [problem for source in locator.sources for problem in source.problems]
    yield from yaml_problems
    if any("put it in quotes" in problem.text for problem in yaml_problems):
        return  # a schema speaks of text keys only
    for place, text in schema.errors(config, "config"):
        yield locator.problem(place, text)
