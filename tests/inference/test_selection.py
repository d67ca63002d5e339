"""Choosing among texts, against brute force."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion import TextDiffusion
from textdiffusion.core.errors import UserError
from textdiffusion.inference.selection import best_of, distinct, edit_similarity, fluency, gram_f, mbr

WORDS = st.lists(st.sampled_from("abc"), max_size=5).map(" ".join)


def _edits(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(_edits(a[1:], b) + 1, _edits(a, b[1:]) + 1, _edits(a[1:], b[1:]) + (a[0] != b[0]))


def _overlap(a: str, b: str) -> float:
    """Every n-gram of one text is matched with one of the other that is not yet matched."""
    words, scores = (a.split(), b.split()), []
    for n in range(1, min(4, max(map(len, words))) + 1):
        mine, its = ([tuple(w[i : i + n]) for i in range(len(w) - n + 1)] for w in words)
        total, left = len(mine) + len(its), list(its)
        shared = sum(gram in left and not left.remove(gram) for gram in mine)
        scores.append(2 * shared / max(total, 1))
    return sum(scores) / len(scores) if scores else 1.0


@given(WORDS, WORDS)
def test_utilities_are_what_brute_force_says(a: str, b: str):
    assert gram_f(a, b) == pytest.approx(_overlap(a, b))
    assert gram_f(a, a) == edit_similarity(a, a) == 1.0
    a, b = a.replace(" ", "")[:4], b.replace(" ", "")[:4]
    assert edit_similarity(a, b) == pytest.approx(1 - _edits(a, b) / max(len(a), len(b), 1))


@given(st.lists(WORDS, min_size=1, max_size=6))
def test_the_consensus_is_the_text_of_the_highest_mean_utility(texts: list[str]):
    for utility in (gram_f, edit_similarity):
        others = [[*texts[:i], *texts[i + 1 :]] for i in range(len(texts))]
        means = [sum(utility(t, o) for o in rest) for t, rest in zip(texts, others, strict=True)]
        assert means[texts.index(mbr(texts, utility))] == pytest.approx(max(means))
    assert best_of(texts, lambda each: [len(t) for t in each]) == max(texts, key=len)
    assert sorted(distinct(texts)) == sorted(set(texts))


def test_fluency_is_the_bits_of_the_run(tiny_run: Callable[..., Path]):
    run = TextDiffusion.from_pretrained(tiny_run("autoregressive"), device="cpu")
    texts = ["The ripe pear is old.", "", "ooooooo", "The red fig is sweet."]
    bits = {text: run.score([text])[0].bits for text in texts if text}
    assert best_of(texts, fluency(run)) == min(bits, key=lambda text: bits[text])
    with pytest.raises(UserError, match="no texts"):
        best_of([], fluency(run))
