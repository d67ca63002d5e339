"""The likelihood of an order is the probability with which the sampler of that order writes the text."""

from dataclasses import dataclass, field, replace
from itertools import product

import pytest
import torch

from tests.models import model_of
from textdiffusion import recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.absorbing import AbsorbingProcess
from textdiffusion.diffusion.alpha_schedules import CosineAlpha
from textdiffusion.diffusion.codecs import TokenCodec
from textdiffusion.diffusion.prediction import Prediction
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.masked_view import MaskedView
from textdiffusion.samplers.order_likelihood import OrderLikelihood
from textdiffusion.samplers.unmasking import Unmasking

from .language import Language, WrongDenoiser, assemble, ideal_gaussian, ideal_masked, last, tables
from .texts import LANGUAGE, LAYOUTS, POSSIBLE, TEXTS, batch_of

ORDERS = ["left", "confidence", "margin", "entropy"]
LONG = Language.random(vocab_size=2, length=6)
RULES = [
    {"order": order, "per_step": per_step, "block_size": block_size, "spaced": spaced}
    for order, per_step, block_size, spaced in product(ORDERS, [1, 2, 4, 6], [0, 2, 4], [False, True])
]


class TiedDenoiser(WrongDenoiser):
    """Predicts the same at all positions, so that only the rule for ties chooses among them."""

    def forward(self, xt, t, *, batch, self_cond=None):
        logits = super().forward(xt, t, batch=batch).logits
        return Prediction(logits[:, :1].expand_as(logits))


def _wrong(language, denoiser=WrongDenoiser):
    process = AbsorbingProcess(language.vocab_size, CosineAlpha())
    return assemble(TokenCodec(language.vocab_size), process, denoiser(language))


WRONG = {"wrong": _wrong(LONG), "tied": _wrong(LONG, TiedDenoiser)}


@dataclass(frozen=True)
class ForcedRng(Rng):
    """Draws the tokens of `texts`, of which row i belongs to row number i, and multiplies up their probabilities."""

    texts: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    probs: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def fork(self, name):
        return replace(self, key=super().fork(name).key)

    def select(self, index):
        return replace(self, row_ids=self.row_ids[index])

    def categorical_at(self, where, weights):
        tokens = self.texts[self.row_ids][where]
        drawn = weights.double().gather(-1, tokens[:, None])[:, 0] / weights.double().sum(-1)
        self.probs[self.row_ids] *= torch.ones(where.shape).double().masked_scatter(where, drawn).prod(-1)
        return tokens


def _sampler_probs(sampler, model, batch, steps):
    """The probability with which the sampler writes each row: its own run, with the tokens to draw prescribed."""
    count = len(batch.tokens)
    rng = ForcedRng(**vars(Rng.of(0, count)), texts=batch.tokens, probs=torch.ones(count).double())
    with torch.no_grad():
        step = last(sampler(model, Request(batch, steps), rng=rng))
    assert torch.equal(step.tokens[batch.target_mask], batch.tokens[batch.target_mask])
    return rng.probs


def _nats(likelihood, model, batch):
    with torch.no_grad():
        return likelihood(model, batch, rng=Rng.of(0, len(batch.tokens))).double()


def _id(rule):
    return "-".join(map(str, rule.values()))


@pytest.mark.parametrize("rule", RULES, ids=_id)
@pytest.mark.parametrize("name", WRONG)
def test_it_is_the_distribution_of_the_sampler(name, rule):
    """For a wrong denoiser too, which reads t, and where all positions are equally sure."""
    model, per_step = WRONG[name], rule["per_step"]
    likelihood = OrderLikelihood(**rule)
    sampler = Unmasking(**{key: value for key, value in rule.items() if key != "per_step"})
    probs = _nats(likelihood, model, Batch(LONG.ids)).neg().exp()
    expected = _sampler_probs(sampler, model, Batch(LONG.ids), -(-LONG.length // per_step))
    assert float(probs.sum()) == pytest.approx(1.0, abs=1e-6)
    assert float((probs - expected).abs().max()) < 1e-6


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6, 9])
def test_the_likelihood_of_a_sampler_is_that_of_its_steps(steps):
    """Only where all steps but one reveal as many positions: 4 and 5 steps do not split 6 positions so."""
    batch, model = Batch(LONG.ids), WRONG["wrong"]
    samplers = (
        Unmasking(order="margin"),
        Unmasking(order="left", block_size=4),
        Unmasking(order="entropy", spaced=False),
    )
    for each in samplers:
        sampler = replace(each, steps=3, temperature=0.5)
        likelihood = OrderLikelihood.of_sampler(sampler, LONG.length, steps)
        assert (likelihood is None) == (steps in (4, 5))
        if likelihood:
            expected = _sampler_probs(sampler, model, batch, steps)
            assert torch.allclose(_nats(likelihood, model, batch).neg().exp(), expected, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [{"order": "random"}, {"threshold": 0.9}, {"entropy_bound": 0.1}, {"greedy_below": 0.5}, {"refine_rounds": 1}],
    ids=lambda change: next(iter(change)),
)
def test_other_samplers_have_none(change):
    assert OrderLikelihood.of_sampler(replace(Unmasking(order="left"), **change), LONG.length, 2) is None


