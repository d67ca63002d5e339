"""Texts that match a pattern: exact laws, and every text of every family."""

import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch

from textdiffusion import TextDiffusion, recipes
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.data.tokenizers.base import Characters
from textdiffusion.diffusion.autoregressive import AutoregressiveProcess
from textdiffusion.diffusion.prediction import Prediction
from textdiffusion.guidance import patterns
from textdiffusion.guidance import regex as regexes
from textdiffusion.guidance.automata import Automaton
from textdiffusion.guidance.constraints import SoftConstraint, Word
from textdiffusion.guidance.lattice import Lattice

TOKENIZER = Characters("abc", ("[END]", "[PAD]"))
LENGTH = 4
IDS = torch.tensor(list(product(range(5), repeat=LENGTH)))
LOGP = torch.randn(2, LENGTH, 5, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
ASKED = {
    "regex": ("a[bc]*", 0),
    "word": (".*bc.*", 0),
    "place": ("c.*", 2),
}


def _matching(pattern: str, place: int) -> torch.Tensor:
    """Which of IDS match, as Python says."""
    found = []
    for row in IDS.tolist():
        kept = [i for i in row if i != TOKENIZER.pad_id]
        whole = len(kept) >= place and TOKENIZER.end_id not in kept[:place]
        found.append(whole and re.fullmatch(pattern, TOKENIZER.decode(kept[place:])) is not None)
    return torch.tensor(found)


@pytest.mark.parametrize("asked", ASKED)
def test_the_law_given_a_match_is_exact(asked):
    pattern, place = ASKED[asked]
    automaton = Automaton.from_pattern(regexes.parse(pattern), TOKENIZER, place)
    lattice = Lattice(automaton, LOGP, torch.zeros(2, LENGTH, dtype=torch.bool))
    weights = LOGP.double().gather(2, IDS.T[None].expand(2, -1, -1)).sum(1).exp() * _matching(pattern, place)
    law = weights / weights.sum(1, keepdim=True)
    torch.testing.assert_close(lattice.log_prob, weights.sum(1).log())
    assert torch.equal(lattice.argmax(), IDS[law.argmax(1)])
    onehot = torch.nn.functional.one_hot(IDS, 5).double()
    marginals = torch.einsum("bn,nlv->blv", law, onehot)
    by_class = torch.zeros_like(lattice.class_logp).index_add(-1, automaton.token_classes, marginals)
    torch.testing.assert_close(lattice.marginals.exp(), by_class)
    # Avoided or sought, the odds change by exactly so much: p(x_i) (1 + (e^w - 1) p(match | x_i)).
    said, plain = Prediction(LOGP), LOGP.double().exp()
    chance = weights.sum(1)[:, None, None]
    for weight in (-2.0, 0.0, 3.0):
        guide = SoftConstraint(automaton, AutoregressiveProcess(5), weight)
        tilted = guide.reweight(said, lattice, slice(0, LENGTH), torch.zeros(2, LENGTH, dtype=torch.bool)).probs
        expected = plain + torch.expm1(torch.tensor(weight)) * chance * marginals
        torch.testing.assert_close(tilted.double(), expected / expected.sum(-1, keepdim=True), atol=1e-6, rtol=1e-5)
    draws = 4000
    many = Lattice(automaton, LOGP[:1].expand(draws, -1, -1), torch.zeros(draws, LENGTH, dtype=torch.bool))
    numbers = (many.sample(Rng.of(0, draws)) * torch.tensor([125, 25, 5, 1])).sum(1)
    distance = (torch.bincount(numbers, minlength=len(IDS)) / draws - law[0]).abs().sum() / 2
    assert float(distance) < 1.5 * float(torch.sqrt(law[0] * (1 - law[0]) / draws).sum() * 0.4)


LETTERS = ("text.tokenizer=characters", "text.layout=stream", "text.model_padding=false")
PATTERN = r"[Tp][a-z ]{3,5}(red|fig) [a-z .]+"


@pytest.mark.parametrize("recipe", recipes.names())
def test_every_text_of_every_family_and_sampler_matches(recipe: str, tiny_run: Callable[..., Path]):
    model = TextDiffusion.from_pretrained(tiny_run(recipe, *LETTERS), device="cpu")
    guides = ["without:text=is", f"regex:pattern={PATTERN}"]
    found = list(model.samplers().values()) if recipe in ("mdlm", "udlm", "cdcd") else [model.config.sampler]
    for sampler in found:
        for text in model.generate(2, 14, steps=3 if sampler.steps else None, sampler=sampler, guides=guides):
            assert re.fullmatch(PATTERN, text)
            assert not re.search(r"\bis\b", text)


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd", "udlm", "block_diffusion"])
def test_templates_keep_what_is_given_and_match(recipe: str, tiny_run: Callable[..., Path]):
    model = TextDiffusion.from_pretrained(tiny_run(recipe, *LETTERS), device="cpu")
    for text in model.infill(
        "The [MASK:6]is[MASK:9].", num=3, guides=["word:text=fig", "word:text=is old,position=10"]
    ):
        assert re.fullmatch(r"The .{6}is old.{5}\.", text, re.DOTALL)
        assert re.search(r"\bfig\b", text)
    with pytest.raises(
        UserError, match=r"No text of 9 tokens matches word 'plum' and word 'fig' together with the given text"
    ):
        model.infill("The [MASK:5]", guides=["word:text=plum", "word:text=fig"])


def test_what_cannot_match_is_told_by_its_length_or_its_letters(tiny_run: Callable[..., Path]):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm", *LETTERS), device="cpu")
    with pytest.raises(UserError, match=r"No text of 9 tokens matches regex '\(is\)\{2\}'; texts of 4 tokens can\."):
        model.generate(1, 9, guides=["regex:pattern=(is){2}"])
    with pytest.raises(UserError, match=r"texts of 7 tokens can\."):
        model.infill("[MASK:5]", guides=["regex:pattern=(is){2}[a-z]{3}"])
    for guides in (["word:text=Żubr"], ["word:text=is", "without:text=is"]):
        with pytest.raises(UserError, match="and neither does one of another length"):
            model.generate(1, 9, guides=guides)


def test_a_weight_makes_a_word_likelier_or_rarer(tiny_run: Callable[..., Path]):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm", "text.tokenizer=words"), device="cpu")
    counts = []
    for weight in (-30.0, -2.0, 0.0, 2.0, 30.0):
        guide = Word("fig", weight=weight)
        texts = model.generate(num=60, length=6, steps=3, guides=[guide])
        counts.append(sum("fig" in text for text in texts))
    assert counts == sorted(counts)
    assert counts[0] < counts[2] < counts[-1]
    assert model.generate(num=4, guides=[Word("fig", weight=0.0)]) == model.generate(num=4)


def test_tokens_that_do_not_make_up_the_text_are_refused(tmp_path: Path):
    from textdiffusion.data.tokenizers.loading import load_any

    names = ["[UNK]", "[PAD]", "[SEP]", "a", "b", "##c"]
    (tmp_path / "vocab.txt").write_text("\n".join(names))
    tokenizer = load_any(tmp_path, ())
    with pytest.raises(UserError, match="texts are the concatenation of their tokens"):
        Automaton.from_pattern(patterns.word("a"), tokenizer)
