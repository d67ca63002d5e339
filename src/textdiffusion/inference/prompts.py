"""Prompts: given text at the beginning of a row, which the model continues.

The rows of a batch do not change each other's text. The width of a row depends on its own prompt and length alone, only
rows of one width are sampled together, and a row's random draws depend on its number within its own prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from ..core.batch import Batch, concatenate
from ..core.errors import UserError
from ..data import templates
from ..data.chat import Message
from ..data.conditions import encode_source, with_label
from ..data.normalisers import normalise
from ..data.tokenizers.base import Ids
from ..diffusion.blocks import BlockProcess
from ..samplers.base import Step
from .continuation import Continuation
from .options import OnStep, SamplingOptions, has_text_after_gaps
from .run import Run, check_count

WIDTH_STEP = 16
"""Tokens of which the width of a row is a multiple, so that prompts of unequal length share batches."""
MAX_LENGTH = 512
"""Tokens of a continuation whose length is left open; a window may be far longer."""


def encode_prompt(run: Run, prompt: str, source: str | None = None) -> tuple[Ids, bool]:
    """The tokens of a prompt, after those of a source, and whether the text must begin with the space that ends it.

    As in templates, a space belongs to the word after it, if the tokenizer's words include the space before them.
    Raises UserError for a source that the run lacks or needs.
    """
    config = run.config.text
    text = normalise(config.normaliser, prompt)
    spaced = text.endswith(" ") and bool(templates.begins_with_space(run.tokenizer).any())
    tokens = run.tokenizer.encode(text.removesuffix(" ") if spaced else text)
    return np.concatenate([encode_source(source, config, run.tokenizer), tokens]), spaced


def encode_chat(run: Run, messages: Sequence[Message]) -> Ids:
    """The tokens of a conversation up to where the answer begins.

    Raises UserError for a run without a chat template, and for messages that the template refuses.
    """
    if run.chat_template is None:
        raise UserError(
            "This run has no chat template, so it cannot chat. Use a prompt (prompt=..., --prompt), or put the Jinja "
            "template of its tokenizer into the run's folder as chat_template.jinja."
        )
    if messages and messages[-1].role == "assistant":
        raise UserError("The last message is the assistant's; end with a message that it can answer.")
    kind = run.config.text.normaliser
    normalised = [message._replace(content=normalise(kind, message.content)) for message in messages]
    return run.chat_template.encode(normalised, run.tokenizer)


def prompt_batch(
    run: Run,
    prompt: Ids,
    num: int = 1,
    length: int | None = None,
    *,
    spaced: bool = False,
    label: str | int | None = None,
) -> Batch:
    """`num` rows of a prompt and `length` free tokens (None: see `default_length`).

    `spaced`: the text begins with the space that ends the prompt. Rows are padded to a multiple of `WIDTH_STEP` tokens.
    Raises UserError for numbers below 1, for a prompt that leaves no room if the length is open, and for a label that
    the run does not take, or lacks.
    """
    check_count("num", num)
    num_free = default_length(run, len(prompt)) if length is None else length
    check_count("length", num_free)
    count = len(prompt) + num_free
    width = min(-(-count // WIDTH_STEP) * WIDTH_STEP, max(count, run.context_length))
    run.check_size(num, width)
    row = templates.make_row(prompt, num_free)
    row = row._replace(spaced=(np.arange(count) == len(prompt)) & spaced)
    batch = templates.collate([row], run.tokenizer, num=num, padded_to=width)
    padding = torch.arange(width).expand(num, width) >= count
    batch = replace(
        batch,
        valid_mask=~padding if width > count else None,
        text_starts=torch.full((num,), len(prompt)),
    )
    return with_label(batch, run.config.text, label)


def default_length(run: Run, prompt_length: int) -> int:
    """The tokens that continue a prompt: a window's, or what the prompt leaves of it, at most `MAX_LENGTH`.

    A network that reads texts longer than a window writes a window's tokens after any prompt. Raises UserError for a
    prompt that leaves no room.
    """
    context, window = run.context_length, run.config.text.length
    if (length := min(context - prompt_length, window, MAX_LENGTH)) < 1:
        raise UserError(
            f"The prompt has {prompt_length:,} tokens and leaves no room in a window of {context:,}; shorten it, or "
            "give the length of the text (length=..., --length)."
        )
    return length


def sample_batches(
    run: Run, batches: Sequence[Batch], sampling: SamplingOptions, on_step: OnStep | None = None
) -> Iterator[tuple[list[int], Step, Batch]]:
    """The last steps of batches, which are sampled together where their layouts allow.

    Yields the number of the batch of each row, the step, and what was sampled. A row's text is the same in any company.
    `on_step` receives every step.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, batch in enumerate(batches):
        groups.setdefault(company(run, batch), []).append(number)
    for members in groups.values():
        owners = torch.tensor([number for number in members for _ in range(len(batches[number].tokens))])
        joined = concatenate([batches[number] for number in members])
        generation = sampling.resolve(run, joined)
        indices = torch.arange(len(owners))
        for rows in indices.split(run.chunk_rows(joined.tokens.shape[1])):
            chunk = joined.select(rows)
            last = generation.finish(chunk.to(run.device), on_step)
            yield owners[rows].tolist(), last, chunk


def sample_prompts(
    run: Run,
    batches: Sequence[Batch],
    sampling: SamplingOptions,
    stops: Sequence[str] = (),
    on_step: OnStep | None = None,
) -> list[list[Continuation]]:
    """What continues the prompts of each batch, cut before the first of the `stops` and at the end of a turn."""
    results: list[list[Continuation]] = [[] for _ in batches]
    for owners, step, chunk in sample_batches(run, batches, sampling, on_step):
        for owner, continuation in zip(owners, run.continuations(step, chunk), strict=True):
            results[owner].append(continuation.truncated(stops))
    return results


def company(run: Run, batch: Batch) -> tuple[object, ...]:
    """Batches with equal values may be sampled together under the same options: their rows get the texts that they
    get alone. It is their layout, whether text follows a gap, which can decide the sampler, and the blocks that are
    given at the beginning, as a sampler shares its steps among the others.
    """
    process, key = run.model.process, (*batch.layout, has_text_after_gaps(batch))
    if not isinstance(process, BlockProcess):
        return key
    free = batch.target_mask.any(0).nonzero()
    return *key, int(free[0]) // process.block_size if len(free) else -1
