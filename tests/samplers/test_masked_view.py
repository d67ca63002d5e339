"""Other noise seen as masks: exact where the denoiser is, and only where training gave tokens."""

import pytest
import torch

from textdiffusion import TextDiffusion
from textdiffusion.config.compatibility import sampler_problem
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.alpha_schedules import LogLinear
from textdiffusion.diffusion.model import DiffusionModel
from textdiffusion.diffusion.sigma_schedules import LogSigma
from textdiffusion.guidance.cfg import ClassifierFree
from textdiffusion.guidance.trained_classifier import run_fingerprint
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.first_hitting import FirstHitting
from textdiffusion.samplers.masked_view import MaskedView, adapt_model
from textdiffusion.samplers.unmasking import Unmasking
from textdiffusion.training.classifier import ClassifierConfig, train_classifier

from ..exact.convergence import LANGUAGE
from ..exact.language import ideal_gaussian, ideal_masked, last, tables

DRAWS = 8000
FAR = 5000.0  # norms; at 20 of them noise still says a twentieth of a nat
IDEAL = {
    name: ideal_gaussian(LANGUAGE, codec, LogSigma(0.05 * codec.norm, FAR * codec.norm))
    for name, codec in tables(3).items()
}
LETTERS = ("text.tokenizer=characters", "text.layout=stream")


def in_masks(model: DiffusionModel) -> MaskedView:
    return MaskedView(model, seed=0)


@pytest.mark.parametrize(
    "sampler", [Unmasking(order="entropy"), FirstHitting(), Unmasking(order="random", refine_rounds=2)]
)
@pytest.mark.parametrize("name", IDEAL)
def test_one_place_a_step_draws_from_the_law(name, sampler):
    """Pure noise leaves an ideal denoiser nothing to go by but the tokens that stand."""
    view = in_masks(IDEAL[name])
    with torch.no_grad():
        ids = last(sampler(view, Request.blank(DRAWS, 3, 8), rng=Rng.of(1, DRAWS))).tokens
    assert LANGUAGE.distance(ids) < 2.0 * LANGUAGE.floor(DRAWS)


@pytest.mark.parametrize("name", IDEAL)
def test_predictions_are_those_of_masks(name):
    """Also beside given tokens and padding, which may hold anything."""
    view, masked = in_masks(IDEAL[name]), ideal_masked(LANGUAGE, LogLinear(0.0))
    xt = torch.tensor([[3, 1, 3], [0, 3, 3], [3, 3, 3], [2, 3, 0]])
    real = torch.ones_like(xt, dtype=torch.bool)
    real[3, 0] = False
    batch, t = Batch(xt.clamp(max=2), valid_mask=real), torch.full((4,), 0.5)
    found, expected = (m.denoiser(xt, t, batch=batch).probs for m in (view, masked))
    where = (xt == 3) & real
    assert torch.allclose(found[where], expected[where], atol=1e-3)


@pytest.mark.parametrize(
    ("recipe", "settings", "drives", "says"),
    [
        ("cdcd", ["text.mask=mixed"], True, None),
        ("ssd_lm", ["text.mask=spans"], True, None),
        ("analog_bits", ["text.mask=random", "objective.kind=score_interpolation"], True, None),
        ("mdlm", ["text.mask=none"], True, None),
        ("cdcd", ["text.mask=none"], False, "trained with given tokens anywhere, such as text.mask=random"),
        ("cdcd", ["text.mask=prefix"], False, "trained with given tokens anywhere"),
        ("analog_bits", ["text.mask=random"], False, "objective.kind=score_interpolation does"),
        (
            "udlm",
            ["text.mask=random"],
            False,
            "UniformProcess: it needs AbsorbingProcess or WaveProcess. This run can use ancestral",
        ),
        (
            "autoregressive",
            [],
            False,
            "AutoregressiveProcess: it needs AbsorbingProcess or WaveProcess. This run can use autoregressive",
        ),
    ],
)
def test_only_runs_that_learned_it_are_driven_by_samplers_of_masks(tiny_run, recipe, settings, drives, says):
    run = TextDiffusion.from_pretrained(tiny_run(recipe, *LETTERS, *settings), device="cpu")
    assert ("unmasking" in run.samplers()) == drives
    assert (sampler_problem(Unmasking(order="entropy"), run.config, run.model.process) is None) == drives
    assert isinstance(adapt_model(run.config.sampler, run.model, 0), DiffusionModel)
    assert adapt_model(run.config.sampler, run.model, 0) is run.model
    if says:
        with pytest.raises(UserError, match=says):
            run.generate(sampler="unmasking", length=8)


