"""Bits per character: the estimate, its two errors and what they do not depend on."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.models import model_of
from textdiffusion import TextDiffusion, recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.data.config import TextConfig
from textdiffusion.data.tokenizers.base import Characters
from textdiffusion.diffusion.densities import low_discrepancy
from textdiffusion.diffusion.model import DiffusionModel
from textdiffusion.evaluation.heldout import held_out, training_corpus
from textdiffusion.evaluation.ngram import NGram, kneser_ney
from textdiffusion.scoring.likelihood import LikelihoodEstimate, _is_precise, bits_per_character
from textdiffusion.scoring.windows import Texts

LN2 = math.log(2.0)
SPREAD = 20.0  # nats: the standard deviation of a row's noise in the toy


def measured(model, windows, likelihood=None, **options):
    """The bound by the model's own likelihood unless another is given."""
    likelihood = model.likelihood if likelihood is None else likelihood
    return bits_per_character(getattr(model, "model", model), windows, likelihood, **options)


class Toy(nn.Module):
    """50 nats for a window whose tokens are 0, 10 more for each unit of its first token, plus normal noise, plus
    `slope` * (u - 1/2) with u stratified."""

    def __init__(self, spread: float, slope: float = 0.0, exact: bool = False) -> None:
        super().__init__()
        self.spread, self.slope, self.exact = spread, slope, exact

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Tensor:
        u = low_discrepancy(rng.fork("t"), batch.global_batch_size or len(batch.tokens))
        noise = self.spread * rng.fork("noise").normal(1)[:, 0] if self.spread else 0.0
        return 50.0 + 10.0 * batch.tokens[:, 0] + noise + self.slope * (u - 0.5)


class Rows:
    """Windows of 10 characters with the given first tokens."""

    def __init__(self, first: list[int]) -> None:
        self.first = torch.tensor(first)

    def __len__(self) -> int:
        return len(self.first)

    def windows(self, rows) -> Batch:
        index = torch.as_tensor(np.asarray(rows))
        ids = self.first[index][:, None].repeat(1, 4)
        return Batch(ids, row_ids=index, num_chars=torch.full((len(index),), 10))


@pytest.fixture(scope="module")
def toy() -> Callable[..., DiffusionModel]:
    model = model_of(apply_overrides(recipes.get("mdlm")(), ["backbone.width=64", "backbone.depth=1"]), 5)

    def with_(*args, **options) -> DiffusionModel:
        model.likelihood = Toy(*args, **options)
        return model

    return with_


def test_the_mean(toy):
    found = measured(toy(0.0), Rows([0, 1, 3]), draws=2)
    assert found.bits == pytest.approx((50 + 60 + 80) / 30 / LN2)
    assert (found.characters, found.windows) == (30, 3)
    assert found.monte_carlo_error == 0.0


def test_the_monte_carlo_error_is_that_of_the_draws(toy):
    """Over many seeds the squared error of the estimate is the square of the error that was reported."""
    windows, passes = Rows([0, 2] * 100), 8
    found = [measured(toy(SPREAD), windows, draws=passes, seed=seed, batch_size=200) for seed in range(60)]
    true = SPREAD / 10 / LN2 / math.sqrt(200 * passes)
    mean_square = np.mean([f.monte_carlo_error**2 for f in found])
    assert math.sqrt(mean_square) == pytest.approx(true, rel=0.12)  # 60 x 7 degrees of freedom: 3.5 %
    misses = np.array([f.bits - 60 / 10 / LN2 for f in found])
    assert math.sqrt(np.mean(misses**2)) == pytest.approx(true, rel=0.3)  # 60 of them: 9 %
    assert abs(misses.mean()) < 4 * true / math.sqrt(60)


def test_stratified_levels_leave_little_error(toy):
    """A likelihood that varies with the noise level alone: only the common offset, within 1 / 200, is left."""
    found = measured(toy(0.0, slope=100.0), Rows([0] * 200), draws=64)
    true = 100.0 / 200 / math.sqrt(12) / 10 / LN2 / math.sqrt(64)
    assert found.monte_carlo_error == pytest.approx(true, rel=0.25)
    assert found.bits == pytest.approx(50 / 10 / LN2, abs=4 * true)