def _by_hand(model, order, per_step, text):
    """-log p of one text, position by position, with each rule written out."""
    n, mask = len(text), model.process.mask
    rules = {
        "left": lambda i, probs: -i,
        "confidence": lambda i, probs: float(probs.max()),
        "margin": lambda i, probs: float(probs.sort().values[-1] - probs.sort().values[-2]),
        "entropy": lambda i, probs: float((probs * probs.log()).sum()),
    }
    x, nats = torch.full((n,), mask), 0.0
    while masked := (x == mask).nonzero()[:, 0].tolist():
        t = model.process.schedule.time(torch.tensor([1.0 - len(masked) / n]))
        probs = model.denoiser(x[None], t, batch=Batch(text[None])).probs[0]
        surest = sorted(masked, key=lambda i: -rules[order](i, probs[i]))[:per_step]
        nats -= sum(float(probs[i, text[i]].log()) for i in surest)
        x[surest] = text[surest]
    return nats


@pytest.mark.parametrize("per_step", [1, 2, 3])
@pytest.mark.parametrize("order", ORDERS)
def test_it_is_the_product_along_the_order(order, per_step):
    likelihood = OrderLikelihood(order=order, per_step=per_step, spaced=False)
    nats = _nats(likelihood, WRONG["wrong"], Batch(LONG.ids))
    expected = [_by_hand(WRONG["wrong"], order, per_step, text) for text in LONG.ids]
    assert torch.allclose(nats, torch.tensor(expected, dtype=torch.float64), atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("block_size", [0, 2])
@pytest.mark.parametrize("order", ORDERS)
def test_one_position_per_step_is_exact_for_an_ideal_denoiser(order, block_size, layout):
    """Also given some tokens, and beside padding."""
    batch, truth = batch_of(layout, 1)
    nats = _nats(OrderLikelihood(order=order, block_size=block_size), ideal_masked(LANGUAGE, CosineAlpha()), batch)
    assert torch.allclose(nats, truth, atol=1e-4)


@pytest.mark.parametrize("per_step", [2, 3])
@pytest.mark.parametrize("order", ORDERS)
def test_an_ideal_denoiser_pays_for_positions_revealed_together(order, per_step):
    """Texts that the language lacks get some probability, and the entropy is exceeded on average."""
    model = ideal_masked(LANGUAGE, CosineAlpha())
    probs = _nats(OrderLikelihood(order=order, per_step=per_step), model, Batch(TEXTS)).neg().exp()
    law = LANGUAGE.law[POSSIBLE].double()
    assert float(probs.sum()) < 1.0 + 1e-6
    assert float(-(law * probs.log()).sum()) > LANGUAGE.entropy + 1e-3


@pytest.mark.parametrize("rule", RULES[::5], ids=_id)
def test_given_tokens_and_padding_condition_the_rest(rule):
    """Rows with different numbers of targets, each under the steps of its own."""
    likelihood = OrderLikelihood(**rule)
    sampler = Unmasking(**{key: value for key, value in rule.items() if key != "per_step"})
    for given in (torch.tensor([1, 0, 0, 1, 0, 0]).bool(), torch.tensor([0, 1, 1, 1, 1, 0]).bool()):
        for padding in (torch.zeros(6).bool(), torch.tensor([0, 0, 0, 0, 0, 1]).bool()):
            free = ~given & ~padding
            ids = torch.zeros(2 ** int(free.sum()), 6).long()
            ids[:, free] = torch.cartesian_prod(*[torch.arange(2)] * int(free.sum())).view(len(ids), -1)
            batch = Batch(ids, valid_mask=(~padding).expand(ids.shape), condition_mask=given.expand(ids.shape))
            probs = _nats(likelihood, WRONG["wrong"], batch).neg().exp()
            steps = -(-int(free.sum()) // rule["per_step"])
            assert float(probs.sum()) == pytest.approx(1.0, abs=1e-6)
            assert torch.allclose(probs, _sampler_probs(sampler, WRONG["wrong"], batch, steps), atol=1e-6)


def test_rows_do_not_change_each_other_and_finished_rows_leave():
    given = torch.tensor([[0] * 6, [1] * 6, [1, 1, 1, 0, 1, 0], [0, 0, 1, 0, 0, 1]]).bool()
    batch, likelihood = Batch(LONG.ids[:4], condition_mask=given), OrderLikelihood(order="margin", per_step=2)
    rows_per_call = []

    class Counting(WrongDenoiser):
        def forward(self, xt, t, *, batch, self_cond=None):
            rows_per_call.append(len(xt))
            return super().forward(xt, t, batch=batch)

    nats = _nats(likelihood, _wrong(LONG, Counting), batch)
    assert rows_per_call == [3, 2, 1]
    alone = [_nats(likelihood, WRONG["wrong"], batch.select(torch.tensor([i]))) for i in range(4)]
    assert torch.allclose(nats, torch.cat(alone), atol=1e-6)
    assert float(nats[1]) == 0.0


def test_chunks_of_rows_give_the_same(monkeypatch):
    whole = _nats(OrderLikelihood(), WRONG["wrong"], Batch(LONG.ids))
    monkeypatch.setattr("textdiffusion.samplers.order_likelihood.MAX_LOGITS", 7 * 6 * 3)
    assert torch.allclose(_nats(OrderLikelihood(), WRONG["wrong"], Batch(LONG.ids)), whole, atol=1e-6)


def _network(*settings):
    small = ["backbone.width=32", "backbone.depth=2", "text.length=8", "denoiser.ngram_dim=8", *settings]
    model = model_of(apply_overrides(recipes.get("mdlm")(), small), 3).eval()
    with torch.no_grad():
        for name, weight in model.denoiser.named_parameters():
            weight += 0.2 * Rng.of(0, 1).fork(name).normal(*weight.shape)[0]
    return model


@pytest.mark.parametrize("order", ORDERS)
def test_the_examples_of_a_packed_row_have_the_likelihoods_of_their_own(order):
    model = _network()
    tokens = Rng.of(1, 4).categorical(torch.ones(4, 8, 3))
    likelihood = OrderLikelihood(order=order)
    packed = Batch(tokens, segment_ids=torch.tensor([0, 0, 0, 1, 1, 1, 1, 1]).expand(4, 8))
    parts = [_nats(likelihood, model, Batch(tokens[:, part])) for part in (slice(3), slice(3, 8))]
    assert torch.allclose(_nats(likelihood, model, packed), parts[0] + parts[1], atol=1e-4)


@pytest.mark.parametrize("name", tables(3))
def test_vectors_seen_as_masks_have_the_likelihood_of_an_order(name):
    """Pure noise leaves little to go by but the tokens that stand, so the law is met up to what the noise says."""
    model = MaskedView(ideal_gaussian(LANGUAGE, tables(3)[name]), seed=0)
    batch = Batch(LANGUAGE.ids[POSSIBLE], row_ids=torch.zeros(int(POSSIBLE.sum())).long())
    for order in ORDERS:
        probs = _nats(OrderLikelihood(order=order), model, batch).neg().exp()
        assert float(probs.sum()) == pytest.approx(1.0, abs=1e-5)  # of one row's noise
        assert float((probs - LANGUAGE.law[POSSIBLE]).abs().max()) < 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": "random"}, "The order is 'random'; an exact likelihood needs a deterministic one: left, confidence"),
        ({"per_step": 0}, "OrderLikelihood.per_step is 0; it must be at least 1."),
        ({"block_size": -1}, "OrderLikelihood.block_size is -1; it must be at least 0."),
    ],
)
def test_what_has_no_exact_likelihood_is_refused(settings, message):
    with pytest.raises(UserError) as error:
        OrderLikelihood(**settings)
    assert str(error.value).startswith(message)
