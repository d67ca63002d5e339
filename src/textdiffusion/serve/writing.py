"""From the body of a request to rows with a sampler, steps and guides, and from finished rows to texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..config import overrides
from ..core.batch import Batch
from ..core.errors import UserError
from ..core.registry import from_dict, to_dict
from ..data import templates
from ..data.conditions import encode_source
from ..guidance.base import GuideConfig
from ..inference.api import TextDiffusion
from ..inference.options import Generation, SamplingOptions, truncate
from ..inference.prompts import company, default_length, encode_prompt, prompt_batch
from ..samplers.base import Sampler
from .bodies import ChatBody, ChatMessage, CompletionBody, PartSettings, Sampling, StreamBody
from .errors import APIError
from .facts import allowed_guides, max_rows
from .jobs import Written
from .limits import Limits, check_chars, check_range
from .patterns import Pattern, requested

DEFAULT_GAP = 16
"""Tokens before a suffix, where a request does not say how many."""


@dataclass(frozen=True)
class Plan:
    """Rows to write, how, and how to read their text. Plans with equal keys may share network calls."""

    batch: Batch
    generation: Generation
    key: object
    options: SamplingOptions
    pattern: Pattern | None = None


def check_sampling(body: Sampling, limits: Limits) -> None:
    """Refuses values outside the server's limits, before anything is computed."""
    check_range("steps", body.steps, 1, limits.steps)
    check_range("seed", body.seed, 0, 2**64 - 1)
    check_range("temperature", body.temperature, 0, 100)
    check_range("top_k", body.top_k, 0, 1 << 31)
    check_range("top_p", body.top_p, 1e-9, 1)
    check_chars("source", body.source, limits.text_chars)
    check_chars("label", body.label, limits.text_chars)
    if len(body.guides) > limits.guides:
        raise APIError(
            f"There are {len(body.guides)} guides; this server takes at most {limits.guides}.", param="guides"
        )
    for name, part in [("sampler", body.sampler), *(("guides", guide) for guide in body.guides)]:
        check_chars(name, str(part), limits.part_chars)


def plan(run: TextDiffusion, body: Sampling, batch: Batch, seed: int, limits: Limits, pattern: Pattern | None) -> Plan:
    """The plan for the rows of a batch. Raises UserError or APIError for what the run or the server does not allow."""
    check_size(run, batch, limits)
    options = options_of(run, body, seed, pattern)
    return plan_of(run, batch, options.resolve(run, batch), options, limits, pattern)


def check_size(run: TextDiffusion, batch: Batch, limits: Limits) -> None:
    """Refuses more rows, and longer ones, than the server writes for one request."""
    length, rows = batch.tokens.shape[1], len(batch.tokens)
    if length > limits.length:
        raise APIError(f"The text would have {length:,} tokens; this server writes at most {limits.length:,}.")
    if rows > (most := max_rows(run, length, limits)):
        raise APIError(
            f"{rows} texts of {length} tokens are too many for one request; ask for at most {most}.", param="n"
        )


def options_of(run: TextDiffusion, body: Sampling, seed: int, pattern: Pattern | None) -> SamplingOptions:
    """The options of a request. What it leaves out stays None: the run chooses, by the rows that are written."""
    guides = tuple(_guide(part, run) for part in body.guides) + ((pattern.guide,) if pattern else ())
    return SamplingOptions(
        steps=body.steps,
        seed=seed,
        temperature=body.temperature,
        sampler=None if body.sampler is None else _sampler(body.sampler, run),
        guides=guides,
        top_k=body.top_k or 0,
        top_p=body.top_p,
    )


def plan_of(
    run: TextDiffusion,
    batch: Batch,
    generation: Generation,
    options: SamplingOptions,
    limits: Limits,
    pattern: Pattern | None = None,
) -> Plan:
    """The plan for rows that a generation, made from the options, writes."""
    if generation.steps > limits.steps:
        raise APIError(
            f"{generation.steps:,} steps are too many; this server takes at most {limits.steps:,}.", param="steps"
        )
    sampler = generation.sampler
    resolved = replace(
        options,
        steps=generation.steps,
        sampler=sampler,
        temperature=sampler.temperature if options.temperature is None else options.temperature,
        top_p=sampler.top_p if options.top_p is None else options.top_p,
    )
    adapted = generation.model is not run.model  # its noise depends on the seed
    key = (replace(resolved, seed=options.seed if adapted else 0), generation.t_start, company(run, batch))
    hash(key)  # here, where it concerns this request only
    return Plan(batch, generation, key, resolved, pattern)


def _sampler(part: PartSettings, run: TextDiffusion) -> Sampler:
    default = run.config.sampler
    if isinstance(part, str):
        sampler = overrides.sampler(part, default)
    else:
        base = to_dict(default) if part.get("kind", default.kind) == default.kind else {}
        sampler = from_dict(Sampler, base | {"kind": default.kind} | part, "sampler")
    _check_numbers(to_dict(sampler), "sampler")
    return sampler