def test_few_windows_have_their_own_levels_spread(toy):
    """One window, whose levels must be spread over its copies: a pass then hits the mean closely."""
    found = measured(toy(0.0, slope=100.0), Rows([0]), draws=4)
    assert found.draws == 4 * 128
    assert found.bits == pytest.approx(50 / 10 / LN2, abs=100 / 128 / 10 / LN2)


def test_draws_go_on_until_the_target(toy):
    windows = Rows([0] * 200)
    loose = measured(toy(SPREAD), windows, target_error=0.5)
    tight = measured(toy(SPREAD), windows, target_error=0.03)
    assert loose.draws == 4
    assert tight.draws > loose.draws
    assert 0 < tight.monte_carlo_error < 0.03


@pytest.mark.parametrize("spread", [2.0, 3.0, 4.0])
def test_stopping_early_does_not_favour_luck(spread: float):
    """Passes of this spread, a target of 1: the root mean square of the true miss is below the target, too."""
    passes = np.random.default_rng(0).normal(size=(800, 400)) * spread
    misses = []
    for row in passes:
        counts = range(2, 400)
        stop = next(n for n in counts if _is_precise(n, float(row[:n].std(ddof=1)) / math.sqrt(n), 1.0))
        misses.append(row[:stop].mean())
    assert np.sqrt(np.mean(np.square(misses))) < 1.0


def test_a_target_out_of_reach_is_told_as_it_is(toy, monkeypatch):
    monkeypatch.setattr("textdiffusion.scoring.likelihood.MAX_PASSES", 6)
    found = measured(toy(SPREAD), Rows([0] * 200), target_error=1e-9)
    assert found.draws == 6
    assert found.monte_carlo_error > 1e-3


def test_an_exact_likelihood_takes_one_pass(toy):
    found = measured(toy(0.0, exact=True), Rows([0, 1]))
    assert (found.draws, found.monte_carlo_error, found.exact) == (1, 0.0, True)
    assert str(found).startswith("= ")
    assert str(measured(toy(SPREAD), Rows([0]), draws=2)).startswith("<= ")


def test_the_error_between_windows(toy):
    first = [0, 1, 2, 3] * 25
    found = measured(toy(0.0), Rows(first), draws=2)
    assert found.window_error == pytest.approx(np.std(first, ddof=1) * 10 / 10 / LN2 / math.sqrt(100))
    assert measured(toy(0.0), Rows([1]), draws=2).window_error is None


@pytest.mark.parametrize("first", [[1] * 150, [0, 1, 2, 3] * 40])
def test_noise_that_a_pass_spreads_over_its_windows_is_none_between_them(toy, first):
    """Levels that cost 0 to 600 nats: each window has seen four or more of them, and their sum all."""
    found = measured(toy(0.0, slope=600.0), Rows(first), draws=6)
    true = np.std(first, ddof=1) * 10 / 10 / LN2 / math.sqrt(len(first))
    assert found.window_error == pytest.approx(math.hypot(true, found.monte_carlo_error), abs=0.4)
    levels = 600 / math.sqrt(12 * 6)  # the standard deviation of a window's mean, in nats
    assert levels / 10 / LN2 / math.sqrt(len(first)) > 0.8


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 150), st.integers(0, 2**33))
def test_the_batch_size_does_not_matter(toy, count: int, batch_size: int, seed: int):
    windows = Rows([i % 3 for i in range(count)])
    whole = measured(toy(SPREAD, slope=5.0), windows, draws=2, seed=seed, batch_size=1000)
    parts = measured(toy(SPREAD, slope=5.0), windows, draws=2, seed=seed, batch_size=batch_size)
    assert parts == whole


