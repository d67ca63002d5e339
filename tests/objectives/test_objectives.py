"""What the objectives draw, feed and count. That their values are right is shown in tests/exact."""

import math

import pytest
import torch
from torch import nn

from tests.models import model_of
from textdiffusion import recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.curve_densities import GumbelDensity
from textdiffusion.diffusion.densities import UniformDensity
from textdiffusion.diffusion.discrete_betas import DiscreteBetaSchedule
from textdiffusion.objectives.embedding_losses import DiffusionLM, MSEWithCrossEntropy, ScoreInterpolation
from textdiffusion.objectives.noised_batch import density_fit, every_nth_row, noise_batch

VOCAB, LENGTH = 9, 10


def _model(name, variant="default", *settings):
    torch.manual_seed(0)
    model = model_of(
        apply_overrides(recipes.get(name)(variant), ["backbone.width=64", "backbone.depth=2", *settings]), VOCAB
    )
    draw = torch.Generator().manual_seed(1)
    for p in model.denoiser.parameters():
        if p.requires_grad and bool((p == 0).all()):
            p.data = torch.randn(p.shape, generator=draw) * 0.05
    return model


def _batch(rows, **masks):
    draw = torch.Generator().manual_seed(3)
    return Batch(torch.randint(VOCAB, (rows, LENGTH), generator=draw), **masks)


