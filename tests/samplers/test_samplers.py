"""Every pair that is declared compatible runs; every other is refused with a sentence."""

import inspect
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch

from tests.models import model_of
from textdiffusion import recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.gaussian import GaussianProcess
from textdiffusion.diffusion.prediction import Prediction, one_hot_logits
from textdiffusion.guidance.cfg import ClassifierFree
from textdiffusion.guidance.logits import AllowedTokens, Temperature
from textdiffusion.guidance.replacement import Replacement
from textdiffusion.samplers.ancestral import Ancestral, Euler
from textdiffusion.samplers.autoregressive import Autoregressive
from textdiffusion.samplers.base import Guide, LogitsGuide, Request, Sampler, Step, WrappedDenoiser, check_compatible
from textdiffusion.samplers.ddim import DDIM
from textdiffusion.samplers.first_hitting import FirstHitting
from textdiffusion.samplers.remasking import Confidence, PathPlanning, ReMDM

VOCAB, LENGTH, ROWS = 9, 6, 3


def _model(name, *settings):
    torch.manual_seed(0)
    model = model_of(apply_overrides(recipes.get(name)(), ["backbone.width=64", "backbone.depth=1", *settings]), VOCAB)
    draw = torch.Generator().manual_seed(1)
    for p in model.denoiser.parameters():
        if p.requires_grad and bool((p == 0).all()):
            p.data = torch.randn(p.shape, generator=draw) * 0.1
    return model.eval()


MODELS = {name: _model(name) for name in recipes.names()}
SAMPLERS = Sampler.choices()
GIVEN = torch.tensor([[True, False, False, True, False, False]]).expand(ROWS, LENGTH)
TEXT = torch.arange(ROWS * LENGTH).view(ROWS, LENGTH) % VOCAB


def _guides(model):
    """One of every guide there is."""
    made: list[Guide] = [
        Temperature(0.7),
        AllowedTokens(~torch.isin(torch.arange(VOCAB), torch.tensor([2, 5]))[None]),
        Replacement(model, n_resample=2, jump_length=2),
    ]
    return {type(guide).__name__: guide for guide in made}


def _steps(sampler):
    return LENGTH if isinstance(sampler, Autoregressive | FirstHitting) else 5


def _run(model, sampler, guides=(), batch=None, seed=0):
    batch = Batch(torch.zeros(ROWS, LENGTH, dtype=torch.long)) if batch is None else batch
    with torch.no_grad():
        return list(sampler(model, Request(batch, _steps(sampler), guides), rng=Rng.of(seed, len(batch.tokens))))


@pytest.mark.parametrize("guide_name", ["none", "Temperature", "AllowedTokens", "Replacement"])
@pytest.mark.parametrize("sampler_name", SAMPLERS)
@pytest.mark.parametrize("name", MODELS)
def test_every_declared_pair_runs_and_every_other_is_refused(name, sampler_name, guide_name):
    model, sampler = MODELS[name], SAMPLERS[sampler_name]()
    guides = () if guide_name == "none" else (_guides(model)[guide_name],)
    parts = (sampler, *guides)
    unfit = [part for part in parts if not isinstance(model.process, part.processes)]
    if unfit:
        allowed = " or ".join(p.__name__ for p in unfit[0].processes)
        sentence = f"{type(unfit[0]).__name__} cannot act on {type(model.process).__name__}: it needs {allowed}."
        with pytest.raises(UserError) as caught:
            check_compatible(unfit[0], model.process)
        assert str(caught.value) == sentence
        if isinstance(model.process, sampler.processes):  # the sampler itself refuses the guide
            with pytest.raises(UserError) as caught:
                _run(model, sampler, guides)
            assert str(caught.value) == sentence
        return
    batch = Batch(TEXT, replace_mask=GIVEN) if guide_name == "Replacement" else None
    steps = _run(model, sampler, guides, batch)
    # Two jumps of one step after the first, and of two after others; Gaussian ones make none after the last.
    jumps = 2 * (7 if isinstance(model.process, GaussianProcess) else 9) if guide_name == "Replacement" else 0
    _check(steps, _steps(sampler), jumps)
    if guide_name == "AllowedTokens":
        assert not bool(torch.isin(steps[-1].tokens, torch.tensor([2, 5])).any())
    if guide_name == "Replacement":
        assert torch.equal(steps[-1].tokens[GIVEN], TEXT[GIVEN])


