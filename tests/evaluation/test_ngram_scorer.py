"""The scorer is the n-gram, applied to each text by itself."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.evaluation.ngram import NGram
from textdiffusion.evaluation.ngram_scorer import NgramScorer, characters, words

TRAIN = "the king and the queen and the old king of the land"


@given(st.text("theking ,.\n'é", max_size=30))
def test_words_are_pieces_of_the_whole_text(text):
    assert "".join(words(text)) == text
    assert all(len(piece.split()) <= 1 for piece in words(text))


@given(st.lists(st.text("thekingqu ", max_size=12), min_size=1, max_size=4).filter(any))
def test_texts_are_scored_by_themselves(samples):
    scorer = NgramScorer.fit([TRAIN], characters, 4)
    ids = [np.array([scorer.ids[character] for character in sample], dtype=np.int64) for sample in samples]
    ngram = NGram.fit(np.array([scorer.ids[character] for character in TRAIN]), len(scorer.ids) + 2, 4)
    expected = sum(ngram.bits(row).sum() for row in ids) / sum(map(len, samples))
    assert scorer.bits(samples) == pytest.approx(expected)


def test_what_was_never_seen_costs_its_bytes():
    scorer = NgramScorer.fit([TRAIN], words, 2)
    unseen = -np.log2(scorer.ngram.levels[0].backoff[0] / (len(scorer.ids) + 2))
    assert scorer.bits([" zebra"]) == pytest.approx((unseen + 8 * 6) / 6)
    assert scorer.bits(["x" * 500]) > 8  # one word, yet not cheap
    assert scorer.bits(["é"]) == pytest.approx(unseen + 16)
    with pytest.raises(ValueError, match="no bits"):
        scorer.bits([""])


def test_probabilities_of_all_texts_of_a_length_sum_to_less_than_one():
    scorer = NgramScorer.fit(["abab ba a", "bb"], characters, 3)
    texts = map("".join, itertools.product("ab c", repeat=3))
    total = sum(math.exp2(-3 * scorer.bits([text])) for text in texts)
    assert 0.4 < total < 1  # some is left for ends and for what was never seen


def test_fitting_counts_no_n_gram_across_texts():
    scorer = NgramScorer.fit(["xab", "xcd"], characters, 2)
    assert scorer.bits(["bc"]) == pytest.approx(scorer.bits(["bd"]))


def test_samples_are_cut_at_the_ends_of_texts():
    lines = ["red fig", "old plum", "ripe pear"] * 50
    parts = NgramScorer.fit(lines, characters, 9).sample(20, 60, 0)
    whole = [text for row in parts for text in row[1:-1]]
    assert sum(text in lines for text in whole) > 0.7 * len(whole) > 20
    running = NgramScorer.fit([TRAIN], characters, 3).sample(5, 30, 0)
    assert all(28 <= len("".join(row)) <= 30 for row in running)
