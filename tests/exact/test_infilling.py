"""Infilling with models that were not trained for it, against the law given the tokens."""

import pytest
import torch

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.alpha_schedules import Linear
from textdiffusion.guidance.replacement import Replacement
from textdiffusion.inference.lengths import given_nats
from textdiffusion.samplers.ancestral import Ancestral
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.ddim import DDIM

from .language import Language, ideal_gaussian, ideal_masked, ideal_uniform, last, tables
from .texts import LANGUAGE as THREE
from .texts import POSSIBLE, TEXTS, mask_of

# The second token is mostly 0, and mostly 1 after a first token of 1, which is rare.
LANGUAGE = Language(2, 2, torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), torch.tensor([0.85, 0.05, 0.02, 0.08]))
SHARE, DRAWS, STEPS = 0.8, 1000, 10  # p(second = 1 | first = 1)
MODELS = {
    "uniform": (ideal_uniform(LANGUAGE, Linear()), Ancestral()),
    "Gaussian, eta 0": (ideal_gaussian(LANGUAGE, tables(2)["embeddings"]), DDIM(eta=0.0)),
}


KNOWN = torch.tensor([True, False]).expand(DRAWS, 2)


def _share(model, sampler, batch, *guides, calls=STEPS):
    """The share of 1 in the second place where the first is known to be 1."""
    with torch.no_grad():
        step = last(sampler(model, Request(batch, STEPS, guides), rng=Rng.of(0, DRAWS)))
    assert bool((step.tokens[:, 0] == 1).all())
    assert step.nfe == calls
    return float(step.tokens[:, 1].float().mean())


@pytest.mark.parametrize("kind", MODELS)
def test_replacement_is_biased_and_noising_again_moves_to_the_law_given_the_tokens(kind):
    model, sampler = MODELS[kind]
    batch = Batch(torch.tensor([1, 0]).expand(DRAWS, 2), replace_mask=KNOWN)
    each = STEPS - (kind != "uniform")  # no jump after the last prediction of states
    none, few, many = (
        _share(model, sampler, batch, Replacement(model, jumps), calls=STEPS + jumps * each) for jumps in (0, 2, 10)
    )
    assert none < 0.45
    assert none + 0.08 < few < many - 0.08
    assert many < SHARE + 0.04


def test_masks_need_none_of_that():
    model = ideal_masked(LANGUAGE, Linear())
    batch = Batch(torch.tensor([1, 0]).expand(DRAWS, 2), condition_mask=KNOWN)
    assert abs(_share(model, Ancestral(), batch, calls=1) - SHARE) < 0.04


@pytest.mark.parametrize("where", [[0, 2], [1], [2], [0, 1, 2]], ids=str)
def test_the_probability_of_given_text_does_not_depend_on_what_fills_the_gaps(where):
    """It is what lengths of gaps are proposed by."""
    given = mask_of(*where)
    model = ideal_masked(THREE, Linear())
    nats = given_nats(model, Batch(TEXTS, condition_mask=given.expand(TEXTS.shape)))
    assert nats == pytest.approx(THREE.nll(seen=given)[POSSIBLE], abs=1e-5)


def test_neither_the_source_nor_padding_is_measured():
    model = ideal_masked(THREE, Linear())
    batch = Batch(TEXTS, condition_mask=mask_of(0, 2).expand(TEXTS.shape))
    after_source = given_nats(model, batch, source_length=1)
    first = THREE.nll(seen=mask_of(0))[POSSIBLE]
    assert after_source == pytest.approx(THREE.nll(seen=mask_of(0, 2))[POSSIBLE] - first, abs=1e-5)
    padded = TEXTS[:, 2] == 0
    nats = given_nats(model, batch, pad_id=0)[padded & (TEXTS[:, 0] != 0)]
    assert nats == pytest.approx(first[padded & (TEXTS[:, 0] != 0)], abs=1e-5)
