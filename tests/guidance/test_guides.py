"""What guides do to predictions and states."""

import pytest
import torch

from tests.models import model_of
from textdiffusion import recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.gaussian import GaussianProcess
from textdiffusion.diffusion.prediction import Prediction
from textdiffusion.diffusion.sigma_schedules import LogSigma
from textdiffusion.diffusion.table_codecs import TableCodec, bits
from textdiffusion.guidance.classifier import EnergyGradient
from textdiffusion.guidance.logits import AllowedTokens, Temperature, TopKTopP
from textdiffusion.guidance.replacement import Replacement
from textdiffusion.samplers.base import Request

B, L, V = 4, 3, 5
LOGITS = torch.randn(B, L, V, generator=torch.Generator().manual_seed(0))
CODEC = TableCodec(bits(V))
REQUEST = Request.blank(B, L, 4)
PROCESS = GaussianProcess(LogSigma(0.1, 10.0))


class Fixed:
    """A denoiser that always says the same."""

    time_independent = True
    self_conditioning = False

    def __call__(self, xt, t, *, batch, self_cond=None):
        return Prediction(LOGITS, CODEC.table())


def _said(*guides, batch=None):
    denoiser = Fixed()
    for guide in guides:
        denoiser = guide.wrap(denoiser, REQUEST)
    assert denoiser.time_independent
    batch = Batch(torch.zeros(B, L, dtype=torch.long)) if batch is None else batch
    return denoiser(torch.zeros(B, L, 3), torch.ones(B), batch=batch)


def _without(*tokens):
    return AllowedTokens(torch.tensor([[token not in tokens for token in range(V)]]))


def test_temperature_sharpens_below_one_and_flattens_above():
    plain = Prediction(LOGITS, CODEC.table())
    same = _said(Temperature(1.0))
    torch.testing.assert_close(same.probs, plain.probs)
    torch.testing.assert_close(same.mean, plain.mean)
    torch.testing.assert_close(_said(Temperature(0.5)).probs, (2 * LOGITS).softmax(-1))
    entropies = [float(torch.special.entr(_said(Temperature(t)).probs).sum()) for t in (0.1, 0.5, 1.0, 2.0, 10.0)]
    assert entropies == sorted(entropies)
    torch.testing.assert_close(_said(Temperature(0.5), Temperature(2.0)).probs, plain.probs)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperatures_that_mean_nothing_are_refused(temperature):
    with pytest.raises(UserError, match="must be above 0"):
        Temperature(temperature)


def test_barred_tokens_have_probability_zero_and_the_rest_keep_their_ratios():
    probs, plain = _said(_without(1, 4)).probs, LOGITS.softmax(-1)
    assert bool((probs[..., [1, 4]] == 0).all())
    kept = plain[..., [0, 2, 3]]
    torch.testing.assert_close(probs[..., [0, 2, 3]], kept / kept.sum(-1, keepdim=True))


@pytest.mark.parametrize(("top_k", "top_p"), [(2, 1.0), (0, 0.6), (3, 0.7), (9, 1.0), (0, 1e-9)])
def test_truncation_keeps_the_likeliest_and_their_ratios(top_k, top_p):
    probs, plain = _said(TopKTopP(top_k, top_p)).probs, LOGITS.softmax(-1)
    for new, old in zip(probs.flatten(0, 1), plain.flatten(0, 1), strict=True):
        turns = old.argsort(descending=True)[: top_k or V]
        ordered = old[turns] / old[turns].sum()
        kept = turns[: int((ordered.cumsum(0) < top_p).sum()) + 1]  # the fewest that reach top_p
        torch.testing.assert_close(new, torch.zeros(V).scatter(0, kept, old[kept] / old[kept].sum()))


@pytest.mark.parametrize(("top_k", "top_p"), [(-1, 1.0), (0, 0.0), (0, 1.1), (0, float("nan"))])
def test_truncations_that_mean_nothing_are_refused(top_k, top_p):
    with pytest.raises(UserError, match="it must be"):
        TopKTopP(top_k, top_p)


def test_each_position_holds_what_its_kind_of_gap_may():
    allowed = torch.rand(3, V, generator=torch.Generator().manual_seed(2)) > 0.4
    holds = torch.randint(3, (B, L), generator=torch.Generator().manual_seed(3))
    probs = _said(AllowedTokens(allowed), batch=Batch(torch.zeros(B, L, dtype=torch.long), allowed_set_ids=holds)).probs
    assert torch.equal(probs > 0, allowed[holds])


