"""Our own routes: every denoising step, templates, scores."""

# Annotations are evaluated: FastAPI reads them, and its own types are imported where they are used.
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from ..inference.api import TextDiffusion
from .bodies import InfillBody, ScoreBody, StreamBody
from .drafts import Alternatives, Drafter
from .errors import APIError
from .limits import Limits, check_chars, check_range
from .patterns import requested
from .responses import dumps, event, json_answer, stream_answer
from .revising import ReviseBody, check_revise, reproduced_revision, revise_plan
from .service import Service, Ticket, chosen_seed
from .writing import (
    Plan,
    Text,
    bits_of,
    check_count,
    check_sampling,
    described,
    infill_batch,
    plan,
    prompt_tokens,
    read,
    stream_batch,
)

_DRAFT_CELLS = 1 << 16  # alternatives that one draft may have


def add_routes(app: Any, service: Service, documented: dict[str, Any]) -> None:
    """Adds `/v1/stream`, `/v1/infill` and `/v1/score`."""
    limits = service.limits

    @app.post("/v1/stream", **documented, summary="Every denoising step, as server-sent events")
    async def stream(body: StreamBody) -> Any:
        check_stream(body, limits)
        return stream_answer(lambda: stream_events(service, body, stream_plan, reproduced), limits, "error")

    @app.post("/v1/revise", **documented, summary="Revise a draft, as server-sent events")
    async def revise(body: ReviseBody) -> Any:
        check_revise(body, limits)
        return stream_answer(lambda: stream_events(service, body, revise_plan, reproduced_revision), limits, "error")

    @app.post("/v1/infill", **documented, summary="Fill the gaps of a template")
    async def infill(body: InfillBody) -> Any:
        check_sampling(body, limits)
        check_count("num", body.num, limits)
        check_chars("template", body.template, limits.text_chars)
        return json_answer(lambda: infilled(service, body))

    @app.post("/v1/score", **documented, summary="Bits per character of texts")
    async def score(body: ScoreBody) -> Any:
        check_score(body, limits)
        return json_answer(lambda: scored(service, body))


def check_stream(body: StreamBody, limits: Limits) -> None:
    """Refuses values outside the server's limits."""
    check_sampling(body, limits)
    check_count("num", body.num, limits)
    check_range("length", body.length, 1, limits.length)
    check_range("alternatives", body.alternatives, 0, limits.alternatives)
    check_range("every", body.every, 1, limits.steps)
    for name, text in (("template", body.template), ("prompt", body.prompt)):
        check_chars(name, text, limits.text_chars)
    for name, numbers in (("tokens", body.tokens), ("remask", body.remask)):
        if numbers is not None and len(numbers) > limits.length:
            raise APIError(f"{name} has {len(numbers)} entries; at most {limits.length} are allowed.", param=name)
        if any(number is not None and abs(number) >= 2**62 for number in numbers or ()):
            raise APIError(f"{name} has a number that is too large.", param=name)
    if body.remask is not None and body.tokens is None:
        raise APIError("remask needs tokens, the text whose positions are written again.", param="remask")


def check_score(body: ScoreBody, limits: Limits) -> None:
    """Refuses values outside the server's limits."""
    if not 1 <= len(body.texts) <= limits.score_texts:
        raise APIError(f"texts has {len(body.texts)} entries; it needs from 1 to {limits.score_texts}.", param="texts")
    for text in body.texts:
        check_chars("texts", text, limits.text_chars)
    check_chars("texts", "".join(body.texts), limits.text_chars)
    for name in ("prefix", "given", "source", "label", "order"):
        check_chars(name, getattr(body, name), limits.text_chars)
    check_range("draws", body.draws, 2, limits.score_draws)
    check_range("seed", body.seed, 0, 2**64 - 1)


