"""Routes shaped as OpenAI's: models, completions, chat completions."""

# Annotations are evaluated: FastAPI reads them.
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ..inference.api import TextDiffusion
from .bodies import ChatBody, CompletionBody, OpenAISampling
from .drafts import Drafter
from .errors import APIError
from .limits import Limits, check_chars, check_range, check_stops
from .own_routes import usage_of
from .responses import dumps, event, json_answer, stream_answer
from .service import Service, Ticket, chosen_seed
from .writing import Plan, Text, chat_plan, check_sampling, completion_plan, read

_DRAFT_SECONDS = 0.05  # between two drafts of a stream

_NO_LOGPROBS = (
    "A text that is written in any order has no log-probability for each token; /v1/score measures whole texts, and "
    "/v1/stream reports the probability of each token when it was chosen."
)


def add_routes(app: Any, service: Service, documented: dict[str, Any]) -> None:
    """Adds `/v1/models`, `/v1/completions` and `/v1/chat/completions`."""
    limits, began = service.limits, int(time.time())

    def entry(name: str) -> dict[str, Any]:
        shelved = service.shelf.entries[name]
        facts = {**shelved.facts, "loaded": shelved.run is not None}
        return {"id": name, "object": "model", "created": began, "owned_by": "textdiffusion", "textdiffusion": facts}

    @app.get("/v1/models", responses=documented["responses"], summary="The runs, with what each can do")
    async def models() -> Any:
        return {"object": "list", "data": [entry(name) for name in service.shelf.entries]}

    @app.get("/v1/models/{model}", responses=documented["responses"], summary="One run")
    async def model(model: str) -> Any:
        if model not in service.shelf.entries:
            raise APIError("There is no such model.", 404, param="model", code="model_not_found")
        return entry(model)

    @app.post("/v1/completions", **documented, summary="Continue a prompt")
    async def completions(body: CompletionBody) -> Any:
        check_completion(body, limits)
        return _answer(service, body, Completions(body, limits))

    @app.post("/v1/chat/completions", **documented, summary="Answer in a conversation")
    async def chat(body: ChatBody) -> Any:
        check_chat(body, limits)
        return _answer(service, body, Chat(body, limits))