def _check(steps: list[Step], total: int, jumps: int):
    assert [s.index for s in steps] == list(range(total + 1))
    assert {s.total for s in steps} == {total}
    times = [s.t for s in steps]
    assert times[0] == 1.0
    assert times[-1] == 0.0
    assert times == sorted(times, reverse=True)
    assert bool((steps[0].confidence == 0).all())  # nothing has been said of noise
    final = steps[-1]
    assert bool(((final.tokens >= 0) & (final.tokens < VOCAB)).all())
    for step in steps:
        assert bool(((step.confidence >= 0) & (step.confidence <= 1 + 1e-6)).all())
        assert bool((step.confidence[step.tokens >= VOCAB] == 0).all())
    assert bool((final.confidence > 0).all())
    assert [s.nfe for s in steps] == sorted(s.nfe for s in steps)
    assert 0 < final.nfe - jumps < 2 * total  # Heun's steps take two, and so do those of Gibbs


@pytest.mark.parametrize("name", MODELS)
def test_samples_do_not_depend_on_the_batch(name):
    model = MODELS[name]
    whole = _run(model, model.sampler)[-1].tokens
    again = _run(model, model.sampler)[-1].tokens
    other = _run(model, model.sampler, seed=1)[-1].tokens
    assert torch.equal(whole, again)
    assert not torch.equal(whole, other)
    for row in range(ROWS):
        request = Request.blank(1, LENGTH, _steps(model.sampler))
        with torch.no_grad():
            alone = list(model.sampler(model, request, rng=Rng.of(0, torch.tensor([row]))))[-1].tokens
        assert torch.equal(alone[0], whole[row])


@pytest.mark.parametrize(
    ("name", "sampler"),
    [*((name, model.sampler) for name, model in MODELS.items()), ("analog_bits", DDIM(eta=1.0, time_offset=2.0))],
)
def test_given_and_padded_positions_are_kept_at_every_step(name, sampler):
    model = MODELS[name]
    real = torch.ones(ROWS, LENGTH, dtype=torch.bool)
    real[:, -1] = False
    batch = Batch(TEXT, condition_mask=GIVEN, valid_mask=real)
    clean = model.codec.encode(TEXT).detach()
    for step in _run(model, sampler, batch=batch):
        assert torch.equal(step.tokens[~batch.target_mask], TEXT[~batch.target_mask])
        assert bool((step.confidence[~batch.target_mask] == 1).all())
        assert torch.equal(step.state[~batch.target_mask], clean[~batch.target_mask])
    assert bool((step.tokens < VOCAB).all())


def test_kept_logits_change_no_sample_and_save_calls():
    model = MODELS["mdlm"]
    assert model.denoiser.time_independent
    request = Request.blank(ROWS, LENGTH, 40)
    results = []
    for free in (True, False):
        model.denoiser.time_independent = free
        with torch.no_grad():
            results.append(list(Ancestral()(model, request, rng=Rng.of(0, ROWS))))
    model.denoiser.time_independent = True
    kept, fresh = results
    for a, b in zip(kept, fresh, strict=True):
        assert torch.equal(a.tokens, b.tokens)
        torch.testing.assert_close(a.confidence, b.confidence)
    assert kept[-1].nfe <= LENGTH < fresh[-1].nfe


def test_rows_are_kept_one_by_one():
    """A row that does not change costs nothing, whatever the others do: calls are per row at any batch size."""
    model = MODELS["mdlm"]
    with torch.no_grad():
        large = list(Ancestral()(model, Request.blank(16, LENGTH, 30), rng=Rng.of(0, 16)))[-1]
        alone = [
            list(Ancestral()(model, Request.blank(1, LENGTH, 30), rng=Rng.of(0, torch.tensor([i]))))[-1].nfe
            for i in range(4)
        ]
        four = list(Ancestral()(model, Request.blank(4, LENGTH, 30), rng=Rng.of(0, 4)))[-1]
    assert large.nfe <= LENGTH
    assert four.nfe == pytest.approx(sum(alone) / 4)


class Whole(LogitsGuide):
    """Draws texts as a whole, of places that are independent."""

    class Said(Prediction):
        def sample_joint(self, rng):
            return Prediction(one_hot_logits(rng.categorical(self.probs), self.logits))

    def wrap(self, denoiser, request):
        return WrappedDenoiser(denoiser, lambda said, *_: self.Said(said.logits))