@pytest.mark.parametrize("recipe", recipes.names())
def test_the_batch_size_does_not_matter_to_a_network(tiny_run, recipe: str):
    model = TextDiffusion.from_pretrained(tiny_run(recipe), device="cpu")
    texts = Texts(["The red pear is old. " * 9], model.tokenizer, model.config.text)
    few, many = (measured(model, texts, draws=2, batch_size=size) for size in (5, 64))
    # Products of other sizes round differently in float32: 2e-6 with AMX, where other draws would differ by 1e-2.
    assert few.bits == pytest.approx(many.bits, abs=1e-5, rel=1e-5)


def test_the_model_stays_in_its_mode(toy):
    for training in (True, False):
        model = toy(SPREAD).train(training)
        measured(model, Rows([0]), draws=2)
        assert model.training is training


def test_progress_and_protocol(toy):
    calls = []
    found = measured(
        toy(SPREAD),
        Rows([0] * 200),
        draws=3,
        batch_size=100,
        metadata={"text": "x"},
        progress=lambda number, share, error: calls.append((number, share)),
    )
    assert calls == [(n, s) for n in (1, 2, 3) for s in (0.5, 1.0)]
    expected = {
        "windows": 200,
        "characters": 2000,
        "draws": 3,
        "seed": 0,
        "likelihood": "Toy",
        "dtype": "float32",
        "text": "x",
    }
    assert found.protocol == expected


def test_nothing_to_measure(toy):
    with pytest.raises(ValueError, match="at least one window"):
        measured(toy(0.0), Rows([]))
    with pytest.raises(ValueError, match="two draws"):
        measured(toy(SPREAD), Rows([0]), draws=1)


def test_texts_become_windows():
    texts = Texts(["abcab", "a"], Characters("abc"), TextConfig(length=4))
    batch = texts.windows(range(3))
    assert batch.tokens.tolist() == [[0, 1, 2, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert batch.num_chars is not None
    assert batch.valid_mask is not None
    assert batch.num_chars.tolist() == [4, 1, 1]
    assert batch.valid_mask.tolist() == [[True] * 4, [True, False, False, False], [True, False, False, False]]


def test_texts_are_normalised_as_in_training():
    config = TextConfig(length=4, normaliser="lower")
    assert Texts(["AbC"], Characters("abc"), config).windows([0]).tokens.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("spread", [math.nan, math.inf])
def test_a_likelihood_that_is_not_finite_is_said(spread: float, toy: Callable[..., DiffusionModel]):
    with pytest.raises(UserError, match="NaN or infinite: the weights are damaged, or training diverged"):
        measured(toy(spread), Rows([0, 1]), draws=2)


class OnMps(Tensor):
    """A tensor that, like those on mps, knows no float64 until it is on the CPU."""

    def double(self, *_: object) -> Tensor:
        raise TypeError("no float64")

    def cpu(self, memory_format: torch.memory_format = torch.preserve_format) -> Tensor:
        return self.as_subclass(Tensor)


def test_a_device_without_float64_will_do(toy, monkeypatch):
    model = toy(0.0)
    forward = model.likelihood.forward
    monkeypatch.setattr(model.likelihood, "forward", lambda *a, **k: forward(*a, **k).as_subclass(OnMps))
    assert measured(model, Rows([0, 1, 3]), draws=2).bits == pytest.approx((50 + 60 + 80) / 30 / LN2)


@pytest.mark.parametrize("layout", ["lines", "documents"])
def test_texts_end_as_in_training(layout):
    config = TextConfig(length=4, layout=layout, model_padding=True)
    tokenizer = Characters("ab", ("[END]", "[PAD]"))
    batch = Texts(["ab"], tokenizer, config).windows([0])
    assert batch.valid_mask is None
    assert batch.tokens.tolist() == [[0, 1, tokenizer.end_id, tokenizer.pad_id]]
    assert batch.num_chars is not None
    assert batch.num_chars.tolist() == [3 if layout == "lines" else 2]


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("text.layout=lines", "text.model_padding=true", "text.length=16"),
        ("text.layout=lines", "text.packing=true", "text.length=64"),
    ],
)
def test_model_and_ngram_are_measured_on_the_same_tokens(tiny_run, tmp_path: Path, changes: tuple):
    """Also where examples are cut short, only some windows are taken, and the last one is padded."""
    model = TextDiffusion.from_pretrained(tiny_run("mdlm", *changes), device="cpu")
    text = held_out(model, tmp_path, count=3)
    batch = text.windows(range(3))
    ids = batch.tokens[batch.target_mask]
    ids = ids[ids != model.tokenizer.pad_id] if model.tokenizer.pad_id is not None else ids
    assert np.array_equal(np.asarray(text.dataset.shard.tokens)[text.positions()], ids.numpy())
    train = training_corpus(model, tmp_path).train.shard
    found = kneser_ney(train, text, model.tokenizer.vocab_size)
    ngram = NGram.fit(np.asarray(train.tokens), model.tokenizer.vocab_size, 7)
    bits = ngram.bits(np.asarray(text.dataset.shard.tokens))
    assert batch.num_chars is not None
    assert found.bits == pytest.approx(bits[text.positions()].sum() / int(batch.num_chars.sum()))
    assert 0 < found.bits < 2  # 27 sentences, seen eight times
    assert (found.order, found.train_tokens) == (7, len(train))


