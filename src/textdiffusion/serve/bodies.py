"""The bodies of requests. Types are checked here, bounds where a request is prepared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

PartSettings = str | dict[str, Any]
"""A sampler or a guide: `ddim:eta=1`, or {"kind": "ddim", "eta": 1}."""


_CLOSED = {"extra": "forbid"}  # for pydantic, which reads these classes: unknown fields are refused


@dataclass(kw_only=True)
class Sampling:
    """How texts are written; None is the run's default. Without a `seed` the server draws one and reports it."""

    model: str
    steps: int | None = None
    seed: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    sampler: PartSettings | None = None
    guides: list[PartSettings] = field(default_factory=list)
    label: str | None = None
    source: str | None = None


@dataclass(kw_only=True)
class StreamOptions:
    """What a stream of OpenAI's shape has besides the text."""

    include_usage: bool | None = None
    include_drafts: bool | None = None


@dataclass(kw_only=True)
class OpenAISampling(Sampling):
    """What completions and chat completions share. Settings that would change the text and are not supported must have
    their defaults; all others of OpenAI's are ignored."""

    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None
    regex: str | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None


@dataclass(kw_only=True)
class CompletionBody(OpenAISampling):
    """`POST /v1/completions`. With a `suffix` the gap between prompt and suffix is filled."""

    prompt: str | list[str] | list[int] | list[list[int]] | None = None
    suffix: str | None = None
    echo: bool | None = None
    best_of: int | None = None
    logprobs: int | None = None


@dataclass(kw_only=True)
class ChatMessage:
    """One message of a conversation; content may be text or OpenAI's list of text parts."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None


@dataclass(kw_only=True)
class ChatBody(OpenAISampling):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage]
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    functions: list[dict[str, Any]] | None = None


@dataclass(kw_only=True)
class InfillBody(Sampling):
    """`POST /v1/infill`: a template such as "The [MASK:5] pear", or a question of the run's task."""

    __pydantic_config__: ClassVar = _CLOSED

    template: str
    num: int = 1
    regex: str | None = None
    response_format: dict[str, Any] | None = None


@dataclass(kw_only=True)
class StreamBody(Sampling):
    """`POST /v1/stream`: every denoising step of a template, a prompt, or of pure noise.

    `tokens` is a text in tokens of which only the positions `remask` (and those that are null) are written again.
    """

    __pydantic_config__: ClassVar = _CLOSED

    template: str | None = None
    prompt: str | None = None
    num: int = 1
    length: int | None = None
    tokens: list[int | None] | None = None
    remask: list[int] | None = None
    alternatives: int = 0
    every: int = 1
    bits: bool = False
    regex: str | None = None
    response_format: dict[str, Any] | None = None


@dataclass(kw_only=True)
class ScoreBody:
    """`POST /v1/score`: bits per character, after a prefix, or of what fills a template."""

    __pydantic_config__: ClassVar = _CLOSED

    model: str
    texts: list[str]
    prefix: str = ""
    given: str = ""
    label: str | None = None
    source: str | None = None
    order: str = ""
    draws: int | None = None
    seed: int = 0
