"""The fast n-gram model equals a slow dictionary one, is a distribution, and gives the known figures on real text."""

import math
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.evaluation.ngram import Discounts, NGram


class SlowNGram:
    """Interpolated Kneser-Ney straight from its definition."""

    def __init__(self, text: list[int], vocab_size: int, order: int, discounts: Discounts):
        self.vocab_size, self.order = vocab_size, order
        self.counts: dict[int, Counter[tuple[int, ...]]] = {}
        for n in range(1, order + 1):
            if n == order:
                self.counts[n] = Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
            else:
                before = defaultdict(set)
                for i in range(1, len(text) - n + 1):
                    before[tuple(text[i : i + n])].add(text[i - 1])
                self.counts[n] = Counter({gram: len(ids) for gram, ids in before.items()})
        self.discounts = {n: self.estimate(self.counts[n], discounts) for n in self.counts}

    @staticmethod
    def estimate(counts: Counter[tuple[int, ...]], discounts: Discounts) -> list[float]:
        n1, n2, n3, n4 = (sum(c == k for c in counts.values()) for k in (1, 2, 3, 4))
        if n1 == 0 or n2 == 0:
            return [0.5, 0.5, 0.5] if discounts == "single" else [0.5, 1.0, 1.5]
        y = n1 / (n1 + 2 * n2)
        if discounts == "single":
            return [y, y, y]
        d1 = 1 - 2 * y * n2 / n1
        d2 = 2 - 3 * y * n3 / n2 if n3 else 1.0
        d3 = 3 - 4 * y * n4 / n3 if n3 and n4 else 1.5
        return [d if d > 0 else default for d, default in zip((d1, d2, d3), (0.5, 1.0, 1.5), strict=True)]

    def probability(self, context: tuple[int, ...], token: int) -> float:
        context = context[max(0, len(context) - self.order + 1) :]
        lower = self.probability(context[1:], token) if context else 1 / self.vocab_size
        counts, discounts = self.counts[len(context) + 1], self.discounts[len(context) + 1]
        after = {gram[-1]: c for gram, c in counts.items() if gram[:-1] == context}
        if not after:
            return lower
        total = sum(after.values())
        c = after.get(token, 0)
        own = c - discounts[min(c, 3) - 1] if c else 0.0
        left = sum(discounts[min(c, 3) - 1] for c in after.values())
        return (own + left * lower) / total


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[int], list[int], int, int, Discounts]:
    vocab_size = draw(st.integers(1, 6))
    token = st.integers(0, vocab_size - 1)
    train = draw(st.lists(token, min_size=1, max_size=60))
    test = draw(st.lists(token, max_size=20))
    order = draw(st.integers(1, min(5, len(train))))
    return train, test, vocab_size, order, draw(st.sampled_from(["single", "modified"]))


@given(problems())
def test_equals_the_dictionary_reference(problem):
    train, test, vocab_size, order, discounts = problem
    fast = NGram.fit(np.array(train), vocab_size, order, discounts).bits(np.array(test, dtype=np.int64))
    slow = SlowNGram(train, vocab_size, order, discounts)
    expected = [-math.log2(slow.probability(tuple(test[:i]), token)) for i, token in enumerate(test)]
    np.testing.assert_allclose(fast, expected, rtol=1e-9, atol=1e-12)


@given(problems())
def test_probabilities_sum_to_one_after_every_context(problem):
    train, test, vocab_size, order, discounts = problem
    model = NGram.fit(np.array(train), vocab_size, order, discounts)
    for cut in range(len(test) + 1):
        last = [model.bits(np.array([*test[:cut], token]))[-1] for token in range(vocab_size)]
        assert np.isfinite(last).all()
        assert np.exp2(-np.array(last)).sum() == pytest.approx(1)


@pytest.mark.parametrize("vocab_size", [3, 60_000, 2**50])
def test_a_large_vocabulary_changes_only_the_uniform_base(vocab_size):
    rng = np.random.default_rng(0)
    train, test = rng.integers(3, size=300), rng.integers(3, size=40)
    shift = vocab_size - 3  # the ids lie at the upper end, where keys are largest
    fast = NGram.fit(train + shift, vocab_size, 5).bits(test + shift)
    slow = SlowNGram((train + shift).tolist(), vocab_size, 5, "modified")
    ids = (test + shift).tolist()
    expected = [-math.log2(slow.probability(tuple(ids[:i]), token)) for i, token in enumerate(ids)]
    np.testing.assert_allclose(fast, expected, rtol=1e-9)


def test_unsigned_token_shards_are_accepted():
    ids = np.random.default_rng(0).integers(200, size=500)
    expected = NGram.fit(ids, 256, 3).bits(ids)
    np.testing.assert_array_equal(NGram.fit(ids.astype(np.uint8), 256, 3).bits(ids.astype(np.uint16)), expected)


def test_samples_follow_the_model():
    train = np.array([0, 1, 2, 0, 1, 1, 2, 2, 0, 2, 1, 0, 0, 1, 2, 0, 3])
    model = NGram.fit(train, 5, 3)
    num, length = 40_000, 4
    samples = model.sample(num, length, seed=0)
    seen = np.bincount(samples @ 5 ** np.arange(length), minlength=5**length) / num
    texts = np.arange(5**length)[:, None] // 5 ** np.arange(length) % 5
    law = np.array([np.exp2(-model.bits(text).sum()) for text in texts])
    assert law.sum() == pytest.approx(1)
    noise = np.sqrt(law * (1 - law) / num).sum() / 2 * math.sqrt(2 / math.pi)  # expected total variation
    assert np.abs(seen - law).sum() / 2 < 1.3 * noise
    np.testing.assert_array_equal(samples, model.sample(num, length, seed=0))
    assert (samples != model.sample(num, length, seed=1)).any()


@pytest.mark.parametrize(("ids", "order"), [([], 1), ([0, 1], 3), ([0, 1], 0), ([0, 7], 1), ([0, -1], 1)])
def test_a_text_that_cannot_be_counted_is_an_error(ids, order):
    with pytest.raises(ValueError, match=r"order|ids"):
        NGram.fit(np.array(ids, dtype=np.int64), 7, order)


def test_unknown_ids_and_empty_texts_are_errors():
    model = NGram.fit(np.array([0, 1, 2]), 3, 2)
    with pytest.raises(ValueError, match=r"\[0, 3\)"):
        model.bits(np.array([3]))
    with pytest.raises(ValueError, match="empty"):
        model.bits_per_token(np.array([], dtype=np.int64))


@pytest.mark.parametrize(
    ("corpus", "test_from", "discounts", "order", "expected"),
    [
        ("tinyshakespeare", 0.90, "single", 6, 2.248),
        ("tinyshakespeare", 0.90, "modified", 7, 2.188),
        ("wiki_text8style", 0.95, "single", 7, 1.817),
        ("wiki_text8style", 0.95, "modified", 8, 1.775),
    ],
)
def test_known_figures_on_real_text(data: Path, corpus, test_from, discounts, order, expected):
    text = (data / f"corpora/{corpus}.txt").read_text(encoding="utf-8")
    characters, ids = np.unique(np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32), return_inverse=True)
    start = time.process_time()
    model = NGram.fit(ids[: int(0.9 * len(ids))], len(characters), order, discounts)
    fitted = time.process_time()
    bits = model.bits_per_token(ids[int(test_from * len(ids)) :])
    scored = time.process_time()
    assert bits == pytest.approx(expected, abs=0.002)
    # About 0.4 and 0.1 CPU-seconds; the bound only catches a fall back to Python loops.
    assert fitted - start < 5
    assert scored - fitted < 2
