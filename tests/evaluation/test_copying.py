"""Copied spans against a search for each of them."""

from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.evaluation.metrics.copying import CopyFinder
from textdiffusion.evaluation.ngram_statistics import Grams

TEXT = st.text("ab c", max_size=40)


@given(TEXT, st.lists(st.text("ab c", max_size=12), max_size=4), st.integers(1, 5))
def test_copies_equal_a_search_for_every_span(train, samples, length):
    finder, grams = CopyFinder(Grams.characters([train])), Grams.characters(samples)
    spans = [sample[i : i + length] for sample in samples for i in range(len(sample) - length + 1)]
    assert finder.is_copied(grams, length).tolist() == [span in train for span in spans]
    every = (s[i:j] for s in samples for i in range(len(s)) for j in range(i + 1, len(s) + 1))
    assert finder.longest(grams) == max((len(span) for span in every if span in train), default=0)


def test_a_border_between_examples_is_no_copy():
    finder = CopyFinder(Grams.characters(["abc", "def"]))
    samples = Grams.characters(["abcdef", "xabcx"])
    assert finder.longest(samples) == 3
    assert finder.copied_fraction(samples, 3) == 3 / 7