def test_another_text_is_read_as_the_run_reads_its_own(tiny_run, tmp_path: Path):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    other = tmp_path / "other.txt"
    other.write_text("The old fig is red.\n" * 10)
    text = held_out(model, tmp_path / "cache", str(other))
    assert (len(text), text.characters(), text.trained_on) == (7, 200, False)
    assert text.metadata["text"] == str(other)
    assert held_out(model, tmp_path / "cache", model.config.text.data).trained_on


def test_tables_are_read_as_in_training(tiny_run, tmp_path: Path):
    """In a folder, by a pattern or as a file; the limit is that of the run's own data."""
    for folder in ("own", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_text('{"text": "The red fig."}\n' * 5, encoding="utf-16")
    reading = "field=text", "layout=documents", "encoding=utf-16", "limit=3", "valid_fraction=0", "test_fraction=0"
    settings = [f"text.{setting}" for setting in (f"data={tmp_path}/own", *reading)]
    model = TextDiffusion.from_pretrained(tiny_run("mdlm", *settings), device="cpu")
    for data, count in (("own", 3), ("own/*.jsonl", 5), ("other", 5), ("other/a.jsonl", 5)):
        text = held_out(model, tmp_path, f"{tmp_path}/{data}")
        assert (len(text), text.characters()) == (count, 12 * count)


def test_the_protocol_says_how_the_text_is_read(tiny_run, tmp_path: Path):
    run = tiny_run("mdlm", "text.normaliser=lower", "text.tokenizer=words", "text.layout=stream")
    model = TextDiffusion.from_pretrained(run, device="cpu")
    other = tmp_path / "other.txt"
    other.write_text("THE #LD F#G.\n" * 10)
    about = held_out(model, tmp_path / "cache", str(other)).metadata
    assert (about["tokenizer"], about["normaliser"]) == ("words", "lower")
    assert about["unknown"] == pytest.approx(5 / 8)  # " #", "ld", " f", "#" and "g", but not "the", "." and line break
    assert "unknown" not in held_out(TextDiffusion.from_pretrained(tiny_run("mdlm")), tmp_path / "cache").metadata


def test_a_text_shorter_than_a_window_is_measured(tiny_run, tmp_path: Path):
    """Evaluation windows are padded; only training needs whole ones."""
    model = TextDiffusion.from_pretrained(tiny_run("autoregressive"), device="cpu")
    other = tmp_path / "other.txt"
    other.write_text("The old fig.")
    text = held_out(model, tmp_path / "cache", str(other))
    assert (len(text), text.characters(), text.positions().tolist()) == (1, 12, list(range(12)))
    alone = model.score(["The old fig."])[0]
    assert measured(model, text).bits == pytest.approx(alone.bits)


def test_it_reads_well():
    found = LikelihoodEstimate(2.5, 0.004, 0.02, False, 100, 10, 4)
    assert str(found) == "<= 2.5000 bits per character +- 0.0040 (draws) +- 0.020 (windows)"
    assert SimpleNamespace(**vars(found)).protocol == {}
