"""Which sentences are legal, and the known facts about the produce corpus."""

from pathlib import Path

import pytest

from textdiffusion.data.builtin import grammar
from textdiffusion.evaluation.metrics.legality import ProduceSentences, find_checker

LINES = ["The red apple is ripe.", "The green sweet potato is deep-fried."]


def test_legal_is_any_combination_of_known_words_in_the_exact_frame():
    language = ProduceSentences.from_lines(LINES)
    assert len(language) == 8
    assert language.is_legal("The red apple is ripe.")
    assert language.is_legal("The red sweet potato is ripe.")
    for text in [
        "",
        "the red apple is ripe.",
        "The red apple is ripe",
        "The red apple is ripe.\n",
        " The red apple is ripe.",
        "The red  apple is ripe.",
        "The red apple is is ripe.",
        "The red potato is ripe.",
        "The apple red is ripe.",
        "The blue apple is ripe.",
        "The red apple is ripe. The red apple is ripe.",
    ]:
        assert not language.is_legal(text), text


def test_fractions_of_samples():
    language = ProduceSentences.from_lines(LINES)
    samples = [LINES[0], "The green apple is ripe.", "The red potato is ripe.", "The green apple is deep-fried."]
    assert language.legal(samples) == 0.75
    assert language.novel_and_legal(samples) == 0.5
    with pytest.raises(ValueError, match="samples"):
        language.legal([])


def test_a_line_outside_the_frame_is_named():
    with pytest.raises(ValueError, match="hello"):
        ProduceSentences.from_lines([*LINES, "hello"])


def test_the_produce_corpus(data: Path):
    train = (data / "corpora/mtd_simple_train.txt").read_text(encoding="utf-8").splitlines()
    test = (data / "corpora/mtd_simple_test.txt").read_text(encoding="utf-8").splitlines()
    language = ProduceSentences.from_lines(train)
    assert (len(language.colours), len(language.produce), len(language.states)) == (10, 93, 54)
    assert len(language) == 50_220
    assert language.legal(test) == 1
    assert language.novel_and_legal(test) == pytest.approx(1 - 0.356)


def test_a_corpus_is_known_by_its_lines():
    produce = find_checker(LINES)
    assert produce
    assert produce("The red sweet potato is ripe.")
    assert not produce("The blue apple is ripe.")
    legal = find_checker(list(grammar.sentences(200)))
    assert legal
    assert legal(next(grammar.sentences(1, seed=7)))
    assert not legal("the old dogs sleeps.")
    assert find_checker(["To be, or not to be.", *LINES]) is None
    assert find_checker([]) is None
