"""The part of JSON Schema (draft 2020-12) that ``bundle.schema.json`` is written in."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
KEYWORDS = frozenset(
    {"$schema", "$id", "$ref", "$defs", "title", "description", "type", "properties", "required"}
    | {"additionalProperties", "items", "minItems", "maxItems", "minimum", "exclusiveMinimum"}
    | {"enum", "const", "pattern"}
)
"""What is understood here; a schema that uses more would be checked less than it says."""


def bundle_schema() -> dict[str, Any]:
    """The schema of ``bundle.json``, as shipped with the package."""
    text = (resources.files(__package__) / "bundle.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def problems(value: object, schema: Mapping[str, Any]) -> Iterator[str]:
    """What in ``value`` breaks ``schema``, each as "place: reason".

    ``value`` is what ``json.loads`` gives. References are to ``#/$defs/NAME``.
    """
    yield from _problems(value, schema, schema, "")


def _problems(
    value: object, schema: Mapping[str, Any], root: Mapping[str, Any], place: str
) -> Iterator[str]:
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    here = place or "the top level"
    if "type" in schema and not _is(value, schema["type"]):
        yield f"{here}: {_short(value)} is no {schema['type']}"
        return
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{here}: {_short(value)} is not {schema['const']!r}"
    if "enum" in schema and not any(_same(value, entry) for entry in schema["enum"]):
        yield f"{here}: {_short(value)} is none of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{here}: {_short(value)} does not match {schema['pattern']}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value < schema.get("minimum", -math.inf):
            yield f"{here}: {value} is below {schema['minimum']}"
        if value <= schema.get("exclusiveMinimum", -math.inf):
            yield f"{here}: {value} is not above {schema['exclusiveMinimum']}"
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf):
            yield f"{here}: {len(value)} entries"
        for index, entry in enumerate(value):
            yield from _problems(entry, schema.get("items", {}), root, f"{place}[{index}]")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        others = schema.get("additionalProperties", {})
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{here}: {name} is missing"
        for name, entry in value.items():
            below = f"{place}.{name}" if place else name
            if name in known or isinstance(others, dict):
                yield from _problems(entry, known.get(name, others), root, below)
            elif others is False:
                yield f"{here}: {_short(name)} is not known"


def _is(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    # As the specification says, 1.0 is an integer.
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _same(a: object, b: object) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
