"""JSON schemas: their defaults, and their errors in words for users."""

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import jsonschema
import yaml

from biom3d_workflow.problems import suggestion

FOLDER = Path(__file__).parents[2] / "schemas"
Place = tuple[str | int, ...]  # keys and list positions from the top of the file

_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "`key: value` lines",
    "null": "null",
}


@functools.cache
def load(name: str) -> dict[str, Any]:
    """Read `workflow/schemas/NAME.schema.yaml`."""
    schema: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.schema.yaml").read_text(encoding="utf-8"))
    return schema


def option_defaults() -> dict[str, Any]:
    """Return the default of every model option."""
    options = load("config")["$defs"]["options"]["properties"]
    return {key: value["default"] for key, value in options.items()}


def errors(instance: Any, name: str) -> Iterator[tuple[Place, str]]:
    """Yield where `instance` breaks the schema, and how, in words."""
    for error in jsonschema.Draft202012Validator(load(name)).iter_errors(instance):
        broken = cast(dict[str, Any], error.schema)
        place: Place = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            yield from _unknown_keys(place, error.instance, broken["properties"])
        elif error.validator == "required":
            missing = [key for key in error.validator_value if key not in error.instance]
            yield place, f"{', '.join(missing)} is missing; {broken['description']}"
        elif "propertyNames" in error.absolute_schema_path:
            yield (*place, error.instance), "not a good name; use letters, digits, '.', '_', '-', at most 100"
        else:
            yield place, f"found {found(error.instance)}; wanted: {wanted(broken)}"


def _unknown_keys(place: Place, keys: Iterable[str], allowed: Iterable[str]) -> Iterator[tuple[Place, str]]:
    for key in keys:
        if key not in allowed:
            yield (*place, key), f"unknown key; {suggestion(key, allowed)}"


def found(value: Any) -> str:
    """Write a value with its kind where that is not plain to see."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"{text} (text)" if isinstance(value, str) else text


def wanted(schema: Mapping[str, Any]) -> str:
    """Say in words what a schema allows."""
    if "x-wanted" in schema:
        return str(schema["x-wanted"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    kinds = schema.get("type", "string")
    text = " or ".join(_KINDS[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds))
    if "minItems" in schema and schema.get("minItems") == schema.get("maxItems"):
        text = text.replace("a list", f"a list of {schema['minItems']} items")
    if "items" in schema:
        text += f", each {wanted(schema['items'])}"
    limits = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}
    text += "".join(f", {words} {schema[key]}" for key, words in limits.items() if key in schema)
    if schema.get("minLength") or (schema.get("minItems") and "maxItems" not in schema):
        text += ", not empty"
    if schema.get("minProperties"):
        text += f", at least {schema['minProperties']}"
    return text + (", each once" if schema.get("uniqueItems") else "")
