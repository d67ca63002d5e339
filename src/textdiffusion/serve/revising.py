"""`POST /v1/revise`: a draft is noised and written again, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..inference.api import TextDiffusion
from ..inference.revision import Draft, Revision
from .bodies import Sampling
from .errors import APIError
from .limits import Limits, check_chars, check_range
from .writing import Plan, check_count, check_sampling, check_size, described, options_of, plan_of


@dataclass(kw_only=True)
class ReviseBody(Sampling):
    """`POST /v1/revise`: the steps from a noisy draft to its revision (see `TextDiffusion.revise`)."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    text: str
    strength: float = 0.3
    select: str = "random"
    keep: list[str] = field(default_factory=list)
    num: int = 1
    alternatives: int = 0
    every: int = 1
    bits: bool = False


def check_revise(body: ReviseBody, limits: Limits) -> None:
    """Refuses values outside the server's limits."""
    check_sampling(body, limits)
    check_count("num", body.num, limits)
    check_range("strength", body.strength, 0, 1)
    check_range("alternatives", body.alternatives, 0, limits.alternatives)
    check_range("every", body.every, 1, limits.steps)
    check_chars("text", body.text, limits.text_chars)
    if len(body.keep) > limits.guides:
        raise APIError(f"keep has {len(body.keep)} entries; at most {limits.guides} are allowed.", param="keep")
    for phrase in body.keep:
        check_chars("keep", phrase, limits.text_chars)


def revise_plan(run: TextDiffusion, body: ReviseBody, seed: int, limits: Limits) -> Plan:
    """How the rows of a draft are written again."""
    draft = Draft.of(run, [body.text], body.num, keep=body.keep, source=body.source, label=body.label)
    check_size(run, draft.batch, limits)
    options = options_of(run, body, seed, None)
    revision = Revision.of(run, draft, body.strength, body.select, options)
    return plan_of(run, revision.batch, revision.generation, options, limits)


def reproduced_revision(body: ReviseBody, made: Plan) -> dict[str, Any]:
    """The request that gives the same revision again, with defaults filled in."""
    asked = {name: getattr(body, name) for name in ("text", "strength", "select", "keep", "label", "source")}
    asked = {name: value for name, value in asked.items() if value is not None}
    return {"model": body.model, "num": body.num, **asked, **described(made.options)}
