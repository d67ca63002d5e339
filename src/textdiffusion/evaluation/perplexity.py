"""Generative perplexity, always with the entropy that shows whether repetition lowered it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from ..core.errors import UserError
from ..inference.api import TextDiffusion
from ..networks.bert import transformers
from ..scoring.likelihood import bits_per_character
from ..scoring.windows import Texts
from .ngram_statistics import Grams, entropy_within


@dataclass(frozen=True)
class Perplexity:
    """The perplexity of samples under a judge; compare it at equal `entropy` only.

    `perplexity` is exp(nats per token of the judge), over all tokens of all samples; `entropy` is that of the tokens
    within a sample, in bits per token. The target of both is the value of real text, not zero.
    """

    perplexity: float
    entropy: float
    bits_per_character: float
    tokens: int
    judge: str

    def __str__(self) -> str:
        return f"perplexity {self.perplexity:.1f} at entropy {self.entropy:.2f} bits per token, judged by {self.judge}"


Judge = Callable[[Sequence[str]], Perplexity]


def load_judge(source: str) -> Judge:
    """The judge called `source`: a run, or else a causal language model of `transformers`."""
    try:
        model = TextDiffusion.from_pretrained(source)
    except UserError:
        return partial(judged_by_pretrained, source)
    return partial(judged_by_run, model, name=source)


def judged_by_run(model: TextDiffusion, samples: Sequence[str], name: str = "a run") -> Perplexity:
    """Perplexity under a run of this package with an exact likelihood, such as `autoregressive`.

    Raises UserError for a run with only a bound, and for samples that its tokenizer cannot read.
    """
    if not model.likelihood.exact:
        raise UserError(f"{name} has no exact likelihood, so it cannot judge: use an autoregressive run.")
    texts = [text for text in samples if text]
    windows = Texts(texts, model.tokenizer, model.config.text)
    likelihood = bits_per_character(model.model, windows, model.likelihood)
    tokens = int(windows.windows(range(len(windows))).target_mask.sum())
    ids = [model.tokenizer.encode(text).tolist() for text in texts]
    return _perplexity(likelihood.total * math.log(2), tokens, ids, texts, name)


@torch.no_grad()
def judged_by_pretrained(
    source: str | Path, samples: Sequence[str], *, device: str = "cpu", batch_size: int = 16
) -> Perplexity:
    """Perplexity under a causal language model of `transformers`, from a folder or the hub (safetensors only).

    Each sample follows the model's BOS token (without one, its first token is not scored). Raises UserError without the
    extra `pretrained`, where `source` is no such model, and for samples longer than the model's context.
    """
    library = transformers()
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(source)
        model = library.AutoModelForCausalLM.from_pretrained(source, use_safetensors=True).eval().to(device)
    except (OSError, ValueError) as error:
        raise UserError(f"{source} is not a causal language model: {str(error).splitlines()[0]}") from None
    texts = [text for text in samples if text]
    ids: list[list[int]] = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    longest, limit = max(map(len, ids), default=0) + len(bos), getattr(model.config, "max_position_embeddings", None)
    if not all(ids):
        raise UserError(f"The tokenizer of {source} finds no tokens in a sample: its files are incomplete.")
    if limit and longest > limit:
        raise UserError(f"A sample has {longest} tokens, and {source} reads at most {limit}.")
    rows = sorted((bos + row for row in ids), key=len)
    nats = sum(_nats(model, rows[i : i + batch_size], device) for i in range(0, len(rows), batch_size))
    return _perplexity(nats, sum(len(row) - 1 for row in rows), ids, texts, str(source))


def _nats(model: Any, rows: list[list[int]], device: str) -> float:
    sequences = [torch.tensor(row, device=device) for row in rows]
    padded, valid = (pad_sequence(list(each), True) for each in (sequences, map(torch.ones_like, sequences)))
    logits = model(input_ids=padded, attention_mask=valid).logits[:, :-1].float()
    nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), padded[:, 1:], reduction="none")
    return float((nats * valid[:, 1:]).sum(dtype=torch.float64))


def _perplexity(nats: float, tokens: int, ids: Sequence[list[int]], texts: Sequence[str], judge: str) -> Perplexity:
    if not tokens:
        raise UserError("Empty samples have no perplexity.")
    bits = nats / math.log(2) / sum(map(len, texts))
    return Perplexity(float(np.exp(nats / tokens)), entropy_within(Grams.of(ids)), bits, tokens, judge)