class Completions:
    """The shapes of `/v1/completions`, and its prompts."""

    prefix, kind, chunk_kind = "cmpl-", "text_completion", "text_completion"

    def __init__(self, body: CompletionBody, limits: Limits) -> None:
        self.body, self.limits = body, limits
        prompt = body.prompt
        self.prompts = [prompt or ""] if isinstance(prompt, str | None) else list(prompt)

    @property
    def num_prompts(self) -> int:
        """The number of prompts, each of which gets `n` texts."""
        return len(self.prompts)

    def plan(self, run: TextDiffusion, number: int, seed: int) -> Plan:
        """How the texts of one prompt are written."""
        prompt = self.prompts[number]
        assert isinstance(prompt, str)
        return completion_plan(run, self.body, prompt, seed, self.limits)

    def written(self, number: int, text: str) -> str:
        """The part of a finished text that the model wrote: what is between the prompt and the suffix."""
        suffix = self.body.suffix
        return text.removeprefix(str(self.prompts[number])).removesuffix(suffix) if suffix else text

    def shown(self, number: int, written: str) -> str:
        """What the model wrote, with the prompt and the suffix if the client wants an echo."""
        return f"{self.prompts[number]}{written}{self.body.suffix or ''}" if self.body.echo else written

    def choice(self, index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
        """One choice of an answer."""
        return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}

    def chunk(self, index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
        """One choice of a chunk of a stream."""
        return self.choice(index, text, finish_reason)


class Chat:
    """The shapes of `/v1/chat/completions`."""

    prefix, kind, chunk_kind, num_prompts = "chatcmpl-", "chat.completion", "chat.completion.chunk", 1

    def __init__(self, body: ChatBody, limits: Limits) -> None:
        self.body, self.limits = body, limits

    def plan(self, run: TextDiffusion, number: int, seed: int) -> Plan:
        """How the answers are written."""
        return chat_plan(run, self.body, seed, self.limits)

    def written(self, number: int, text: str) -> str:
        """The answer."""
        return text

    def shown(self, number: int, written: str) -> str:
        """The answer."""
        return written

    def choice(self, index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
        """One choice of an answer."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": finish_reason}

    def chunk(self, index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
        """One choice of a chunk of a stream."""
        delta = {"role": "assistant", "content": text} if text else {}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def check_openai(body: OpenAISampling, limits: Limits) -> None:
    """Refuses what is outside the server's limits, and settings whose effect it does not have."""
    check_sampling(body, limits)
    check_range("n", body.n, 1, limits.n)
    for name in ("max_tokens", "max_completion_tokens"):
        check_range(name, getattr(body, name), 1, limits.length)
    check_stops(stops(body), limits)
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(body, name):
            raise APIError(f"{name} is not supported; the guide repetition_penalty is similar.", param=name)
    if body.logit_bias:
        raise APIError("logit_bias is not supported; the guides word and without are similar.", param="logit_bias")


def check_completion(body: CompletionBody, limits: Limits) -> None:
    """Refuses what `/v1/completions` does not take."""
    check_openai(body, limits)
    prompts = [body.prompt] if isinstance(body.prompt, str | None) else body.prompt
    if any(not isinstance(each, str | None) for each in prompts):
        raise APIError("prompt must be text; tokens are not supported.", param="prompt")
    if not prompts or len(prompts) * (body.n or 1) > limits.n:
        raise APIError(
            f"{len(prompts)} prompts with {body.n or 1} texts each are not from 1 to {limits.n} texts.", param="prompt"
        )
    for each in prompts:
        check_chars("prompt", str(each or ""), limits.text_chars)
    check_chars("suffix", body.suffix, limits.text_chars)
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise APIError("best_of is not supported; ask for n texts and choose with /v1/score.", param="best_of")
    if body.logprobs:
        raise APIError(f"logprobs is {body.logprobs}. {_NO_LOGPROBS}", param="logprobs")


def check_chat(body: ChatBody, limits: Limits) -> None:
    """Refuses what `/v1/chat/completions` does not take."""
    check_openai(body, limits)
    if not body.messages:
        raise APIError("messages is empty; give at least one.", param="messages")
    check_chars("messages", "".join(map(str, body.messages)), limits.text_chars)
    if body.logprobs or body.top_logprobs:
        raise APIError(_NO_LOGPROBS, param="logprobs")
    if body.tools or body.functions:
        raise APIError("Tools are not supported; response_format with a JSON schema is.", param="tools")


def stops(body: OpenAISampling) -> tuple[str, ...]:
    """The stop texts."""
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())


def _answer(service: Service, body: OpenAISampling, shapes: Completions | Chat) -> Any:
    if body.stream:
        return stream_answer(lambda: _events(service, body, shapes), service.limits)
    return json_answer(lambda: _completed(service, body, shapes))


def _head(body: OpenAISampling, shapes: Completions | Chat, kind: str) -> dict[str, Any]:
    return {
        "id": f"{shapes.prefix}{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": body.model,
    }


def _sum(usages: list[dict[str, int]]) -> dict[str, int]:
    return {name: sum(usage[name] for usage in usages) for name in usages[0]}


async def _completed(service: Service, body: OpenAISampling, shapes: Completions | Chat) -> dict[str, Any]:
    seed, n = chosen_seed(body.seed), body.n or 1
    async with service.admit(body.model) as ticket:
        made = [await ticket.compute(partial(shapes.plan, ticket.run, i, seed)) for i in range(shapes.num_prompts)]
        jobs = [ticket.start(each) for each in made]
        choices, usages = list[dict[str, Any]](), list[dict[str, int]]()
        for number, (job, each) in enumerate(zip(jobs, made, strict=True)):
            texts = await _texts(ticket, job, each, shapes, number, stops(body))
            usages.append(usage_of(service, body.model, each, texts))
            for i, text in enumerate(texts):
                choices.append(shapes.choice(number * n + i, text.text, text.finish_reason))
        return _head(body, shapes, shapes.kind) | {"choices": choices, "usage": _sum(usages), "seed": seed}


async def _texts(
    ticket: Ticket, job: Any, made: Plan, shapes: Completions | Chat, number: int, stop: tuple[str, ...]
) -> list[Text]:
    """The texts of one prompt as the client sees them. Stop texts count in what the model wrote only."""
    written = await ticket.result(job)
    texts = await ticket.compute(partial(read, ticket.run, written, made.pattern))
    cut = [text.cut(shapes.written(number, text.text), stop) for text in texts]
    return [replace(each, text=shapes.shown(number, each.text)) for each in cut]


async def _events(service: Service, body: OpenAISampling, shapes: Completions | Chat) -> AsyncIterator[str]:
    """Chunks of OpenAI's shape. A draft is a chunk whose text is empty, with a field that other clients ignore."""
    seed, n, options = chosen_seed(body.seed), body.n or 1, body.stream_options
    head = _head(body, shapes, shapes.chunk_kind)
    wants_drafts = options is None or options.include_drafts is not False
    wants_usage = options is not None and bool(options.include_usage)

    def chunk(choices: list[dict[str, Any]], **more: Any) -> str:
        return event(dumps({**head, "choices": choices, **({"usage": None} if wants_usage else {}), **more}))

    async with service.admit(body.model) as ticket:
        made = [await ticket.compute(partial(shapes.plan, ticket.run, i, seed)) for i in range(shapes.num_prompts)]
        jobs = []
        for number, each in enumerate(made):
            drafter = Drafter(ticket.run, each.batch) if wants_drafts else None
            jobs.append(ticket.start(each, _drafts(drafter, shapes, number, n, chunk) if drafter else None))
        usages: list[dict[str, int]] = []
        for number, (job, each) in enumerate(zip(jobs, made, strict=True)):
            while (draft := await ticket.next_draft(job)) is not None:
                yield draft
            texts = await _texts(ticket, job, each, shapes, number, stops(body))
            usages.append(usage_of(service, body.model, each, texts))
            for i, text in enumerate(texts):
                if text.text:
                    yield chunk([shapes.chunk(number * n + i, text.text, None)])
                yield chunk([shapes.chunk(number * n + i, "", text.finish_reason)])
        if wants_usage:
            yield event(dumps({**head, "choices": [], "usage": _sum(usages)}))
        yield event("[DONE]")


def _drafts(
    drafter: Drafter, shapes: Completions | Chat, number: int, n: int, chunk: Callable[..., str]
) -> Callable[[Any], str | None]:
    latest = 0.0

    def draft_of(step: Any) -> str | None:
        nonlocal latest
        now = time.monotonic()
        if now - latest < _DRAFT_SECONDS or step.index == step.total:
            return None
        latest = now
        chunks = []
        for i, text in enumerate(drafter.texts(step)):
            draft = {
                "step": step.index,
                "total": step.total,
                "t": round(float(step.t), 6),
                "text": shapes.shown(number, shapes.written(number, text)),
            }
            chunks.append(chunk([shapes.chunk(number * n + i, "", None)], draft=draft))
        return "".join(chunks)

    return draft_of
