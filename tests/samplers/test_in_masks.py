"""Other noise seen as masks: exact where the denoiser is, and only where training gave tokens."""

import pytest
import torch

from textdiffusion import TextDiffusion, recipes
from textdiffusion.batch import Batch
from textdiffusion.errors import UserError
from textdiffusion.model import Model
from textdiffusion.processes.schedules import LogLinear, LogSigma
from textdiffusion.randomness import Rng
from textdiffusion.samplers.first_hitting import FirstHitting
from textdiffusion.samplers.in_masks import InMasks, driven_by
from textdiffusion.samplers.one_step import OneStep
from textdiffusion.samplers.ordered import Ordered
from textdiffusion.samplers.step import Request

from ..exact.convergence import LANGUAGE
from ..exact.language import ideal_gaussian, ideal_masked, ideal_uniform, last, tables

DRAWS = 8000
FAR = 5000.0  # norms; at 20 of them noise still says a twentieth of a nat
IDEAL = {
    name: ideal_gaussian(LANGUAGE, codec, LogSigma(0.05 * codec.norm, FAR * codec.norm))
    for name, codec in tables(3).items()
}
IDEAL["uniform"] = ideal_uniform(LANGUAGE, LogLinear(0.0))
LETTERS = ("text.tokenizer=characters", "text.unk=false", "text.layout=stream")


def in_masks(model: Model) -> InMasks:
    model.config = recipes.get("cdcd")()
    return InMasks(model, seed=0)


@pytest.mark.parametrize("sampler", [Ordered("entropy"), FirstHitting(), Ordered("random", rounds=2)])
@pytest.mark.parametrize("name", IDEAL)
def test_one_place_a_step_draws_from_the_law(name, sampler):
    """Pure noise leaves an ideal denoiser nothing to go by but the tokens that stand."""
    view = in_masks(IDEAL[name])
    with torch.no_grad():
        ids = last(sampler(view, Request.blank(DRAWS, 3, 8), rng=Rng.of(1, DRAWS))).ids
    assert LANGUAGE.distance(ids) < 2.0 * LANGUAGE.floor(DRAWS)


@pytest.mark.parametrize("name", IDEAL)
def test_predictions_are_those_of_masks(name):
    """Also beside given tokens and padding, which may hold anything."""
    view, masked = in_masks(IDEAL[name]), ideal_masked(LANGUAGE, LogLinear(0.0))
    xt = torch.tensor([[3, 1, 3], [0, 3, 3], [3, 3, 3], [2, 3, 0]])
    real = torch.ones_like(xt, dtype=torch.bool)
    real[3, 0] = False
    batch, t = Batch(xt.clamp(max=2), real=real), torch.full((4,), 0.5)
    found, expected = (m.denoiser(xt, t, batch=batch).probs for m in (view, masked))
    where = (xt == 3) & real
    assert torch.allclose(found[where], expected[where], atol=1e-3)


def test_only_runs_that_were_given_tokens_are_driven_by_samplers_of_masks(tiny_run):
    ordered, steps = Ordered("entropy"), OneStep()
    for recipe, mask, drives in (
        ("cdcd", "mixed", InMasks),
        ("udlm", "random", InMasks),
        ("cdcd", "none", type(None)),
        ("udlm", "none", type(None)),
        ("mdlm", "random", Model),
        ("autoregressive", "random", type(None)),
    ):
        run = TextDiffusion.from_pretrained(tiny_run(recipe, *LETTERS, f"text.mask={mask}"), device="cpu")
        assert type(driven_by(ordered, run.model)) is drives, recipe
        assert ("ordered" in run.samplers()) == (drives is not type(None))
        assert driven_by(steps, run.model) is (run.model if recipe == "cdcd" else None)


@pytest.mark.parametrize("recipe", ["cdcd", "analog_bits", "ssd_lm", "udlm"])
def test_texts_are_written_letter_by_letter(tiny_run, recipe: str):
    run = TextDiffusion.from_pretrained(tiny_run(recipe, *LETTERS, "text.mask=random"), device="cpu")
    letters = {"sampler": "ordered:order=entropy,steps=0", "length": 8}
    steps = list(run.stream(num=2, sampler="ordered:order=entropy", steps=8, length=8))
    vocab = run.tokenizer.vocab_size
    assert [int((step.ids[0] == vocab).sum()) for step in steps] == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert steps[-1].calls == 8.0
    assert run.generate(num=5, **letters)[:2] == run.texts(steps[-1])  # whatever the batch
    assert run.generate(num=2, seed=1, **letters) != run.texts(steps[-1])
    filled = run.infill("The [MASK:3] pear", num=2, sampler="ordered:order=entropy", steps=3)
    assert all(text.startswith("The ") and text.endswith(" pear") and len(text) == 12 for text in filled)


def test_noise_belongs_to_the_row_and_the_seed(tiny_run):
    run = TextDiffusion.from_pretrained(tiny_run("cdcd", *LETTERS), device="cpu")
    batch = Batch(torch.zeros(4, 5, dtype=torch.long), rows=torch.arange(4))
    xt, t = torch.full((4, 5), run.tokenizer.vocab_size), torch.ones(4)

    def said(seed: int, rows: list[int]) -> torch.Tensor:
        view = InMasks(run.model, seed)
        with torch.no_grad():
            return view.denoiser(xt[rows], t[rows], batch=batch.select(torch.tensor(rows))).logits

    assert torch.allclose(said(0, [2, 3]), said(0, [0, 1, 2, 3])[2:], atol=1e-5)
    assert not torch.allclose(said(0, [0]), said(0, [1]), atol=1e-3)
    assert not torch.allclose(said(0, [0]), said(1, [0]), atol=1e-3)


def test_guides_of_the_runs_own_noise_are_refused(tiny_run, tmp_path):
    run = TextDiffusion.from_pretrained(tiny_run("cdcd", *LETTERS), device="cpu")
    with pytest.raises(UserError, match="Classifiers hear the run's own noise"):
        run.generate(sampler="ordered", guides=[f"classifier:path={tmp_path},label=red"])
    assert run.generate(sampler="ordered", guides=["without:text=e"], length=8)


def test_a_model_in_masks_leaves_the_other_as_it_was(tiny_run):
    run = TextDiffusion.from_pretrained(tiny_run("cdcd", *LETTERS), device="cpu")
    own = run.generate(length=8)
    names = [name for name, _ in run.model.named_parameters()]
    run.generate(length=8, sampler="ordered")
    assert [name for name, _ in run.model.named_parameters()] == names
    assert run.generate(length=8) == own
