"""JSON schemas as regular expressions, for texts that must be valid JSON.

outlines-core turns the structure into an expression. It ignores what it does not know, so every keyword is checked
first: a schema that is accepted holds. Bounds of numbers and dates become expressions here.
"""

from __future__ import annotations

import json
from typing import Any

from ..core.errors import UserError
from ..guidance import regex
from ..guidance.patterns import Node
from ..guidance.regex import escape

MAX_DEPTH = 16
WHITESPACE = "[ ]?"
_ESCAPED = (1 << 32) - 1 | 1 << ord('"') | 1 << ord("\\") | 1 << 127  # bytes that a JSON string has only escaped

_COMMON = {
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$comment",
    "$schema",
    "$id",
}
_KEYWORDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems", "prefixItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": {"minimum", "maximum"},
    "boolean": set[str](),
    "null": set[str](),
}
_FORMATS = {
    "date": r"[12]\d{3}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8]))",
    "time": r"([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ",
    "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
}

_FORMATS["date-time"] = f"{_FORMATS['date']}T{_FORMATS['time']}"


def json_pattern(response_format: dict[str, Any]) -> str | None:
    """The expression of OpenAI's `response_format`; None for plain text. Raises UserError for what is not supported."""
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return schema_pattern(
            {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}
        )
    if kind != "json_schema":
        raise UserError(f"response_format.type is {kind!r}; it can be text, json_object or json_schema.")
    wrapper = response_format.get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    if not isinstance(schema, dict):
        raise UserError("response_format.json_schema.schema is missing; it must be a JSON schema, an object.")
    return schema_pattern(schema)


def schema_pattern(schema: dict[str, Any]) -> str:
    """The expression of all JSON texts that a schema allows and that its expression can tell.

    Objects have their properties in the schema's order, and no others. Raises UserError for schemas beyond what is
    supported, naming the keyword.
    """
    try:
        from outlines_core.json_schema import build_regex_from_schema  # pyrefly: ignore[missing-import]
    except ImportError:
        raise UserError("JSON schemas need outlines-core: pip install 'textdiffusion[serve]'.") from None
    rewriter = _Rewriter(schema)
    rewritten = rewriter.rewrite(schema, "the schema", 0)
    try:
        pattern = build_regex_from_schema(json.dumps(rewritten, ensure_ascii=False), WHITESPACE)
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"This schema cannot become a pattern: {error}.") from None
    for name, replacement in rewriter.patterns.items():
        pattern = pattern.replace(f'"{name}"', f"(?:{replacement})")
    return pattern


