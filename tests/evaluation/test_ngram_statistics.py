"""Sample metrics against figures worked out by hand and slow definitions."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.evaluation.metrics.diversity import compression_ratio
from textdiffusion.evaluation.metrics.valid_words import lexicon, valid_fraction
from textdiffusion.evaluation.ngram_statistics import (
    Grams,
    distinct,
    entropy_within,
    repetition,
    self_bleu,
    unigram_entropy,
)

SAMPLES = st.lists(st.lists(st.integers(0, 3), max_size=9), min_size=2, max_size=5)


def grams_of(sample, n):
    return [tuple(sample[i : i + n]) for i in range(len(sample) - n + 1)]


@given(SAMPLES, st.integers(1, 4))
def test_hashes_are_equal_where_n_grams_are_and_cross_no_border(samples, n):
    hashes, owner = Grams.of(samples).hashes(n)
    listed = [gram for sample in samples for gram in grams_of(sample, n)]
    assert owner.tolist() == [i for i, sample in enumerate(samples) for _ in grams_of(sample, n)]
    assert len(set(zip(listed, hashes.tolist(), strict=True))) == len(set(listed)) == len(set(hashes.tolist()))


def test_hashes_of_characters_do_not_depend_on_where_they_stand():
    first, _ = Grams.characters(["to be or not to be", "é\U0001f600 to be", "\ud800"]).hashes(5)
    assert first[0] == first[13] == first[-1]
    assert Grams.characters(["to be"]).hashes(5)[0][0] == first[0]


def test_distinct():
    assert distinct(Grams.of(["abab", "ab"]), 1) == 2 / 6
    assert distinct(Grams.of(["abab", "ab"]), 2) == 2 / 4
    assert distinct(Grams.of([[1, 2, 3], [1, 2, 4]]), 3) == 1
    with pytest.raises(ValueError, match="distinct-3"):
        distinct(Grams.of(["ab"]), 3)


def test_entropies():
    assert unigram_entropy(np.array([5, 5, 5])) == 0
    assert unigram_entropy(np.arange(8)) == pytest.approx(3)
    assert unigram_entropy(np.array([0, 0, 1, 2])) == pytest.approx(1.5)
    assert entropy_within(Grams.of(["aaaa", "abcd", "", "aabc"])) == pytest.approx((0 + 2 + 1.5) / 3)
    assert entropy_within(Grams.of(["aaaa", "bbbb"])) == 0
    for undefined in (lambda: unigram_entropy(np.array([], dtype=np.int64)), lambda: entropy_within(Grams.of([""]))):
        with pytest.raises(ValueError, match="entropy"):
            undefined()


def test_repetition_counts_each_sample_for_itself():
    assert repetition(Grams.of(["abcd", "abcd"])) == 0
    assert repetition(Grams.of(["aaaaaaa", "abcd"])) == pytest.approx(3 / 5)
    with pytest.raises(ValueError, match="repetition"):
        repetition(Grams.of(["abc"]))


def slow_self_bleu(samples, longest):
    """Papineni et al. 2002 with every other sample as a reference."""
    logs, candidate, reference = 0.0, sum(map(len, samples)), 0
    for n in range(1, longest + 1):
        matched = total = 0
        for i, sample in enumerate(samples):
            others = [Counter(grams_of(other, n)) for j, other in enumerate(samples) if j != i]
            for gram, count in Counter(grams_of(sample, n)).items():
                matched += min(count, max(other[gram] for other in others))
                total += count
        if not matched:
            return 0.0
        logs += math.log(matched / total)
    for i, sample in enumerate(samples):
        lengths = [len(other) for j, other in enumerate(samples) if j != i]
        reference += min(lengths, key=lambda length: (abs(length - len(sample)), length))
    return math.exp(logs / longest + min(0, 1 - reference / candidate))


@given(SAMPLES, st.integers(1, 3))
def test_self_bleu_equals_its_definition(samples, longest):
    if all(len(sample) < longest for sample in samples):
        with pytest.raises(ValueError, match="self-BLEU"):
            self_bleu(Grams.of(samples), longest)
    else:
        assert self_bleu(Grams.of(samples), longest) == pytest.approx(slow_self_bleu(samples, longest))


def test_self_bleu_of_the_same_and_of_unlike_samples():
    assert self_bleu(Grams.of(["abcdefgh"] * 3)) == 1
    assert self_bleu(Grams.of(["abcd", "efgh"])) == 0
    with pytest.raises(ValueError, match="two samples"):
        self_bleu(Grams.of(["abcd"]))


def test_compression_and_valid_words():
    assert compression_ratio(["the king " * 30] * 20) < 0.02 < 0.5 < compression_ratio(["qwdkjhzx"])
    known = lexicon("The king's men. THE END 3")
    assert known == {"the", "king", "s", "men", "end"}
    assert valid_fraction(["The KING xyz", "king"], known) == 3 / 4
    with pytest.raises(ValueError, match="words"):
        valid_fraction(["123 ..."], known)
