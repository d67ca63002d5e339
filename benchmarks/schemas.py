"""JSON schemas of rising difficulty: how many texts of a run are valid, by the package jsonschema (all must be).

    python benchmarks/schemas.py [RUN] [--num 50] [--length 160] [--steps 64]

The request takes the path of the server's, without HTTP. Prints a line for each schema, and the total.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import jsonschema
import torch

from textdiffusion import TextDiffusion
from textdiffusion.core.errors import UserError
from textdiffusion.serve.bodies import InfillBody
from textdiffusion.serve.jobs import Written
from textdiffusion.serve.limits import Limits
from textdiffusion.serve.patterns import requested
from textdiffusion.serve.writing import plan, read

WORD = {"type": "string", "pattern": "^[a-z]{1,12}$"}
AGE = {"type": "integer", "minimum": 0, "maximum": 120}
POINT = {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "integer"}], "items": False}


def record(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    """An object whose properties are all required, unless a list says which."""
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def several(items: Any, low: int, high: int) -> dict[str, Any]:
    """An array of `low` to `high` items."""
    return {"type": "array", "items": items, "minItems": low, "maxItems": high}


ADDRESS = record(street=WORD, number={"type": "integer", "minimum": 1, "maximum": 999})
PERSON = record(name=WORD, age=AGE, address=ADDRESS)
SCHEMAS: dict[str, dict[str, Any]] = {
    "a boolean": {"type": "boolean"},
    "an enum": {"enum": ["pub", "coffee shop", "restaurant"]},
    "a bounded integer": {"type": "integer", "minimum": -17, "maximum": 1234},
    "a bounded number": {"type": "number", "minimum": -1, "maximum": 1},
    "a string of 3 to 20 characters": {"type": "string", "minLength": 3, "maxLength": 20},
    "a string with a pattern": {"type": "string", "pattern": "^[A-Z][a-z]+ [A-Z][a-z]+$"},
    "a date and time": {"type": "string", "format": "date-time"},
    "a UUID": {"type": "string", "format": "uuid"},
    "a list of integers": several({"type": "integer", "minimum": 0, "maximum": 255}, 3, 6),
    "a point": POINT,
    "a record": record(name=WORD, age=AGE, member={"type": "boolean"}),
    "optional properties": record(["kind"], kind={"enum": ["a", "b"]}, note=WORD, age=AGE),
    "any properties of integers": {"type": "object", "additionalProperties": {"type": "integer"}},
    "nullable and unions": record(
        value={"anyOf": [{"type": "integer"}, WORD, {"type": "null"}]}, other={"type": ["string", "null"]}
    ),
    "a nested record": PERSON,
    "a list of records": several(
        record(x={"type": "number", "minimum": 0, "maximum": 10}, kind={"enum": [1, 2]}), 1, 3
    ),
    "references": {
        **record(start={"$ref": "#/$defs/point"}, end={"$ref": "#/$defs/point"}, via=several(POINT, 0, 2)),
        "$defs": {"point": POINT},
    },
    "a matrix": several(several({"type": "integer", "minimum": -9, "maximum": 9}, 3, 3), 3, 3),
    "four levels": record(a=record(b=record(c=record(d={"type": "boolean"}, e={"const": "end"})))),
    "an order": record(
        ["id", "customer", "items", "total"],
        id={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
        customer=PERSON,
        items=several(record(name=WORD, count={"type": "integer", "minimum": 1, "maximum": 99}), 1, 2),
        total={"type": "number", "minimum": 0, "maximum": 1000},
        paid={"type": "boolean"},
        note={"type": ["string", "null"], "maxLength": 20},
    ),
}


def valid_texts(run: TextDiffusion, schema: dict[str, Any], num: int, length: int, steps: int | None) -> list[bool]:
    """Which of `num` texts are JSON that the schema allows."""
    limits, validator = Limits(), jsonschema.Draft202012Validator(schema)
    response_format = {"type": "json_schema", "json_schema": {"name": "asked", "schema": schema}}
    pattern = requested(run, None, response_format, limits)
    body = InfillBody(model="", template="", steps=steps)
    made = plan(run, body, run.empty_batch(num, length), 1, limits, pattern)
    texts = read(run, Written(made.batch, made.generation.finish(made.batch)), pattern)
    valid = []
    for text in texts:
        try:
            valid.append(validator.is_valid(json.loads(text.text)))
        except ValueError:
            valid.append(False)
        if not valid[-1]:
            print(f"  not valid: {text.text!r}")
    return valid


def main() -> None:
    """A line for each schema."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="restaurants")
    parser.add_argument("--num", type=int, default=50)
    parser.add_argument("--length", type=int, default=160)
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    run = TextDiffusion.from_pretrained(given.run, device="cpu")
    print(f"{given.run}: {run.tokenizer.kind}, {run.tokenizer.vocab_size} tokens, canvas of {given.length}")
    total, asked = 0, 0
    for name, schema in SCHEMAS.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        began = time.process_time()
        try:
            valid = sum(valid_texts(run, schema, given.num, given.length, given.steps))
        except UserError as error:
            valid = 0
            print(f"  refused: {error}")
        total, asked = total + valid, asked + given.num
        print(f"{name:32}{valid:4} of {given.num} valid, {time.process_time() - began:.1f} CPU-seconds", flush=True)
    print(f"{total} of {asked} texts are valid")


if __name__ == "__main__":
    main()