def _guide(part: PartSettings, run: TextDiffusion) -> GuideConfig:
    allowed = allowed_guides(run)
    guide = overrides.guide(part) if isinstance(part, str) else from_dict(GuideConfig, part, "guide")
    if guide.kind not in allowed:
        raise APIError(f"This server cannot use the guide {guide.kind} with this run; it can use {', '.join(allowed)}.")
    _check_numbers(to_dict(guide), "guides")
    return guide


def _check_numbers(value: Any, param: str) -> None:
    """Refuses settings with whole numbers that no tensor holds."""
    if isinstance(value, dict):
        for each in value.values():
            _check_numbers(each, param)
    elif isinstance(value, int) and abs(value) >= 1 << 31:
        raise APIError("A setting is a number of more than 31 bits; use a smaller one.", param=param)


def described(options: SamplingOptions) -> dict[str, Any]:
    """The options as a request that gives the same text again."""
    described = {name: getattr(options, name) for name in ("steps", "seed", "temperature", "top_k", "top_p")}
    guides = [
        {name: value for name, value in to_dict(guide).items() if value != float("inf")}  # a default JSON cannot hold
        for guide in options.guides
    ]
    return described | {"sampler": to_dict(options.sampler), "guides": guides}


def completion_plan(run: TextDiffusion, body: CompletionBody, prompt: str, seed: int, limits: Limits) -> Plan:
    """How the texts of one prompt of `/v1/completions` are written; with a suffix they fill the gap before it."""
    pattern = requested(run, body.regex, body.response_format, limits)
    num, length = body.n or 1, body.max_completion_tokens or body.max_tokens
    if body.suffix:
        gap = f"[MASK:{length or DEFAULT_GAP}]"
        template = f"{templates.escaped(prompt, before_gap=True)}{gap}{templates.escaped(body.suffix)}"
        batch = run.infill_batch(template, num, source=body.source, label=body.label)
        return plan(run, body, batch, seed, limits, pattern and pattern.between(prompt, body.suffix))
    ids, spaced = encode_prompt(run, prompt, body.source)
    batch = prompt_batch(run, ids, num, length, spaced=spaced, label=body.label)
    return plan(run, body, batch, seed, limits, pattern and replace(pattern, spaced=spaced))


def chat_plan(run: TextDiffusion, body: ChatBody, seed: int, limits: Limits) -> Plan:
    """How the answers of `/v1/chat/completions` are written. Raises APIError for runs without a chat template."""
    if run.chat_template is None:
        raise APIError(
            "This run has no chat template, so it cannot tell the turns of a conversation apart; use /v1/completions.",
            param="messages",
            code="no_chat_template",
        )
    if body.source is not None:
        raise APIError("A conversation takes no source; say it in a message.", param="source")
    messages = [{"role": message.role, "content": _content(message)} for message in body.messages]
    length = body.max_completion_tokens or body.max_tokens
    batch = run.chat_batch(messages, body.n or 1, length, label=body.label)
    return plan(run, body, batch, seed, limits, requested(run, body.regex, body.response_format, limits))


def _content(message: ChatMessage) -> str:
    """The text of a message, whose parts must all be text."""
    if isinstance(message.content, str):
        return message.content
    parts = message.content or []
    texts = [part.get("text") for part in parts if part.get("type") == "text"]
    if not parts or len(texts) < len(parts) or not all(isinstance(text, str) for text in texts):
        raise APIError("The content of a message must be text, or a list of parts of type text.", param="messages")
    return "".join(map(str, texts))


def stream_batch(run: TextDiffusion, body: StreamBody, seed: int, limits: Limits) -> Batch:
    """The rows of `/v1/stream`: a template, a prompt or nothing, or a text in tokens with positions to write again."""
    if body.template is not None and body.prompt is not None:
        raise APIError("template and prompt exclude each other.", param="prompt")
    conditions = {"source": body.source, "label": body.label}
    length = body.length
    if body.tokens is not None and length is None and body.template is None and body.prompt is None:
        length = len(body.tokens) - len(encode_source(body.source, run.config.text, run.tokenizer))
    if body.template is not None:
        if length is not None:
            raise APIError("The gaps of a template decide its length; leave length out.", param="length")
        batch = infill_batch(run, body.template, body.num, seed, limits, **conditions)
    elif body.prompt:
        given, _ = encode_prompt(run, body.prompt, body.source)
        gap = f"[MASK:{default_length(run, len(given)) if length is None else length}]"
        template = templates.escaped(body.prompt, before_gap=True) + gap
        batch = infill_batch(run, template, body.num, seed, limits, **conditions)
    else:
        batch = run.empty_batch(body.num, length, **conditions)
    return batch if body.tokens is None else _with_tokens(run, batch, body.tokens, body.remask or [])