@pytest.mark.parametrize("recipe", ["cdcd", "ssd_lm", "simple_diffusion_lm"])
def test_a_network_sees_noise_at_masks_and_tokens_as_given(tiny_run, recipe: str):
    run = TextDiffusion.from_pretrained(tiny_run(recipe, *LETTERS, "text.mask=random"), device="cpu")
    model, view, mask = run.model, MaskedView(run.model, 7).denoiser, run.tokenizer.vocab_size
    xt = torch.tensor([[mask, 3, mask, 4, 5], [1, 2, mask, 9, 9]])
    real = torch.tensor([[True] * 5, [True, True, True, False, False]])
    given, ids, t = (xt < mask) & real, torch.where((xt < mask) & real, xt, 0), torch.full((2,), 0.3)
    clean = model.codec.encode(ids)
    noise = model.process.sample_prior(clean, rng=Rng.of(7, 2).fork("masks as noise"))
    state = torch.where(given[..., None], clean, noise)
    with torch.no_grad():
        found = view(xt, t, batch=Batch(xt, valid_mask=real)).logits
        expected = model.denoiser(state, torch.ones(2), batch=Batch(ids, valid_mask=real, condition_mask=given)).logits
        other = view(xt.clone().fill_(2), t, batch=Batch(xt, valid_mask=real)).logits
        padded = view(torch.where(real, xt, 6), t, batch=Batch(xt, valid_mask=real)).logits
    assert torch.equal(found[real], expected[real])
    assert not torch.allclose(found[real], other[real])
    assert torch.allclose(found[real], padded[real], atol=1e-6)  # whatever stands at padding


def test_templates_of_unequal_length_are_filled_as_each_alone(tiny_run):
    run = TextDiffusion.from_pretrained(tiny_run("cdcd", *LETTERS, "text.mask=random"), device="cpu")
    templates = ["The [MASK:3] pear", "a [MASK:2]."]
    together = run.infill(templates, sampler="unmasking:order=left", steps=3)
    assert together[0] == run.infill(templates[0], sampler="unmasking:order=left", steps=3)[0]
    assert [len(text) for text in together] == [12, 5]


@pytest.mark.parametrize("recipe", ["cdcd", "mini_cdcd", "ssd_lm", "simple_diffusion_lm"])
def test_texts_are_written_letter_by_letter(tiny_run, recipe: str):
    run = TextDiffusion.from_pretrained(tiny_run(recipe, *LETTERS, "text.mask=random"), device="cpu")
    letters = {"sampler": "unmasking:order=entropy,steps=0", "length": 8}
    steps = list(run.stream(num=2, sampler="unmasking:order=entropy", steps=8, length=8))
    vocab_size = run.tokenizer.vocab_size
    assert [int((step.tokens[0] == vocab_size).sum()) for step in steps] == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert steps[-1].nfe == 8.0
    assert run.generate(num=5, **letters)[:2] == run.decode(steps[-1])  # whatever the batch
    assert run.generate(num=2, seed=1, **letters) != run.decode(steps[-1])
    filled = run.infill("The [MASK:3] pear", num=2, sampler="unmasking:order=entropy", steps=3)
    assert all(text.startswith("The ") and text.endswith(" pear") and len(text) == 12 for text in filled)