class _Rewriter:
    """Checks a schema, resolves references, and replaces what outlines-core cannot tell by constants with a pattern."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root, self.patterns = root, dict[str, str]()

    def rewrite(self, schema: Any, where: str, depth: int) -> dict[str, Any]:
        """The schema of `where`, in the words of outlines-core."""
        if schema is True or schema == {}:
            raise UserError(f"{where} allows any value; say its type.")
        if not isinstance(schema, dict):
            raise UserError(f"{where} is not a JSON schema; it must be an object.")
        if depth > MAX_DEPTH:
            raise UserError(f"{where} is more than {MAX_DEPTH} levels deep, or refers to itself.")
        schema = {key: value for key, value in schema.items() if key not in _COMMON}
        if "$ref" in schema:
            _allow(schema, {"$ref", "$defs", "definitions"}, where)
            return self.rewrite(self._resolve(schema["$ref"], where), f"{schema['$ref']}", depth + 1)
        schema = {key: value for key, value in schema.items() if key not in ("$defs", "definitions")}
        for keyword in ("const", "enum"):
            if keyword in schema:
                _allow(schema, {keyword, "type"}, where)
                return self._values(schema, keyword, where)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                _allow(schema, {keyword}, where)
                return self._union(schema[keyword], keyword, where, depth)
        kind = schema.get("type")
        if isinstance(kind, list):
            options = [
                {"type": each} | {k: v for k, v in schema.items() if k in _KEYWORDS.get(each, ())} for each in kind
            ]
            _allow(schema, {"type"}.union(*(_KEYWORDS.get(str(each), set()) for each in kind)), where)
            return self._union(options, "anyOf", where, depth)
        if kind not in _KEYWORDS:
            types = ", ".join(_KEYWORDS)
            raise UserError(f"The type of {where} is {kind!r}; it can be {types}, or a list of them.")
        _allow(schema, {"type"} | _KEYWORDS[kind], where)
        return getattr(self, f"_{kind}")(schema, where, depth)

    def _resolve(self, reference: Any, where: str) -> Any:
        target: Any = self.root
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise UserError(f"{where} refers to {reference!r}; only references inside the schema (#/$defs/...) work.")
        for part in filter(None, reference[1:].split("/")):
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, dict) or key not in target:
                raise UserError(f"{where} refers to {reference}, which the schema does not have.")
            target = target[key]
        return target

    def _placeholder(self, pattern: str) -> dict[str, Any]:
        name = f"pattern{len(self.patterns)}of{id(self.root)}"
        self.patterns[name] = pattern
        return {"const": name}

    def _values(self, schema: dict[str, Any], keyword: str, where: str) -> dict[str, Any]:
        values = schema[keyword] if keyword == "enum" else [schema[keyword]]
        if not isinstance(values, list) or not values:
            raise UserError(f"enum of {where} must be a list of at least one value.")
        kinds = schema.get("type")
        kept = [value for value in values if kinds is None or _has_type(value, kinds)]
        if not kept:
            raise UserError(f"No value of {where} has its type.")
        # Spelled here, because all JSON of a value is wanted as one text.
        texts = [json.dumps(value, ensure_ascii=False, separators=(", ", ": ")) for value in kept]
        return self._placeholder("|".join(map(escape, texts)))

    def _union(self, options: Any, keyword: str, where: str, depth: int) -> dict[str, Any]:
        if not isinstance(options, list) or not options:
            raise UserError(f"{keyword} of {where} must be a list of at least one schema.")
        rewritten = [self.rewrite(each, f"{where}.{keyword}[{i}]", depth + 1) for i, each in enumerate(options)]
        if keyword == "oneOf":
            kinds = [each.get("type") if isinstance(each, dict) else None for each in options]
            if None in kinds or len({"number" if kind == "integer" else kind for kind in map(str, kinds)}) < len(kinds):
                raise UserError(f"oneOf of {where} could match twice; use anyOf, or options of different types.")
        return {"anyOf": rewritten}

    def _object(self, schema: dict[str, Any], where: str, depth: int) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise UserError(f"properties of {where} must be an object, and required a list.")
        if missing := [name for name in required if name not in properties]:
            raise UserError(f"{where} requires {missing[0]!r}, which is not among its properties.")
        if not properties:
            extra = schema.get("additionalProperties", True)
            if extra is True or extra == {}:
                raise UserError(f"{where} allows any properties; list them, or give additionalProperties a schema.")
            if extra is False:
                return self._placeholder(r"\{\}")
            return {"type": "object", "additionalProperties": self.rewrite(extra, f"{where}.*", depth + 1)}
        for name in properties:
            if not isinstance(name, str) or json.dumps(name, ensure_ascii=False) != f'"{name}"':
                raise UserError(f"The property {name!r} of {where} has characters that JSON escapes.")
        rewritten = {name: self.rewrite(each, f"{where}.{name}", depth + 1) for name, each in properties.items()}
        return {"type": "object", "properties": rewritten, "required": required, "additionalProperties": False}

    def _array(self, schema: dict[str, Any], where: str, depth: int) -> dict[str, Any]:
        low, high = _count(schema, "minItems", where), _count(schema, "maxItems", where)
        if low is not None and high is not None and high < low:
            raise UserError(f"maxItems of {where} is below minItems.")
        if "prefixItems" in schema:
            if schema.get("items") is not False or low is not None or high is not None:
                raise UserError(f"prefixItems of {where} need items=false, and no minItems or maxItems.")
            items = schema["prefixItems"]
            if not isinstance(items, list) or not items:
                raise UserError(f"prefixItems of {where} must be a list of at least one schema.")
            parts = [self.rewrite(each, f"{where}[{i}]", depth + 1) for i, each in enumerate(items)]
            return {"type": "array", "prefixItems": parts}
        if "items" not in schema:
            raise UserError(f"{where} allows any items; give items a schema.")
        if high == 0:
            return self._placeholder(r"\[\]")
        counts = {name: value for name, value in (("minItems", low), ("maxItems", high)) if value is not None}
        return {"type": "array", "items": self.rewrite(schema["items"], f"{where}[]", depth + 1), **counts}

    def _string(self, schema: dict[str, Any], where: str, depth: int) -> dict[str, Any]:
        if "format" in schema:
            _allow(schema, {"type", "format"}, where)
            if schema["format"] not in _FORMATS:
                raise UserError(f"format of {where} is {schema['format']!r}; it can be {', '.join(_FORMATS)}.")
            return self._placeholder(f'"{_FORMATS[schema["format"]]}"')
        if "pattern" in schema:
            _allow(schema, {"type", "pattern"}, where)
            return self._placeholder(f'"{_string_pattern(schema["pattern"], where)}"')
        low, high = _count(schema, "minLength", where), _count(schema, "maxLength", where)
        if low is not None and high is not None and high < low:
            raise UserError(f"maxLength of {where} is below minLength.")
        counts = "*" if low is None and high is None else f"{{{low or 0},{'' if high is None else high}}}"
        return self._placeholder(rf'"([^"\\\x00-\x1f\x7f-\x9f]|\\["\\/bfnrt]){counts}"')

    def _integer(self, schema: dict[str, Any], where: str, depth: int) -> dict[str, Any]:
        low, high = _bound(schema, "minimum", where), _bound(schema, "maximum", where)
        above, below = _bound(schema, "exclusiveMinimum", where), _bound(schema, "exclusiveMaximum", where)
        low = max((each for each in (low, None if above is None else above + 1) if each is not None), default=None)
        high = min((each for each in (high, None if below is None else below - 1) if each is not None), default=None)
        return self._placeholder(_integers(low, high, where))

    def _number(self, schema: dict[str, Any], where: str, depth: int) -> dict[str, Any]:
        low, high = _bound(schema, "minimum", where), _bound(schema, "maximum", where)
        if low is None and high is None:
            return self._placeholder(r"-?(0|[1-9]\d{0,14})(\.\d{1,15})?")
        if (low is not None and high is not None and low >= 0) or (low is not None and high is None and low >= 0):
            # From a whole number up: any fraction, except above the upper bound.
            if high is None:
                return self._placeholder(rf"({_integers(low, None, where)})(\.\d{{1,15}})?")
            whole = f"({_integers(low, high - 1, where)})" if high > low else None
            options = [rf"{whole}(\.\d{{1,15}})?"] if whole else []
            return self._placeholder("|".join([*options, rf"{escape(str(high))}(\.0)?"]))
        if low is not None and high is not None and high <= 0:
            inner = f"({_integers(-high, -low - 1, where)})" if high > low else None
            options = [rf"-{inner}(\.\d{{1,15}})?"] if inner else []
            return self._placeholder("|".join([*options, rf"-{-low}(\.0)?"] + (["0"] if high == 0 else [])))
        if low is not None and high is not None:  # across zero
            negative, positive = f"({_integers(0, -low - 1, where)})", f"({_integers(0, high - 1, where)})"
            options = [rf"-{negative}(\.\d{{1,15}})?", rf"{positive}(\.\d{{1,15}})?", rf"{low}(\.0)?", rf"{high}(\.0)?"]
            return self._placeholder("|".join(options))
        raise UserError(f"{where} is a number with one bound; give it both, or a minimum of 0 or more.")

    def _boolean(self, schema: dict[str, Any], where: str, depth: int) -> dict[str, Any]:
        return {"type": "boolean"}

    def _null(self, schema: dict[str, Any], where: str, depth: int) -> dict[str, Any]:
        return {"type": "null"}


def _allow(schema: dict[str, Any], allowed: set[str], where: str) -> None:
    if unknown := sorted(set(schema) - allowed):
        raise UserError(f"{unknown[0]!r} of {where} is not supported here; {', '.join(sorted(allowed))} are.")


def _has_type(value: Any, kinds: Any) -> bool:
    names = {bool: ["boolean"], str: ["string"], int: ["integer", "number"], float: ["number"], type(None): ["null"]}
    names |= {dict: ["object"], list: ["array"]}
    return any(kind in names.get(type(value), []) for kind in (kinds if isinstance(kinds, list) else [kinds]))


def _count(schema: dict[str, Any], name: str, where: str) -> int | None:
    value = schema.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise UserError(f"{name} of {where} must be a whole number of at least 0.")
    return value


def _bound(schema: dict[str, Any], name: str, where: str) -> int | None:
    value = schema.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or abs(value) >= 10**15:
        raise UserError(f"{name} of {where} must be a whole number of at most 15 digits.")
    return int(value)


def _string_pattern(pattern: Any, where: str) -> str:
    if not isinstance(pattern, str):
        raise UserError(f"pattern of {where} must be a text.")
    if not (pattern.startswith("^") and pattern.endswith("$") and not pattern.endswith(r"\$")):
        raise UserError(f"pattern of {where} must match the whole string: write it as ^...$.")
    inner = pattern[1:-1]
    if _bytes_of(regex.parse(inner)) & _ESCAPED:
        raise UserError(
            f"pattern of {where} may match quotes, backslashes or control characters, which JSON escapes; "
            r"use sets of allowed characters, such as [A-Za-z ], and \d, \w."
        )
    return f"(?:{inner})"


def _bytes_of(node: Node) -> int:
    """A bit mask of the bytes in texts that match an expression without complements."""
    mask, stack = 0, [node]
    while stack:
        kind, *parts = stack.pop()
        if kind == "set":
            mask |= parts[0]
        else:
            stack += list(parts[0]) if kind == "or" else parts
    return mask


def _integers(low: int | None, high: int | None, where: str) -> str:
    """An expression of the decimal integers from `low` to `high` (None: no bound, up to 15 digits)."""
    limit = 10**15 - 1
    low, high = -limit if low is None else low, limit if high is None else high
    if low > high:
        raise UserError(f"{where} allows no number: its minimum is above its maximum.")
    options = []
    if low < 0:
        options.append(f"-({_digits(max(1, -high), -low)})")
    if high >= 0:
        options.append(_digits(max(0, low), high))
    return "|".join(options)


def _digits(low: int, high: int) -> str:
    """An expression of the decimal numbers from `low` to `high`, both at least 0, without leading zeros."""
    options = []
    while low <= high:
        # The largest aligned block from `low` on: its last `zeros` digits may be anything.
        zeros = 0
        while low and low % 10 ** (zeros + 1) == 0 and low + 10 ** (zeros + 1) - 1 <= high:
            zeros += 1
        head, size = low // 10**zeros, 10**zeros
        last = min(9, head % 10 + (high - low + 1) // size - 1)
        prefix = str(head // 10) if head >= 10 else ""
        digit = str(head % 10) if last == head % 10 else f"[{head % 10}-{last}]"
        tail = "" if not zeros else r"\d" if zeros == 1 else rf"\d{{{zeros}}}"
        options.append(f"{prefix}{digit}{tail}")
        low += (last - head % 10 + 1) * size
    return "|".join(options)