def test_given_tokens_are_certain_and_carry_their_own_noise():
    ids = torch.randint(V, (B, L), generator=torch.Generator().manual_seed(1))
    known = torch.zeros(B, L, dtype=torch.bool)
    known[:, 1] = True
    batch, model = Batch(ids, replace_mask=known), _model("softmax")
    model.codec, model.process = CODEC, PROCESS
    guide = Replacement(model)
    said = _said(guide, batch=batch)
    torch.testing.assert_close(said.mean[:, 1], CODEC.encode(ids)[:, 1])
    torch.testing.assert_close(said.mean[:, [0, 2]], Prediction(LOGITS, CODEC.table()).mean[:, [0, 2]])
    s, xs, rng = torch.full((B,), 0.5), torch.randn(B, L, 3), Rng.of(0, B)
    after = guide.after_step(xs, s, batch=batch, rng=rng)
    assert torch.equal(after[:, [0, 2]], xs[:, [0, 2]])
    assert torch.equal(after[:, 1], PROCESS.add_noise(CODEC.encode(ids), s, rng=rng.fork("given"))[:, 1])
    # Certainty survives other guides.
    torch.testing.assert_close(_said(guide, Temperature(5.0), batch=batch).mean[:, 1], CODEC.encode(ids)[:, 1])


NATIVE = {
    "regression": ("diffusion_lm",),
    "preconditioned": ("mini_cdcd", "denoiser.output_head.mean_from_logits=false"),
    "bits": ("analog_bits", "denoiser.output_head.kind=bit_logits"),
    "softmax": ("cdcd",),
}


def _model(kind):
    torch.manual_seed(0)
    recipe, *settings = NATIVE[kind]
    model = model_of(apply_overrides(recipes.get(recipe)(), ["backbone.width=64", "backbone.depth=1", *settings]), V)
    for p in model.denoiser.parameters():
        p.data += 0.1 * torch.randn(p.shape)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("kind", NATIVE)
def test_guides_that_change_nothing_leave_every_step_as_it_is(kind):
    """A regressed state is not the mean of the tokens that are read from it."""
    model = _model(kind)

    def states(*guides):
        nothing = Batch(torch.zeros(B, L, dtype=torch.long), replace_mask=torch.zeros(B, L, dtype=torch.bool))
        steps = model.sampler(model, Request(nothing, 4, guides), rng=Rng.of(0, B))
        return torch.stack([step.state for step in steps])

    plain = states()
    for guide in (Temperature(1.0), Replacement(model), _without(), TopKTopP(V)):
        assert torch.equal(states(guide), plain)


@pytest.mark.parametrize("kind", NATIVE)
def test_a_mean_of_ones_own_moves_as_that_of_the_tokens_does(kind):
    model = _model(kind)
    x, t, batch = torch.randn(B, L, model.codec.dim), torch.full((B,), 0.5), Batch(torch.zeros(B, L, dtype=torch.long))
    table, plain = model.codec.table(), model.denoiser(x, t, batch=batch)
    own = plain.mean - plain.probs @ table
    assert (float(own.abs().max()) > 1e-3) == (kind != "softmax")
    for guide in (Temperature(0.5), Temperature(0.999), _without(1), TopKTopP(3)):
        said = guide.wrap(model.denoiser, REQUEST)(x, t, batch=batch)
        torch.testing.assert_close(said.mean, said.probs @ table + own)
    batch = Batch(torch.ones(B, L, dtype=torch.long), replace_mask=torch.tensor([False, True, False]).expand(B, L))
    known = Replacement(model).wrap(model.denoiser, REQUEST)
    for wrapped in (known, Temperature(5.0).wrap(known, REQUEST)):
        torch.testing.assert_close(wrapped(x, t, batch=batch).mean[:, 1], model.codec.encode(batch.tokens)[:, 1])
    assert torch.equal(known(x, t, batch=batch).mean[:, [0, 2]], plain.mean[:, [0, 2]])


def test_fluency_holds_the_state_and_the_judge_is_told_where_the_step_ended():
    """At no fluency the judge alone moves the state, and at much of it it hardly may."""
    xs, s, told = torch.randn(B, L, 3), torch.linspace(0.3, 0.8, B), []
    batch = Batch(torch.zeros(B, L, dtype=torch.long))

    def judge(x, t, seen):
        told.append((t, seen))
        return x.sum((1, 2))

    moved = []
    for fluency in (0.0, 0.1, 1.0, 10.0, 100.0):
        guide = EnergyGradient(judge, PROCESS, 0.1, CODEC.scale, fluency, updates=20)
        moved.append((guide.after_step(xs, s, batch=batch, rng=Rng.of(0, B)) - xs).square().sum((1, 2)))
    assert bool((torch.stack(moved).diff(dim=0) < 0).all())
    assert len(told) == 5 * 20
    assert all(torch.equal(t, s) and seen is batch for t, seen in told)