def test_a_run_can_be_meant_for_it(tiny_run):
    asked = ("sampler.kind=unmasking", "sampler.order=entropy")
    run = TextDiffusion.from_pretrained(tiny_run("cdcd", *LETTERS, *asked), device="cpu")
    assert run.generate(length=8) == run.generate(length=8, sampler="unmasking:order=entropy")
    with pytest.raises(UserError, match=r"Unmasking needs .* such as text\.mask=random"):
        tiny_run("cdcd", *LETTERS, *asked, "text.mask=none")


def test_noise_belongs_to_the_row_and_the_seed(tiny_run):
    run = TextDiffusion.from_pretrained(tiny_run("cdcd", *LETTERS), device="cpu")
    batch = Batch(torch.zeros(4, 5, dtype=torch.long), row_ids=torch.arange(4))
    xt, t = torch.full((4, 5), run.tokenizer.vocab_size), torch.ones(4)

    def said(seed: int, rows: list[int]) -> torch.Tensor:
        view = MaskedView(run.model, seed)
        with torch.no_grad():
            return view.denoiser(xt[rows], t[rows], batch=batch.select(torch.tensor(rows))).logits

    assert torch.allclose(said(0, [2, 3]), said(0, [0, 1, 2, 3])[2:], atol=1e-5)
    assert not torch.allclose(said(0, [0]), said(0, [1]), atol=1e-3)
    assert not torch.allclose(said(0, [0]), said(1, [0]), atol=1e-3)


def test_guides_are_those_of_masks(tiny_run):
    run = TextDiffusion.from_pretrained(tiny_run("cdcd", *LETTERS), device="cpu")
    assert set(run.generate(sampler="unmasking", guides=["regex:pattern=[a-e ]*"], length=8)[0]) <= set("abcde ")
    template, guide = "The [MASK:3] pear", ClassifierFree(run.model, 2.0, None)
    assert run.infill(template, sampler="unmasking", guides=["cfg:weight=2"], steps=3)
    with pytest.raises(UserError, match="This ClassifierFree was made for another process; give the guide by its name"):
        run.infill(template, sampler="unmasking", guides=[guide])
    dropped = (*LETTERS[:1], "text.layout=lines", "text.condition_dropout=0.1")
    run = TextDiffusion.from_pretrained(tiny_run("cdcd", *dropped), device="cpu")
    with pytest.raises(
        UserError, match=r"cfg with a run trained with text\.condition_dropout needs a sampler of the run's own noise"
    ):
        run.infill(template, sampler="unmasking", guides=["cfg:weight=2"])


def test_a_classifier_of_noisy_vectors_guides_through_the_prediction_alone(tiny_run, tmp_path):
    run = TextDiffusion.from_pretrained(tiny_run("cdcd", *LETTERS), device="cpu")
    examples = [("The red pear.", "pear"), ("The old fig.", "fig")] * 10
    classifier, _ = train_classifier(run, examples, ClassifierConfig(steps=2))
    classifier.save(tmp_path, {"run": run_fingerprint(run)})
    guide = f"classifier:path={tmp_path},label=fig"
    plain, guided = (run.generate(4, sampler="unmasking", guides=g, length=8) for g in ([], [f"{guide},weight=500"]))
    assert guided != plain
    with pytest.raises(UserError, match="was trained on noisy vectors, not masks; use through=prediction"):
        run.generate(sampler="unmasking", guides=[f"{guide},through=state"])


def test_a_model_in_masks_leaves_the_other_as_it_was(tiny_run):
    run = TextDiffusion.from_pretrained(tiny_run("cdcd", *LETTERS), device="cpu")
    own = run.generate(length=8)
    names = [name for name, _ in run.model.named_parameters()]
    run.generate(length=8, sampler="unmasking")
    assert [name for name, _ in run.model.named_parameters()] == names
    assert run.generate(length=8) == own
