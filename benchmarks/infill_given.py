r"""Whether infilling keeps the given text, character for character, with every kind of tokenizer.

    python benchmarks/infill_given.py --num 10000

Templates are cut out of real text at random, with accents, emoji, combining marks, writing from right to left, double
spaces, tabs, line breaks, capitals, unknown words and a literal `\[MASK`. The network is small and untrained, since it
does not matter what it writes. Prints how many of the results have the given text, and the first that has not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from textdiffusion import TextDiffusion, recipes
from textdiffusion.config.build import build_model
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.data import templates
from textdiffusion.data.builtin import shakespeare
from textdiffusion.data.tokenizers import loading, subwords
from textdiffusion.data.tokenizers.base import END, PAD, Bytes, Characters, Tokenizer
from textdiffusion.data.tokenizers.sentencepiece import SentencePiece

HARD = (
    *("  ", "   ", "\t", "\n", "\n\n", "\r\n", "\u00a0", "\u2028", "\u200b", "\ufeff", "\x00", "\x1b[31m", "\x7f"),
    *("é", "e\u0301", "ñ", "ﬁ", "ß", "İ", "Ω", "ж", "中文字", "日本語です", "ไม่มีช่องว่าง", "שלום", "مرحبا"),
    *(
        "😀",
        "👨\u200d👩\u200d👧",
        "🇩🇪",
        "👍🏽",
        "\U0010fffd",
        "▁",
        "##s",
        "Ġ",
        "</s>",
        "<unk>",
        "[UNK]",
        "[END]",
        "[SEP]",
    ),
    *(
        "don't",
        "It's",
        "U.S.A.",
        "3.14",
        '"quoted"',
        "(a)",
        "…",
        "—",
        "“so”",
        "CAPITALS",
        "xyzzyq",
        "x" * 120,
        "\\",
        "[",
        "]",
    ),
)
"""Pieces of text that tokenizers read in their own ways."""

SPECIALS = (END, PAD)
STEPS = 2


def llama_like(texts: list[str], size: int) -> Engine:
    """BPE with byte fallback over text with `▁` for spaces and one before the text."""
    engine = Engine(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    engine.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    of_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    alphabet = [chr(c) for c in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<unk>", *of_bytes], initial_alphabet=alphabet, limit_alphabet=100
    )
    trainer.show_progress = False
    engine.train_from_iterator((line for text in texts for line in text.split(" ")), trainer)
    saved = json.loads(engine.to_str())
    saved["added_tokens"] = saved["added_tokens"][:1]  # the bytes are tokens of the model
    engine = Engine.from_str(json.dumps(saved))
    engine.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return engine


def roberta_like(texts: list[str], size: int) -> Engine:
    """Byte-level BPE that puts a space before a text."""
    engine = subwords.byte_level(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    engine.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    engine.train_from_iterator(texts, trainer)
    return engine


def all_tokenizers(text: str, folder: Path | None) -> Iterator[tuple[str, Tokenizer]]:
    """Every kind of tokenizer, learned from `text` or loaded from `folder`."""
    texts = [text[:200_000]]
    yield "characters", Characters(texts[0], SPECIALS)
    yield "bytes", Bytes(SPECIALS)
    yield "words", subwords.train_words(texts, 2000, SPECIALS)
    yield "bpe", subwords.train_bpe(texts, 1000, SPECIALS)
    yield "wordpiece", subwords.train_wordpiece(texts, 1000, SPECIALS, texts[0])
    yield "sentencepiece", SentencePiece.train(texts, 1000, SPECIALS)
    yield "llama-like", subwords.Subwords("file", llama_like(texts, 1000)).with_specials(SPECIALS)
    yield "roberta-like", subwords.Subwords("file", roberta_like(texts, 1000)).with_specials(SPECIALS)
    if folder is not None:
        for name in ("gpt2", "bert"):
            yield name, loading.load_any(folder / "tokenizers" / name, SPECIALS)


def random_template(text: str, rng: random.Random) -> tuple[str, list[str]]:
    """A template cut out of `text`, and the given pieces of text around its gaps."""
    start = rng.randrange(len(text) - 80)
    pieces = [text[start : start + rng.randint(0, 40)]]
    for _ in range(rng.randint(0, 3)):
        pieces.append(rng.choice(HARD))
        start = rng.randrange(len(text) - 80)
        pieces.append(text[start : start + rng.randint(0, 12)])
    given = "".join(pieces)
    change = rng.random()
    given = given.upper() if change < 0.1 else given.replace(" ", "  ") if change < 0.2 else given
    given = f" {given} " if rng.random() < 0.1 else given
    given = given + "[MASK:3]" if rng.random() < 0.05 else given
    cuts = sorted(rng.randint(0, len(given)) for _ in range(rng.randint(1, 3)))
    parts = [given[a:b] for a, b in zip([0, *cuts], [*cuts, len(given)], strict=True)]
    # A backslash before a gap would escape it.
    parts = [*(part + "." if part.endswith("\\") else part for part in parts[:-1]), parts[-1]]
    template = parts[0].replace("[MASK", r"\[MASK")
    for part in parts[1:]:
        template += f"[MASK:{rng.randint(1, 3)}]" + part.replace("[MASK", r"\[MASK")
    return template, parts


def is_kept(text: str, given: list[str]) -> bool:
    """Whether a text has the given pieces, in order, the first at its start and the last at its end."""
    return re.fullmatch(".*".join(map(re.escape, given)), text, re.DOTALL) is not None


def tiny_run(tokenizer: Tokenizer) -> TextDiffusion:
    """A run with an untrained network."""
    config = apply_overrides(
        recipes.get("mdlm")(),
        ["backbone.width=32", "backbone.depth=1", "backbone.mlp_ratio=1", "text.length=256", "denoiser.ngram_dim=0"],
    )
    config = replace(config, text=replace(config.text, layout="lines"))
    torch.manual_seed(0)
    model = build_model(config, tokenizer.vocab_size).eval().requires_grad_(False)
    return TextDiffusion(model, tokenizer, config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=10_000, help="infillings with each tokenizer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="names of tokenizers")
    options = parser.parse_args()
    folder = os.environ.get("TEXTDIFFUSION_DATA")
    text = "".join(chunk.text for chunk in shakespeare.source().chunks())
    text += "".join(path.read_text(encoding="utf-8") for path in sorted(Path("docs").glob("*.md"))) * 8
    for name, tokenizer in all_tokenizers(text, Path(folder) if folder else None):
        if options.only and name not in options.only:
            continue
        run, rng = tiny_run(tokenizer), random.Random(options.seed)
        asked = [random_template(text, rng) for _ in range(options.num)]
        asked = [(t, g) for t, g in asked if len(templates.encode(t, tokenizer)[0]) < 250]
        texts: list[str] = []
        size = 500 if tokenizer.vocab_size < 10_000 else 100
        for start in range(0, len(asked), size):
            texts += run.infill([t for t, _ in asked[start : start + size]], steps=STEPS, seed=start)
        lost = [(t, result) for (t, g), result in zip(asked, texts, strict=True) if not is_kept(result, g)]
        print(f"{name:14} {len(asked) - len(lost):6} of {len(asked)}", flush=True)
        if lost:
            print(f"   {lost[0][0]!r}\n   {lost[0][1]!r}")


if __name__ == "__main__":
    main()