@pytest.mark.parametrize("sampler", [Ancestral(), Euler(), PathPlanning(), ReMDM(rule=Confidence())])
def test_confidence_is_that_of_single_positions(sampler):
    """Of texts drawn as a whole too; else all places were as sure, and P2 would keep them from left to right."""
    step = _run(MODELS["mdlm"], sampler, (Whole(),), Batch(torch.zeros(40, LENGTH, dtype=torch.long)))[2]
    shown = step.tokens < VOCAB
    assert bool((step.confidence[shown] < 1).all())
    assert bool((shown.float().mean(0) > 0).all())


def test_streams_of_one_request_share_nothing():
    model = MODELS["analog_bits"]
    known = Batch(TEXT, replace_mask=GIVEN)
    request = Request(known, 5, (Replacement(model, n_resample=1, jump_length=2),))
    with torch.no_grad():
        alone, *pair = (model.sampler(model, request, rng=Rng.of(0, ROWS)) for _ in range(3))
        for one, *two in zip(list(alone), *pair, strict=True):
            assert all(torch.equal(one.state, other.state) and one.nfe == other.nfe for other in two)


@pytest.mark.parametrize(("weight", "calls"), [(0.0, 5), (1.0, 5), (2.0, 10)])
def test_calls_of_guides_are_counted(weight, calls):
    model, batch = MODELS["mdlm"], Batch(TEXT, condition_mask=GIVEN)
    assert _run(model, Euler(), (ClassifierFree(model, weight, None),), batch)[-1].nfe == calls


@pytest.mark.parametrize(("mask", "same"), [("none", True), ("mixed", False)])
def test_given_tokens_have_a_level_of_their_own_where_training_gave_some(mask, same):
    model, t = _model("sedd", f"text.mask={mask}"), torch.full((ROWS,), 0.5)
    x = torch.where(GIVEN, TEXT, VOCAB)
    with torch.no_grad():
        shown, given = (model.denoiser(x, t, batch=Batch(TEXT, condition_mask=g)).logits[~GIVEN] for g in (None, GIVEN))
    assert torch.equal(shown, given) == same


def test_revealed_tokens_stay():
    steps = _run(MODELS["mdlm"], Ancestral())
    for a, b in pairwise(steps):
        shown = a.tokens < VOCAB
        assert torch.equal(a.tokens[shown], b.tokens[shown])


def test_left_to_right_wants_a_step_per_token():
    with pytest.raises(UserError, match="5 steps for 6 tokens"):
        list(Autoregressive()(MODELS["autoregressive"], Request.blank(1, 6, 5), rng=Rng.of(0, 1)))


def test_the_noise_of_a_deterministic_sampler_is_its_prior():
    model = MODELS["cdcd"]
    with torch.no_grad():
        a, b = (list(DDIM(eta=0.0)(model, Request.blank(2, LENGTH, 4), rng=Rng.of(s, 2))) for s in (0, 1))
        c = list(DDIM(eta=1.0)(model, Request.blank(2, LENGTH, 4), rng=Rng.of(0, 2)))
    assert torch.equal(a[0].state, c[0].state)
    assert not torch.equal(a[0].state, b[0].state)
    assert not torch.equal(a[2].state, c[2].state)


@pytest.mark.parametrize(
    "sampler", [DDIM(eta=0.0), DDIM(eta=1.0), DDIM(eta=0.0, time_offset=2.0)], ids=["DDIM", "DDPM", "ahead"]
)
def test_text_is_read_from_the_prediction_and_never_from_the_state(sampler):
    """The last prediction differs from all before it, which the state has followed."""
    model, times = _model("analog_bits"), []

    def stubborn(xt, t, *, batch, self_cond=None):
        times.append(float(t[0]))
        token = 7 if len(times) == 5 else 4
        return Prediction(60.0 * torch.eye(VOCAB)[token].expand(*xt.shape[:2], VOCAB), model.codec.table())

    stubborn.time_independent = stubborn.self_conditioning = False  # type: ignore[attr-defined]
    del model.denoiser
    model.denoiser = stubborn
    steps = list(sampler(model, Request.blank(2, LENGTH, 5), rng=Rng.of(0, 2)))
    nearest = model.codec.evidence(steps[-1].state, torch.tensor(1.0)).argmax(-1)
    assert bool((nearest == 4).all())
    assert bool((steps[-1].tokens == 7).all())
    assert times == model.time_density.sampling_times(torch.linspace(1.0, 0.0, 5)).tolist()


def test_self_conditioning_is_carried_where_the_denoiser_takes_it(monkeypatch):
    def state():
        return list(DDIM(eta=0.0)(model, Request.blank(2, LENGTH, 4), rng=Rng.of(0, 2)))[-1].state

    model = MODELS["cdcd"]
    with torch.no_grad():
        on = state()
        monkeypatch.setattr(model.denoiser, "self_conditioning", False)
        assert not torch.equal(on, state())