class Spy(nn.Module):
    """A denoiser that remembers what it was called with."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser, self.time_independent, self.calls = denoiser, denoiser.time_independent, []
        self.self_conditioning = denoiser.self_conditioning

    def forward(self, xt, t, *, batch, self_cond=None):
        self.calls.append((xt, t, batch, self_cond))
        return self.denoiser(xt, t, batch=batch, self_cond=self_cond)


@pytest.mark.parametrize("name", recipes.names())
def test_the_loss_of_a_batch_is_the_mean_of_the_losses_of_its_parts(name):
    """So accumulation and ranks change nothing: rows carry their number, and the batch how many there are."""
    model, batch = _model(name), _batch(12)
    whole = model.objective(model, batch, rng=Rng.of(0, 12).fork(5))
    parts = []
    for rows in (torch.arange(0, 4), torch.arange(4, 8), torch.arange(8, 12)):
        part = Batch(batch.tokens[rows], row_ids=rows, global_batch_size=12)
        parts.append(model.objective(model, part, rng=Rng.of(0, rows).fork(5)).total)
    torch.testing.assert_close(torch.stack(parts).mean(), whole.total, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", recipes.names())
def test_a_likelihood_row_does_not_depend_on_its_batch(name):
    model, batch = _model(name).eval(), _batch(8)
    with torch.no_grad():
        whole = model.likelihood(model, batch, rng=Rng.of(0, 8))
        rows = torch.tensor([1, 6])
        part = model.likelihood(
            model, Batch(batch.tokens[rows], row_ids=rows, global_batch_size=8), rng=Rng.of(0, rows)
        )
    torch.testing.assert_close(part, whole[rows], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", recipes.names())
def test_one_row_alone_can_be_learned_from(name):
    model = _model(name)
    for step in range(4):
        loss = model.objective(model, _batch(1), rng=Rng.of(0, 1).fork(step)).total
        loss.backward()
        assert bool(torch.isfinite(loss))


@pytest.mark.parametrize("name", recipes.names())
def test_every_parameter_has_a_gradient_whatever_was_drawn(name):
    """Ranks wait for the gradients of all parameters, so none may depend on there being given or chosen rows."""
    for rows, masks in ((1, {}), (4, {"condition_mask": torch.ones(4, LENGTH, dtype=torch.bool)})):
        model = _model(name)
        model.objective(model, _batch(rows, **masks), rng=Rng.of(0, rows)).total.backward()
        missing = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not missing


@pytest.mark.parametrize("name", recipes.names())
def test_a_row_without_anything_to_predict_costs_nothing(name):
    model = _model(name)
    given = torch.zeros(4, LENGTH, dtype=torch.bool)
    given[1] = True
    batch = _batch(4, condition_mask=given)
    loss = model.objective(model, batch, rng=Rng.of(0, 4)).total
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        nats = model.likelihood(model, batch, rng=Rng.of(0, 4))
    assert float(nats[1]) == 0.0
    assert bool((nats[[0, 2, 3]] >= 0).all())  # a row may happen to have no noise
    assert float(nats.sum()) > 0


@pytest.mark.parametrize("name", ["mdlm", "sedd", "udlm", "d3pm", "cdcd"])
def test_given_and_padded_positions_are_never_noised(name):
    model = _model(name)
    model.denoiser = Spy(model.denoiser)
    draw = torch.Generator().manual_seed(0)
    given, real = (torch.rand(64, LENGTH, generator=draw) < p for p in (0.3, 0.8))
    batch = _batch(64, condition_mask=given, valid_mask=real)
    model.objective(model, batch, rng=Rng.of(0, 64))
    with torch.no_grad():
        model.likelihood(model, batch, rng=Rng.of(0, 64))
        clean = model.codec.encode(batch.tokens)
    assert len(model.denoiser.calls) >= 2
    for xt, _, seen, _ in model.denoiser.calls:
        if len(xt) == 64:
            same = xt == clean if xt.ndim == 2 else (xt == clean).all(-1)
            assert bool(same[~batch.target_mask].all())
            assert bool((~same[batch.target_mask]).any())
        assert seen.condition_mask is not None


@pytest.mark.parametrize(
    "settings",
    [
        *((name,) for name in recipes.names()),
        ("sedd", "uniform"),
        ("udlm", "duo"),
        (
            "plaid",
            "default",
            "process.schedule.sigma_min=5",
        ),  # a token decoded at little noise costs nothing, padding or not
    ],
    ids=" ".join,
)
def test_what_lies_under_padding_changes_no_loss(settings):
    model, batch = _model(*settings), _batch(16)
    real = torch.arange(LENGTH) < torch.tensor([5, 7, 8, 9])[torch.arange(16) % 4, None]
    others = torch.where(real, batch.tokens, (batch.tokens + 4) % VOCAB)
    one, other = (
        model.objective(model, Batch(ids, valid_mask=real), rng=Rng.of(0, 16)) for ids in (batch.tokens, others)
    )
    torch.testing.assert_close(other.total, one.total)
    torch.testing.assert_close(other.parts, one.parts)


def test_every_nth_row_is_fair_and_half_of_any_batch():
    selected = torch.stack([every_nth_row(Rng.of(0, 6).fork(i)) for i in range(400)])
    assert selected.sum(1).tolist() == [3] * 400
    assert bool(((selected.float().mean(0) - 0.5).abs() < 0.1).all())
    part = every_nth_row(Rng.of(0, torch.tensor([4, 5])).fork(7))
    assert torch.equal(part, selected[7][4:])


def test_half_of_the_rows_see_the_first_estimate():
    model = _model("cdcd")
    model.denoiser = Spy(model.denoiser)
    model.objective(model, _batch(8), rng=Rng.of(0, 8))
    first, second = model.denoiser.calls
    chosen = every_nth_row(Rng.of(0, 8).fork("self-conditioning"))
    assert first[3] is None
    assert torch.equal(first[0], second[0][chosen])
    fed = second[3].abs().sum((1, 2)) > 0
    assert torch.equal(fed, chosen)
    assert not second[3].requires_grad
    with torch.no_grad():
        estimate = model.denoiser.denoiser(first[0], first[1], batch=first[2]).mean
    torch.testing.assert_close(second[3][chosen], estimate)


def test_two_passes_of_the_likelihood():
    model = _model("cdcd").eval()
    model.denoiser = Spy(model.denoiser)
    with torch.no_grad():
        model.likelihood(model, _batch(8), rng=Rng.of(0, 8))
    first, second = model.denoiser.calls
    assert torch.equal(first[0], second[0])
    assert first[3] is None
    assert second[3].shape == first[0].shape


def test_learned_embeddings_and_the_density_get_gradients():
    model = _model("cdcd")
    model.objective(model, _batch(16), rng=Rng.of(0, 16)).total.backward()
    assert float(model.codec.weight.grad.abs().sum()) > 0
    assert float(model.time_density.fit.grad.abs().sum()) > 0


def test_anchored_squares_are_both_terms_of_one_prediction():
    for name in ("difformer", "simple_diffusion_lm"):
        model, batch = _model(name), _batch(8)
        drawn = noise_batch(model, batch, rng=Rng.of(0, 8))
        squares = (drawn.prediction.x0_estimate - drawn.x0).square().mean()
        nats = drawn.prediction.nll(batch.tokens, batch.target_mask).mean()
        loss = MSEWithCrossEntropy(0.5, 2.0)(model, batch, rng=Rng.of(0, 8))
        torch.testing.assert_close(loss.total - loss.parts["density_fit"], 0.5 * squares + 2.0 * nats)
        torch.testing.assert_close(loss.parts["squared_error"], squares)


def test_the_anchor_holds_the_regressed_state():
    """Cross-entropy alone moves the map to the clean state: tokens are read from what it gives, and from it alone."""
    model = _model("difformer")
    MSEWithCrossEntropy(mse_weight=0.0)(model, _batch(8), rng=Rng.of(0, 8)).total.backward()
    assert float(model.denoiser.output_head.output.weight.grad.abs().sum()) > 0


def test_embeddings_shrink_only_as_moving_targets():
    """Predictions are zero at the start. A target that goes to meet them shrinks; one that stays is left alone."""
    for moving in (False, True):
        model = model_of(recipes.get("difformer")(), VOCAB)
        MSEWithCrossEntropy(ce_weight=0.0, grad_to_targets=moving)(model, _batch(8), rng=Rng.of(0, 8)).total.backward()
        assert bool((model.codec.gain.grad > 0.01).all()) == moving
        if not moving:
            torch.testing.assert_close(model.codec.gain.grad, torch.zeros(model.codec.dim), atol=1e-6, rtol=0)


def _uneven(share):
    model = _model("cdcd")
    model.objective = ScoreInterpolation(share)
    return model


def test_uneven_rows_have_a_noise_level_for_each_position():
    model, rows = _uneven(0.5), 64
    model.denoiser = Spy(model.denoiser)
    model.objective(model, _batch(rows), rng=Rng.of(0, rows))
    x, t, batch, _ = model.denoiser.calls[-1]
    uneven = (t != t[:, :1]).any(1)
    assert 16 < int(uneven.sum()) < 48
    assert len(t[uneven].unique()) == LENGTH * int(uneven.sum())
    z = (x - model.codec.encode(batch.tokens)) / model.process.sigma(t)[..., None]
    torch.testing.assert_close(z[uneven].std(), torch.ones(()), rtol=0.03, atol=0)
    # Even rows are those of a run without uneven ones.
    plain = _uneven(0.0)
    plain.denoiser = Spy(plain.denoiser)
    plain.objective(plain, _batch(rows), rng=Rng.of(0, rows))
    torch.testing.assert_close(x[~uneven], plain.denoiser.calls[-1][0][~uneven])


def test_uneven_rows_add_up_as_others_do_and_teach_the_density_nothing():
    model, batch = _uneven(0.5), _batch(12)
    whole = model.objective(model, batch, rng=Rng.of(0, 12))
    parts = [
        model.objective(model, Batch(batch.tokens[rows], row_ids=rows, global_batch_size=12), rng=Rng.of(0, rows)).total
        for rows in torch.arange(12).split(3)
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), whole.total, rtol=1e-5, atol=1e-6)
    only = _uneven(1.0)
    assert float(only.objective(only, batch, rng=Rng.of(0, 12)).parts["density_fit"]) == 0.0


@pytest.mark.parametrize("name", ["cdcd", "plaid", "analog_bits", "difformer", "diffusion_lm"])
def test_a_fit_of_the_density_that_is_no_number_leaves_the_loss_as_it_is(name):
    model, batch = _model(name), _batch(8)
    model.time_density.fitting_loss = lambda t, nats: torch.zeros_like(nats)
    without = model.objective(model, batch, rng=Rng.of(0, 8)).total
    model.time_density.fitting_loss = lambda t, nats: torch.full_like(nats, math.inf)
    assert torch.equal(model.objective(model, batch, rng=Rng.of(0, 8)).total, without)


@pytest.mark.parametrize("bad", ["nats", "weight"])
def test_rows_whose_fit_is_no_number_leave_the_others_their_gradient(bad):
    t, nats, where = torch.tensor([0.1, 0.3, 0.5, 0.7]), torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1, 0, 1, 1])

    def gradient(t, nats, where):
        model = _model("cdcd")
        model.time_density = GumbelDensity(0.4, 0.1, 2.0, uniform_mix=0.0)
        fit = density_fit(model, t, nats, where.bool())
        return [fit.detach(), *torch.autograd.grad(fit, model.time_density.fit)]

    expected = gradient(t[2:], nats[2:], where[2:])
    if bad == "nats":
        nats[:2] = torch.tensor([math.inf, math.nan])
    else:
        t[:2] = -0.2  # a density of 0 there
        assert bool(torch.isinf(GumbelDensity(0.4, 0.1, 2.0, uniform_mix=0.0).fitting_loss(t, nats)[:2]).all())
    torch.testing.assert_close(gradient(t, nats, where), [value / 2 for value in expected])


@pytest.mark.parametrize("settings", [[], ["objective.steps=0"]])
@pytest.mark.parametrize("variant", ["default", "uniform"])
def test_a_hybrid_loss_runs_the_output_head_once(variant, settings):
    config = apply_overrides(recipes.get("d3pm")(variant), ["backbone.width=64", "backbone.depth=1", *settings])
    model, calls = model_of(apply_overrides(config, ["objective.cross_entropy=1"]), VOCAB), []
    model.denoiser.head.register_forward_hook(lambda *_: calls.append(1))
    loss = model.objective(model, _batch(4), rng=Rng.of(0, 4))
    assert set(loss.parts) == {"bound", "cross_entropy"}
    assert len(calls) == 1


def test_squared_error_is_of_the_mean_at_noised_positions():
    model = model_of(
        apply_overrides(recipes.get("cdcd")(), ["objective.kind=squared_error", "codec.learned=false"]), VOCAB
    )
    model.denoiser = Spy(model.denoiser)
    draw = torch.Generator().manual_seed(0)
    batch = _batch(8, condition_mask=torch.rand(8, LENGTH, generator=draw) < 0.3)
    loss = model.objective(model, batch, rng=Rng.of(0, 8))
    xt, t, _, estimate = model.denoiser.calls[-1]
    mean, x0 = model.denoiser.denoiser(xt, t, batch=batch, self_cond=estimate).mean, model.codec.encode(batch.tokens)
    rows = [(mean[i] - x0[i])[batch.target_mask[i]].square().mean() for i in range(8)]
    torch.testing.assert_close(loss.parts["squared_error"], torch.stack(rows).mean().detach())
    torch.testing.assert_close(loss.total, loss.parts["squared_error"] + loss.parts["density_fit"])
    loss.total.backward()
    assert float(model.time_density.fit.grad.abs().sum()) > 0


def _diffusion_lm(t, rows=64, **weights):
    """The objective at one noise level: its loss, and what the network saw and said."""
    model = _model("diffusion_lm")
    model.objective = DiffusionLM(**weights)
    model.time_density = At(t)
    model.denoiser = Spy(model.denoiser)
    batch = _batch(rows)
    loss = model.objective(model, batch, rng=Rng.of(0, rows))
    xt, at, _, _ = model.denoiser.calls[0]
    mean = model.denoiser.denoiser(xt, at, batch=batch).mean
    return model, batch, loss, xt, at, mean


class At(UniformDensity):
    """Every draw is the same t, with a density of 2 there."""

    def __init__(self, t):
        super().__init__()
        self.t = t

    def icdf(self, u):
        return torch.full_like(u, self.t)

    def log_prob(self, t):
        return torch.full_like(t, math.log(2.0))


def test_diffusion_lm_regresses_the_embedding_at_the_first_noise_level():
    model, batch, loss, xt, at, mean = _diffusion_lm(1e-4)
    assert bool((at == 0).all())
    x0 = model.codec.encode(batch.tokens)
    torch.testing.assert_close(loss.parts["squared_error"], (mean - x0).square().mean().detach())
    # Tokens are read from the very state the network sees.
    logits = model.denoiser.denoiser.output_head.rounding(xt.flatten(0, 1))
    torch.testing.assert_close(
        loss.parts["rounding"], torch.nn.functional.cross_entropy(logits, batch.tokens.flatten()).detach()
    )


@pytest.mark.parametrize("t", [0.3, 0.999])
def test_diffusion_lm_regresses_the_noisy_start_elsewhere(t):
    """start lies between the embedding and x_t: its squared error is that of x0 plus the noise of t = 0 about x0."""
    model, batch, loss, _, at, mean = _diffusion_lm(t, rows=512)
    assert float((at * 1999).round()[0]) == pytest.approx(float(at[0]) * 1999, abs=1e-3)  # on the grid
    x0 = model.codec.encode(batch.tokens)
    sigma = float(model.process.sigma(torch.zeros(())))
    expected = float((mean - x0).detach().square().mean()) + sigma**2
    assert float(loss.parts["squared_error"]) == pytest.approx(expected, rel=0.03)
    last = float(model.process.sigma(torch.ones(())))
    prior = (float(x0.detach().square().mean()) + sigma**2) / (1 + last**2)
    assert float(loss.parts["prior"]) == pytest.approx(prior, rel=0.02)


def test_diffusion_lm_weighs_its_terms_and_its_draws():
    parts = _diffusion_lm(0.3)[2].parts
    for weights in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 2.0, 3.0)):
        loss = _diffusion_lm(0.3, mse_weight=weights[0], rounding_weight=weights[1], prior_weight=weights[2])[2]
        expected = sum(w * parts[name] for w, name in zip(weights, ("squared_error", "rounding", "prior"), strict=True))
        torch.testing.assert_close(loss.total, expected / 2)


def test_diffusion_lm_moves_embeddings_by_every_term():
    names = ("mse_weight", "rounding_weight", "prior_weight")
    for name in names:
        model, _, loss, *_ = _diffusion_lm(0.3, **{other: 0.0 for other in names if other != name})
        loss.total.backward()
        assert float(model.codec.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("std", [0.1, 1.0])
def test_what_the_prior_counts_does_not_depend_on_the_unit_of_embeddings(std):
    """|sqrt(abar_T) start|^2 in squared units of the state, with the abar_T of the betas."""
    model = model_of(apply_overrides(recipes.get("diffusion_lm")(), [f"codec.init_std={std}"]), VOCAB)
    batch = _batch(256)
    prior = model.objective(model, batch, rng=Rng.of(0, 256)).parts["prior"]
    grid, x0 = DiscreteBetaSchedule("sqrt", 2000), model.codec.encode(batch.tokens).detach()
    first, last = (float(grid.sigma(torch.tensor(t))) for t in (0.0, 1.0))
    expected = (x0.square().mean() + (std * first) ** 2) / (1 + last**2)
    torch.testing.assert_close(prior, expected, rtol=0.02, atol=0.0)
