"""JSON schemas as expressions: what matches is valid, and what cannot hold is refused."""

import json
import re

import pytest

from textdiffusion.core.errors import UserError
from textdiffusion.guidance import patterns, regex
from textdiffusion.serve.schemas import json_pattern, schema_pattern

pytest.importorskip("outlines_core")


def matches(pattern: str, text: str) -> bool:
    """Whether our automaton accepts a text."""
    transitions, accepting = patterns.automaton(regex.parse(pattern))
    state = 0
    for byte in text.encode():
        state = transitions[state, byte]
    return bool(accepting[state])


@pytest.mark.parametrize(("low", "high"), [(0, 10), (5, 5), (-3, 17), (7, 1234), (-120, -45), (0, 1000), (-1, 0)])
def test_integers_have_their_bounds(low: int, high: int):
    pattern = schema_pattern({"type": "integer", "minimum": low, "maximum": high})
    open_pattern = schema_pattern({"type": "integer", "exclusiveMinimum": low - 1, "exclusiveMaximum": high + 1})
    for value in range(low - 120, high + 120):
        assert bool(re.fullmatch(pattern, str(value))) == (low <= value <= high)
        assert bool(re.fullmatch(open_pattern, str(value))) == (low <= value <= high)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-2, 3), (-5, -1), (2, 2), (0, 100), (3, None), (-7, 0)])
def test_numbers_have_their_bounds(low: int, high: int | None):
    bounds = {"minimum": low} | ({} if high is None else {"maximum": high})
    pattern = schema_pattern({"type": "number", **bounds})
    top = 1000 if high is None else high
    for hundredths in range(100 * low - 130, 100 * top + 130, 7):
        text = f"{hundredths / 100:g}"
        assert bool(re.fullmatch(pattern, text)) == (low <= float(text) <= top or (high is None and float(text) >= low))


CASES = [
    (
        {"type": "object", "properties": {"a b": {"type": "null"}}, "required": ["a b"]},
        ['{"a b":null}', '{ "a b" : null }'],
        ["{}", '{"a b":1}', '{"a b":null,"c":1}'],
    ),
    (
        {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": "x.y"}}},
        ["{}", '{"a":1}', '{"b":"x.y"}', '{"a":1,"b":"x.y"}'],
        ['{"a":2}', '{"b":"xzy"}', '{"a":1,}'],
    ),
    (
        {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
        ["[true]", "[true, false]"],
        ["[]", "[true,true,true]", "[1]"],
    ),
    (
        {"type": "array", "prefixItems": [{"type": "null"}, {"enum": [1, 2]}], "items": False},
        ["[null,1]", "[null, 2]"],
        ["[null]", "[null,3]", "[null,1,1]"],
    ),
    (
        {"type": "string", "minLength": 1, "maxLength": 3},
        ['"abc"', '"\\n€"', '"\\""'],
        ['""', '"abcd"', '"\n"', '"\\"'],
    ),
    ({"type": "string", "pattern": "^[a-z]+(-[0-9]{2})?$"}, ['"ab"', '"ab-12"'], ['"ab-1"', "ab", '"A"']),
    ({"type": "string", "format": "date"}, ['"2024-02-28"', '"1999-12-31"'], ['"2023-02-30"', '"2023-04-31"', '"0"']),
    ({"type": "string", "format": "date-time"}, ['"2024-02-28T23:59:59Z"'], ['"2024-02-28T24:00:00Z"']),
    ({"type": ["string", "null"], "maxLength": 2}, ["null", '"ab"'], ['"abc"', "1"]),
    ({"anyOf": [{"type": "integer"}, {"type": "boolean"}]}, ["-12", "true"], ["+1", "01", "1.5", "null"]),
    ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, ["7", '"7"'], ["null"]),
    ({"enum": ["a", 'q"', None, [1, {"b": 2}]]}, ['"a"', '"q\\""', "null", '[1, {"b": 2}]'], ['"b"', "[1]"]),
    (
        {"$ref": "#/$defs/x", "$defs": {"x": {"type": "array", "items": {"$ref": "#/$defs/y"}}, "y": {"type": "null"}}},
        ["[null]", "[]", "[null,null]"],
        ["null", "[1]"],
    ),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, ["{}", '{"k":1,"l":2}'], ['{"k":true}', "{1:1}"]),
]


@pytest.mark.parametrize(("schema", "valid", "invalid"), CASES)
def test_valid_texts_match_and_others_do_not(schema: dict, valid: list[str], invalid: list[str]):
    pattern = schema_pattern(schema)
    for text in valid:
        json.loads(text)
        assert matches(pattern, text), text
    for text in [*invalid, "", "{", "tru"]:
        assert not matches(pattern, text), text


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({}, "any value"),
        ({"type": "object"}, "any properties"),
        ({"type": "array"}, "any items"),
        ({"type": "integer", "multipleOf": 3}, "multipleOf"),
        ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, "uniqueItems"),
        ({"type": "number", "minimum": 0.5, "maximum": 1}, "whole number"),
        ({"type": "number", "maximum": 1}, "one bound"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no number"),
        ({"type": "string", "format": "email"}, "email"),
        ({"type": "string", "pattern": "a"}, r"\^"),
        ({"type": "string", "pattern": "^.$"}, "JSON escapes"),
        ({"type": "string", "pattern": "^(?=a)$"}, "not supported"),
        ({"type": "object", "properties": {}, "required": ["a"]}, "requires 'a'"),
        ({"allOf": [{"type": "null"}]}, "type of the schema"),
        ({"not": {"type": "null"}}, "type of the schema"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "could match twice"),
        ({"$ref": "#"}, "refers to itself"),
        ({"$ref": "http://a/b"}, "inside the schema"),
        ({"$ref": "#/$defs/none"}, "does not have"),
        ({"type": "colour"}, "'colour'"),
        ({"enum": []}, "at least one"),
        ({"type": "string", "minLength": -1}, "minLength"),
        ({"type": "string", "enum": [1]}, "has its type"),
        ({"type": "object", "properties": {'a"': {"type": "null"}}}, "JSON escapes"),
    ],
)
def test_what_cannot_hold_is_refused(schema: dict, words: str):
    with pytest.raises(UserError, match=words):
        schema_pattern(schema)


def test_response_formats():
    assert json_pattern({"type": "text"}) is None
    assert matches(json_pattern({"type": "json_object"}) or "", '{"a": 1, "b": "c"}')
    for wrong in ({}, {"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"schema": 3}}):
        with pytest.raises(UserError, match="response_format"):
            json_pattern(wrong)


def test_characters_by_code_point():
    assert matches(r"\x41\u20ac[\x00-\x02]", "A€\x01")
    assert matches(regex.escape("a.b-[c]\\\n€ _"), "a.b-[c]\\\n€ _")
    for wrong in (r"\x4", r"\xg1", r"\u12"):
        with pytest.raises(UserError, match="hexadecimal"):
            regex.parse(wrong)
