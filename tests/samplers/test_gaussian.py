"""What all Gaussian samplers share, with the ideal denoiser of a small language."""

from dataclasses import replace

import pytest
import torch

from tests.exact.language import Language, ideal_gaussian, tables
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.curve_densities import GumbelDensity
from textdiffusion.diffusion.sigma_schedules import CosineSigma, LinearBeta, SqrtSigma
from textdiffusion.guidance.logits import Temperature
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.ddim import DDIM
from textdiffusion.samplers.dpm_solver import DPMSolver
from textdiffusion.samplers.heun import Heun
from textdiffusion.samplers.time_grids import Exponential, Karras, Learned, Tuned, load_grid, save_grid, tuned_times

LANGUAGE = Language.random(vocab_size=3, length=3)
MODEL = ideal_gaussian(LANGUAGE, tables(3)["bits"], density=GumbelDensity(0.33, 0.083, 1.1))
ROWS = 4


def _run(sampler, steps=30, guides=(), rows=None):
    numbers = torch.arange(ROWS) if rows is None else torch.tensor(rows)
    request = Request.blank(len(numbers), 3, steps, guides)
    with torch.no_grad():
        return list(sampler(MODEL, request, rng=Rng.of(0, numbers)))


EVERY = [DDIM(patience=2), DDIM(eta=1.0, patience=2), DPMSolver(patience=2)]
EVERY += [Heun(patience=2, s_churn=5.0), DDIM(patience=2, s_churn=5.0, churn_entropy=0.2)]


@pytest.mark.parametrize(
    ("sampler", "guides"),
    [*((sampler, ()) for sampler in EVERY), (EVERY[0], (Temperature(0.9),))],
    ids=["DDIM", "DDPM", "2M", "churn", "gate", "guided"],
)
def test_early_exit_ends_rows_one_by_one(sampler, guides):
    """A row ends as it would alone; what it saves is counted; the tokens are those of all steps."""
    early = _run(sampler, guides=guides)
    whole = _run(replace(sampler, patience=10_000), guides=guides)
    assert early[-1].index == early[-1].total == 30
    assert early[-1].t == 0.0
    assert len(early) < len(whole) == 31
    assert early[-1].nfe < whole[-1].nfe
    alone = [_run(sampler, guides=guides, rows=[row])[-1] for row in range(ROWS)]
    assert torch.equal(early[-1].tokens, torch.cat([step.tokens for step in alone]))
    calls = [step.nfe for step in alone]
    assert early[-1].nfe == pytest.approx(sum(calls) / ROWS)
    assert len(set(calls)) > 1


@pytest.mark.parametrize("sampler", [DDIM(), DDIM(eta=1.0), DPMSolver(), DPMSolver(eta=1.0), Heun()])
@pytest.mark.parametrize("schedule", [CosineSigma, SqrtSigma, LinearBeta])
def test_a_cut_schedule_may_stand_still(sampler, schedule):
    """Its range is a part of the curve's: below t = 0.2 all levels are the lowest, and above 0.9 the highest."""
    whole = schedule(1e-3, 1e3)
    low, high = (float(whole.sigma(torch.tensor(t))) for t in (0.2, 0.9))
    model = ideal_gaussian(LANGUAGE, tables(3)["bits"], schedule(low, high))
    levels = model.process.sigma(torch.linspace(0, 1, 31))
    assert min(int((levels == level).sum()) for level in (levels[0], levels[-1])) > 2
    with torch.no_grad():
        steps = list(sampler(model, Request.blank(ROWS, 3, 30), rng=Rng.of(0, ROWS)))
    assert all(torch.isfinite(step.state).all() for step in steps)


def test_early_exit_that_does_not_fire_changes_nothing():
    for plain, waiting in zip(_run(DPMSolver(eta=1.0)), _run(DPMSolver(eta=1.0, patience=31)), strict=True):
        assert torch.equal(plain.tokens, waiting.tokens)
        assert torch.equal(plain.state, waiting.state)
        assert (plain.index, plain.t, plain.nfe) == (waiting.index, waiting.t, waiting.nfe)


def test_calls_are_counted():
    assert [step.nfe for step in _run(Heun(), 4)] == [0, 2, 4, 6, 7]
    assert [step.nfe for step in _run(DPMSolver(), 4)] == [0, 1, 2, 3, 4]


