"""Read a configuration of Biom3d 0.1.2, `.yaml` or `.py`, without running anything that is written in it."""

import ast
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from biom3d.config import BoundedLoader
from biom3d.errors import ConfigError

# Names of older versions, and what they are called now.
RENAMED = {"IMG_DIR": "IMG_PATH", "MSK_DIR": "MSK_PATH", "FG_DIR": "FG_PATH"}
MARKERS = ("NUM_POOLS", "PATCH_SIZE", "NUM_CLASSES")  # keys that only such a configuration has
OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {"Dict": dict, "dict": dict, "max": max, "min": min, "int": int}
MAX_BYTES = 1_000_000  # a configuration has about 10 kB; a deeply nested text could exhaust the parser
Values = dict[str, Any]


def is_biom3d_config(path: Path | str) -> bool:
    """Tell whether a file is a configuration of Biom3d: Python, or YAML with its keys in capitals."""
    path = Path(path)
    if path.suffix == ".py":
        return True
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return all(any(line.startswith(f"{key}:") for line in lines) for key in MARKERS)


def read_biom3d_config(path: Path | str) -> Values:
    """Return the values of a configuration, with the names of version 0.1.2.

    Python files are read, not run: assignments of plain values, of `Dict(...)` and of sums of them are understood,
    the rest is left out. Python objects in YAML (tuples, NumPy numbers of old versions) become plain values or None.

    Raises:
        ConfigError: it cannot be read, or it is no such configuration.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"'{path}' is larger than any configuration ({MAX_BYTES} bytes); give another file")
        text = path.read_text(encoding="utf-8")
        values = _read_python(text) if path.suffix == ".py" else _Loader(text).get_single_data()
    except OSError as error:
        raise ConfigError(f"cannot read '{path}': {error.strerror}; give a configuration of Biom3d") from error
    except (yaml.YAMLError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"'{path}' is no valid configuration: {reason}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"'{path}' holds {type(values).__name__}; wanted the keys of a Biom3d configuration")
    values = {RENAMED.get(str(key), str(key)): value for key, value in values.items()}
    missing = [key for key in MARKERS if values.get(key) is None]
    if missing:
        raise ConfigError(f"'{path}': missing {', '.join(missing)}, or not a plain value; is this Biom3d's?")
    return values


class _Loader(BoundedLoader):
    """BoundedLoader that takes Python's tuples for lists, and any other Python object for nothing."""


def _construct_python(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    if suffix == "tuple" and isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if suffix in ("str", "unicode", "int", "float", "bool") and isinstance(node, yaml.ScalarNode):
        return yaml.safe_load(node.value)
    if isinstance(node, yaml.MappingNode) and suffix.startswith("object") and "dictitems" in _keys(node):
        # a dict of another class, such as Biom3d's AttrDict
        return loader.construct_mapping(node, deep=True)["dictitems"]
    return None


def _keys(node: yaml.MappingNode) -> list[str]:
    return [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _construct_python)


def _read_python(text: str) -> Values:
    """Return the assignments `NAME = value` of a Python file that can be understood without running it."""
    values: Values = {}
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            if isinstance(target, ast.Name) and target.id.isupper():
                try:
                    values[target.id] = _value(statement.value, values)
                except (LookupError, TypeError, ValueError, ArithmeticError):
                    values.pop(target.id, None)  # such as CONFIG = Dict(**globals()); a key that is needed is missed
    return values


def _value(node: ast.expr, names: Values) -> Any:
    """Return what an expression of plain values, names and `Dict(...)` stands for; ValueError for others."""
    match node:
        case ast.Name(id=name):
            return names[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            a, b = _value(left, names), _value(right, names)
            if not all(isinstance(value, int | float) for value in (a, b)):
                raise ValueError("only numbers are added")
            return OPERATORS[type(op)](a, b)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _value(test, names) else orelse, names)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, names)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, names) for item in items]
        case ast.Dict(keys=keys, values=items):
            return {_value(k, names): _value(v, names) for k, v in zip(keys, items, strict=True) if k is not None}
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in FUNCTIONS:
            given = {word.arg: _value(word.value, names) for word in keywords if word.arg is not None}
            if len(given) < len(keywords):
                raise ValueError("** is not understood")
            return FUNCTIONS[name](*(_value(arg, names) for arg in args), **given)
    return ast.literal_eval(node)