def infill_batch(
    run: TextDiffusion, template: str, num: int, seed: int, limits: Limits, *, source: str | None, label: str | None
) -> Batch:
    """The rows of a template. Refuses too long ones before the model is asked for lengths of gaps."""
    tokens = templates.gap_tokens(run.as_template(template))
    if tokens > limits.length:
        raise APIError(
            f"The gaps have {tokens:,} tokens; this server writes at most {limits.length:,}.", param="template"
        )
    return run.infill_batch(template, num, source=source, label=label, seed=seed)


def _with_tokens(run: TextDiffusion, batch: Batch, tokens: Sequence[int | None], remask: Sequence[int]) -> Batch:
    """The batch with every token given, except those to write again."""
    length = batch.tokens.shape[1]
    if len(batch.tokens) != 1:
        raise APIError("tokens are those of one text; leave num out.", param="tokens")
    if len(tokens) != length:
        raise APIError(f"There are {len(tokens)} tokens for a text of {length}.", param="tokens")
    if wrong := [each for each in remask if not 0 <= each < length]:
        raise APIError(f"remask has the position {wrong[0]}; positions are from 0 to {length - 1}.", param="remask")
    if any(each is not None and each < 0 for each in tokens):
        raise APIError("A token is negative; tokens are ids of the tokenizer, or null.", param="tokens")
    size = run.tokenizer.vocab_size
    free = torch.tensor([[each is None or each >= size for each in tokens]])
    free[0, list(remask)] = True
    given = batch.condition_mask
    if given is not None:
        free &= ~given
    if not bool(free.any()):
        raise APIError("No position is left to write: give positions in remask, or null as tokens.", param="remask")
    ids = torch.tensor([[0 if each is None else min(each, size - 1) for each in tokens]])
    sets = torch.full_like(ids, templates.ENDING) if batch.allowed_set_ids is None else batch.allowed_set_ids
    endings = [each for each in (run.tokenizer.end_id, run.tokenizer.pad_id) if each is not None]
    is_text = ~free & ~torch.isin(ids, torch.tensor(endings, dtype=torch.long))
    if bool(is_text.any()):  # no end before text that stays
        before = torch.arange(length) < is_text[0].nonzero().max()
        sets = torch.where(before & (sets == templates.ENDING), templates.TEXT, sets)
    return replace(
        batch,
        tokens=torch.where(free, 0, ids) if given is None else torch.where(given, batch.tokens, ids),
        condition_mask=~free,
        allowed_set_ids=sets,
    )


@dataclass(frozen=True)
class Text:
    """A finished text, why it ended, and how many tokens the model wrote."""

    text: str
    finish_reason: str
    completion_tokens: int

    def cut(self, written: str, stop: Sequence[str]) -> Text:
        """What the model wrote of this text, up to the first of the stop texts."""
        cut = truncate(written, stop)
        return replace(self, text=cut, finish_reason="stop" if cut != written else self.finish_reason)


def read(run: TextDiffusion, written: Written, pattern: Pattern | None) -> list[Text]:
    """The texts of finished rows: of prompts what continues them, else the whole texts."""
    batch, step, end = written.batch, written.step, run.tokenizer.end_id
    if batch.text_starts is not None:
        texts = [
            Text(each.text, "length" if each.finish == "length" else "stop", each.num_tokens)
            for each in run.continuations(step, batch)
        ]
    else:
        texts = []
        for text, ids, free in zip(
            run.decode(step, batch), step.tokens.tolist(), batch.target_mask.tolist(), strict=True
        ):
            chosen = [id for id, is_free in zip(ids, free, strict=True) if is_free]
            count = chosen.index(end) if end in chosen else len(chosen)
            texts.append(Text(text, "stop" if end in chosen else "length", count))
    if pattern is None or not pattern.padded:
        return texts
    return [replace(each, text=pattern.cut(each.text), finish_reason="stop") for each in texts]


def prompt_tokens(batch: Batch) -> int:
    """The number of given tokens in each row, padding aside; of the first row."""
    if batch.text_starts is not None:
        return int(batch.text_starts[0])
    if batch.condition_mask is None:
        return 0
    last = int(batch.target_mask[0].nonzero().max()) if bool(batch.target_mask[0].any()) else 0
    return int(batch.condition_mask[0, : last + 1].sum())


def check_count(name: str, value: int, limits: Limits) -> None:
    """Refuses a number of texts outside the server's limits."""
    check_range(name, value, 1, limits.n)


def bits_of(run: TextDiffusion, texts: Sequence[str], body: Sampling, limits: Limits) -> list[dict[str, float] | None]:
    """Bits per character of texts under the run, with errors; None for one that is empty or cannot be measured."""
    found: list[dict[str, float] | None] = []
    for text in texts:
        try:
            (score,) = run.score([text], draws=2, label=body.label, source=body.source) if text else (None,)
        except UserError:
            score = None
        found.append(None if score is None else {"bits": score.bits, "error": score.monte_carlo_error})
    return found