def test_temperature_of_the_score_divides_it():
    x, cold = _run(DDIM(), 9), _run(DDIM(score_temperature=0.8), 9)
    slope, steeper = (steps[1].state - steps[0].state for steps in (x, cold))
    torch.testing.assert_close(steeper, slope / 0.8)


def test_the_first_noise_is_scaled():
    torch.testing.assert_close(_run(Heun(init_noise_scale=0.9), 2)[0].state, 0.9 * _run(Heun(), 2)[0].state)


def test_the_multistep_solver_begins_as_euler_and_then_knows_more():
    euler, solver = _run(DDIM(), 12), _run(DPMSolver(), 12)
    torch.testing.assert_close(euler[1].state, solver[1].state)
    assert not torch.allclose(euler[2].state, solver[2].state)
    torch.testing.assert_close(_run(DPMSolver(eta=1e-6), 12)[-1].state, solver[-1].state, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("grid", [Learned(), Karras(), Exponential(), Tuned()])
def test_grids_rise_from_clean_to_noise(grid):
    MODEL.tuned = tuned_times(torch.linspace(-3.0, 3.0, 9), torch.linspace(0.0, 1.0, 9), torch.linspace(0.0, 1.0, 9))
    shares = torch.linspace(0.0, 1.0, 41)
    times = grid.curve(MODEL)(shares)
    MODEL.tuned = None
    assert times[[0, -1]].tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    assert bool((times.diff() > 0).all())
    sigma = MODEL.process.sigma(times).double()
    even = {Karras(): sigma ** (1 / 7), Exponential(): sigma.log(), Tuned(): sigma.log()}.get(grid)
    if even is not None:
        torch.testing.assert_close(even.diff(), even.diff().mean().expand(40), rtol=1e-3, atol=0)


def test_a_tuned_grid_stands_where_the_loss_changes(tmp_path):
    log_sigma, t = torch.linspace(-3.0, 3.0, 61), torch.linspace(0.0, 1.0, 61)
    nats = torch.sigmoid(8.0 * log_sigma) + 0.01 * torch.sin(40.0 * t)  # measured, so it falls here and there
    times = tuned_times(log_sigma, t, nats)
    assert bool((times.diff() >= 0).all())
    assert float(times.min()) == 0.0
    assert float(times.max()) == 1.0
    rise = torch.sigmoid(8.0 * (6.0 * times - 3.0)).diff()
    assert float(rise.max()) < 2.5 / len(rise)  # no step passes over much of the loss
    assert float(((times > 0.4) & (times < 0.6)).float().mean()) > 0.75
    save_grid(times, tmp_path / "grid.json")
    torch.testing.assert_close(load_grid(tmp_path / "grid.json"), times, rtol=0, atol=1e-6)
    assert load_grid(tmp_path / "none.json") is None
    for bad in ("{}", '{"t": null}', '{"t": [0, 0.6, 0.5, 1]}', '{"t": [0, 0.5]}'):
        (tmp_path / "bad.json").write_text(bad)
        with pytest.raises(UserError, match="not a valid tuned grid"):
            load_grid(tmp_path / "bad.json")
    with pytest.raises(UserError, match="textdiffusion tune"):
        _run(DDIM(grid=Tuned()), 3)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"rho": 0.0}, Karras, r"rho is 0; it must be in \[0.1, 100\]"),
        ({"churn_entropy": 0.5}, Heun, "churn_entropy=0.5 has no effect without sampler.s_churn"),
        ({"churn_entropy": 0.5}, DDIM, "churn_entropy=0.5 has no effect without sampler.s_churn"),
        ({"s_churn": -1.0}, DDIM, "s_churn is -1; it must be at least 0"),
        ({"eta": -1.0}, DPMSolver, "eta is -1; it must be at least 0"),
        ({"score_temperature": 0.0}, DPMSolver, r"score_temperature is 0; it must be in \[0.1, 10\]"),
        ({"init_noise_scale": 3.0}, DPMSolver, r"init_noise_scale is 3; it must be in \[0, 2\]"),
        ({"patience": -1}, Heun, "patience is -1; it must be at least 0"),
    ],
)
def test_settings_that_say_nothing_are_refused(settings, kind, message):
    with pytest.raises(UserError, match=message):
        kind(**settings)