def test_samplers_are_lazy():
    steps = Ancestral()(MODELS["mdlm"], Request.blank(1, LENGTH, 10**9), rng=Rng.of(0, 1))
    assert isinstance(steps, Iterator)
    assert inspect.isgenerator(steps)


def test_every_model_is_put_together_with_a_sampler_that_can_drive_it():
    from dataclasses import replace

    with pytest.raises(UserError, match="DDIM cannot act on AbsorbingProcess: it needs GaussianProcess"):
        model_of(replace(recipes.get("mdlm")(), sampler=DDIM()), VOCAB)
    assert isinstance(MODELS["cdcd"].process, GaussianProcess)


def test_truncated_noise_stays_within_its_limit_and_is_otherwise_normal():
    z = Rng.of(0, 400).truncated_normal(0.9, 50, 5)
    assert float(z.abs().max()) < 0.9
    assert float(z.mean()) == pytest.approx(0.0, abs=0.01)
    inside = torch.special.ndtr(torch.tensor(0.5)) - 0.5
    whole = torch.special.ndtr(torch.tensor(0.9)) - 0.5
    assert float((z.abs() < 0.5).float().mean()) == pytest.approx(float(inside / whole), abs=0.01)
    torch.testing.assert_close(Rng.of(0, 400).truncated_normal(9.0, 3).std(), torch.ones(()), rtol=0.1, atol=0)
    part = Rng.of(0, torch.tensor([7])).truncated_normal(0.9, 50, 5)
    assert torch.equal(part[0], z[7])  # stateless: no rejection whose length others would feel


def _states(sampler, steps=6):
    with torch.no_grad():
        request = Request.blank(ROWS, LENGTH, steps)
        return list(sampler(MODELS["diffusion_lm"], request, rng=Rng.of(0, ROWS)))


def test_truncation_is_of_the_noise_of_steps():
    plain, cut = _states(DDIM(eta=1.0)), _states(DDIM(eta=1.0, max_noise_std=0.9))
    assert torch.equal(plain[0].state, cut[0].state)
    process, denoiser = MODELS["diffusion_lm"].process, MODELS["diffusion_lm"].denoiser
    t, s = torch.ones(ROWS), torch.full((ROWS,), 0.8)
    with torch.no_grad():
        prediction = denoiser(cut[0].state, t, batch=Batch(torch.zeros(ROWS, LENGTH, dtype=torch.long)))
        law = process.step(cut[0].state, prediction, t, s, eta=1.0)
    noise = (cut[1].state - law.mean) / law.std
    assert float(noise.abs().max()) < 0.91
    assert float(((plain[1].state - law.mean) / law.std).abs().max()) > 1.5


def test_clamped_states_are_tokens_with_noise():
    table = MODELS["diffusion_lm"].codec.table().detach()
    # Without noise of its own a step from enormous noise leaves the rounded prediction, and a little of that noise.
    state = _states(DDIM(eta=0.0, clamp=1.0))[-1].state
    assert float(torch.cdist(state.view(1, -1, 16), table[None]).amin(-1).max()) < 1.0
    plain, late = _states(DDIM(eta=1.0)), _states(DDIM(eta=1.0, clamp=0.3))
    same = [torch.equal(a.state, b.state) for a, b in zip(plain, late, strict=True)]
    assert same == [True] * 5 + [False] * 2  # what follows t = 1, 0.8, 0.6 and 0.4, and what follows 0.2


@pytest.mark.parametrize("steps", [1, 7, 40])
def test_every_step_is_taken_and_tokens_come_from_the_last_prediction(steps):
    """No early stop, as one of the originals had at nine tenths, and no decoding of the noisy state."""
    model, seen = MODELS["diffusion_lm"], []
    original = model.denoiser.forward

    def spied(xt, t, *, batch, self_cond=None):
        seen.append((t, prediction := original(xt, t, batch=batch, self_cond=self_cond)))
        return prediction

    model.denoiser.forward = spied
    try:
        made = _states(DDIM(eta=1.0), steps)
    finally:
        del model.denoiser.forward
    assert len(seen) == steps == made[-1].total
    t, prediction = seen[-1]
    assert float(t[0]) == (0.0 if steps > 1 else 1.0)
    assert torch.equal(made[-1].tokens, prediction.logits.argmax(-1))


def test_truncation_without_noise_is_refused():
    with pytest.raises(UserError, match="no effect without noise"):
        DDIM(max_noise_std=0.9)