async def stream_events(
    service: Service, body: Any, plan_of: Callable[..., Plan], request_of: Callable[..., dict[str, Any]]
) -> AsyncIterator[str]:
    """The events of `/v1/stream` or `/v1/revise`: how their bodies become plans, and plans the requests for them."""
    seed = chosen_seed(body.seed)
    async with service.admit(body.model) as ticket:
        made = await ticket.compute(partial(plan_of, ticket.run, body, seed, service.limits))
        batch = made.batch
        alternatives = Alternatives(body.alternatives) if body.alternatives else None
        drafter = Drafter(ticket.run, batch, alternatives)

        def draft_of(step: Any) -> str | None:
            wanted = step.index % body.every == 0 or step.index == step.total
            return event(drafter.full(step), "step") if wanted else None

        job = ticket.start(made, draft_of, alternatives)
        while (draft := await ticket.next_draft(job)) is not None:
            yield draft
        written = await ticket.result(job)
        texts = await ticket.compute(partial(read, ticket.run, written, made.pattern))
        bits = None
        if body.bits:
            plain = [text.text for text in texts]
            bits = await ticket.measure(partial(bits_of, ticket.run, plain, body, service.limits))
        usage = usage_of(service, body.model, made, texts) | {"steps": written.step.index, "calls": written.step.nfe}
        done = {
            "texts": [text.text for text in texts],
            "text": texts[0].text,
            "bits_per_character": bits,
            "usage": usage,
            "seed": seed,
            "finish_reason": [text.finish_reason for text in texts],
            "request": request_of(body, made),
        }
        yield event(dumps(done), "done")


def stream_plan(run: TextDiffusion, body: StreamBody, seed: int, limits: Limits) -> Plan:
    """How the rows of `/v1/stream` are written."""
    pattern = requested(run, body.regex, body.response_format, limits)
    batch = stream_batch(run, body, seed, limits)
    if body.alternatives * batch.tokens.numel() > _DRAFT_CELLS:
        raise APIError("That many alternatives of that many tokens are too many; ask for fewer.", param="alternatives")
    return plan(run, body, batch, seed, limits, pattern)


def reproduced(body: StreamBody, made: Plan) -> dict[str, Any]:
    """The request that gives the same text again, with defaults filled in."""
    asked = {
        name: value
        for name in ("template", "prompt", "tokens", "remask", "label", "source", "regex", "response_format")
        if (value := getattr(body, name)) is not None
    }
    if body.length is not None or not (body.template or body.prompt or body.tokens):
        asked["length"] = body.length or int(made.batch.target_mask[0].sum())  # without the tokens of a source
    options = described(made.options)
    if made.pattern is not None:
        options["guides"] = options["guides"][:-1]  # the last one is that of regex or response_format
    return {"model": body.model, "num": body.num, **asked, **options}


async def infilled(service: Service, body: InfillBody) -> dict[str, Any]:
    """The answer of `/v1/infill`."""
    seed, limits = chosen_seed(body.seed), service.limits
    async with service.admit(body.model) as ticket:

        def make() -> Plan:
            pattern = requested(ticket.run, body.regex, body.response_format, limits)
            batch = infill_batch(
                ticket.run, body.template, body.num, seed, limits, source=body.source, label=body.label
            )
            return plan(ticket.run, body, batch, seed, limits, pattern)

        made = await ticket.compute(make)
        texts = await finished(ticket, made)
        answer: dict[str, Any] = {
            "object": "infill",
            "model": body.model,
            "texts": [text.text for text in texts],
            "seed": seed,
            "usage": usage_of(service, body.model, made, texts),
            "finish_reason": [text.finish_reason for text in texts],
        }
        if (task := ticket.run.task) is not None:
            answer["answers"] = [task.task.read_row(text.text)[1] for text in texts]
        return answer


async def scored(service: Service, body: ScoreBody) -> dict[str, Any]:
    """The answer of `/v1/score`."""
    async with service.admit(body.model) as ticket:
        estimates = await ticket.measure(
            lambda: ticket.run.score(
                body.texts,
                prefix=body.prefix,
                given=body.given,
                source=body.source,
                label=body.label,
                seed=body.seed,
                draws=body.draws or 4,
                order=body.order,
            )
        )
        scores = [
            {
                "bits": each.bits,
                "error": each.monte_carlo_error,
                "total": each.total,
                "characters": each.characters,
                "exact": each.exact,
            }
            for each in estimates
        ]
        return {"object": "score", "model": body.model, "scores": scores}


async def finished(ticket: Ticket, made: Plan) -> list[Text]:
    """The texts of a plan once they are written."""
    written = await ticket.result(ticket.start(made))
    return await ticket.compute(partial(read, ticket.run, written, made.pattern))


def usage_of(service: Service, model: str, made: Plan, texts: list[Text]) -> dict[str, int]:
    """Token counts in OpenAI's words, which are counted in the metrics too."""
    given, chosen = prompt_tokens(made.batch), sum(text.completion_tokens for text in texts)
    service.metrics.tokens.labels(model).inc(chosen)
    return {"prompt_tokens": given, "completion_tokens": chosen, "total_tokens": given + chosen}
