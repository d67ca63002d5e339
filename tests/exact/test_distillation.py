"""What a student learns is what two steps of its teacher say, enumerated on a language that is known completely."""

from itertools import product

import pytest
import torch
from torch import nn

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.alpha_schedules import CosineAlpha, Linear
from textdiffusion.diffusion.prediction import Prediction
from textdiffusion.objectives.distillation import ConsistencyDistillation, SelfDistillation

from .language import Language, WrongDenoiser, assemble, ideal_masked, ideal_uniform

LANGUAGE = Language.random(vocab_size=3, length=3)
MASK, STEPS, ROWS = 3, 2, 100_000
STATES = torch.tensor(list(product(range(4), repeat=3)))
IDEAL = ideal_masked(LANGUAGE, CosineAlpha())
TEACHERS = {"ideal": IDEAL, "wrong": assemble(nn.Identity(), IDEAL.process, WrongDenoiser(LANGUAGE))}


class TableDenoiser(nn.Module):
    """A distribution at every position of every masked text and at each of the student's times."""

    time_independent, self_conditioning = False, False

    def __init__(self, probs) -> None:
        super().__init__()
        self.logits = nn.Parameter(probs.log().clamp(min=-100.0).float())  # [times, states, 3, 3]

    def forward(self, xt, t, *, batch, self_cond=None) -> Prediction:
        return Prediction(self.logits[(t * STEPS).round().long() - 1, _number(xt)])


def _number(x):
    return (x * torch.tensor([16, 4, 1])).sum(-1)


def _log_probs(teacher, t):
    """Of every state at time t."""
    with torch.no_grad():
        logits = teacher.denoiser(STATES, torch.full((64,), t), batch=Batch(STATES)).logits
    return logits.double().log_softmax(-1).clamp(min=-100.0)


def _two_steps(teacher, step, divergence):
    """The optimum in every state: the mean, over all of the teacher's first steps, of what it says then."""
    t, middle, s = (step / STEPS, (step - 0.5) / STEPS, (step - 1) / STEPS)
    at = [float(teacher.process.schedule.mask_prob(torch.tensor(time))) for time in (t, middle, s)]
    early, late = 1.0 - at[1] / at[0], 1.0 - at[2] / at[1]
    first, second = _log_probs(teacher, t), _log_probs(teacher, middle)
    say = torch.exp if divergence == "forward" else torch.clone
    means = torch.zeros(64, 3, 3).double()
    for number, x in enumerate(STATES):
        masked = (x == MASK).nonzero()[:, 0].tolist()
        weight = torch.full((3, 1), 1e-12).double()
        for choice in product([MASK, 0, 1, 2], repeat=len(masked)):
            between, prob = x.clone(), 1.0
            for i, token in zip(masked, choice, strict=True):
                between[i] = token
                prob *= 1.0 - early if token == MASK else early * float(first[number, i, token].exp())
            for i in masked:
                hidden = between[i] == MASK
                share = prob * (late if hidden else 1.0)
                means[number, i] += share * say(second[_number(between), i] if hidden else first[number, i])
                weight[i] += share
        means[number] /= weight
    return means if divergence == "forward" else means.softmax(-1)


def _gradient(teacher, divergence, probs):
    """The gradient of the objective at a student in units of its standard error, in states that occur often."""
    draws = Rng.of(3, ROWS)
    batch = Batch(LANGUAGE.ids[draws.fork("texts").categorical(LANGUAGE.law.expand(ROWS, 1, -1))[:, 0]])
    objective = SelfDistillation(steps=STEPS, divergence=divergence)
    student = assemble(nn.Identity(), teacher.process, TableDenoiser(probs))
    objective(student, batch, rng=draws, teacher=teacher).total.backward()
    lesson = objective.lesson(teacher, batch, draws)
    where = ((lesson.t * STEPS).round().long() - 1, _number(lesson.xt))
    weight = torch.zeros(STEPS, 64, 3).index_put(where, lesson.weight, accumulate=True)
    often = weight > 500.0
    assert int(often.sum()) > 20
    gradient = student.denoiser.logits.grad * ROWS * 3 / weight[..., None].clamp(min=1.0)
    return (gradient.abs().amax(-1) * weight.sqrt())[often]


@pytest.mark.parametrize(("name", "divergence"), [("ideal", "forward"), ("wrong", "forward"), ("wrong", "reverse")])
def test_the_best_student_says_what_two_steps_of_the_teacher_say(name, divergence):
    """There the gradient vanishes, and where the student still says what the teacher does in one step, it does not."""
    teacher = TEACHERS[name]
    best = torch.stack([_two_steps(teacher, step, divergence) for step in range(1, STEPS + 1)])
    assert float(_gradient(teacher, divergence, best).max()) < 5.0
    if name == "wrong":
        one_step = torch.stack([_log_probs(teacher, step / STEPS).exp() for step in range(1, STEPS + 1)])
        assert float(_gradient(teacher, divergence, one_step).max()) > 20.0


def test_an_ideal_student_of_small_steps_has_nothing_to_learn():
    """With one mask in a text nothing is drawn between, so both steps say the same, and the loss is 0."""
    model = TEACHERS["ideal"]
    texts = LANGUAGE.ids[LANGUAGE.law > 0]
    batch = Batch(texts, condition_mask=torch.tensor([True, False, True]).expand(texts.shape))
    for kind in (SelfDistillation(steps=4), SelfDistillation(steps=4, divergence="reverse")):
        loss = kind(model, batch, rng=Rng.of(0, len(batch.tokens)))
        assert float(loss.total) == pytest.approx(0.0, abs=1e-5)
    lesson = SelfDistillation(steps=4).lesson(model, batch, Rng.of(0, len(batch.tokens)))
    assert torch.equal(lesson.xt[:, [0, 2]], batch.tokens[:, [0, 2]])
    assert not bool(lesson.weight[:, [0, 2]].any())


def test_the_weights_of_the_lessons_add_up_to_one_token():
    """On average over the student's steps, each token counts as often as it is revealed: once."""
    rows = 20_000
    texts = LANGUAGE.ids[:1].expand(rows, -1)
    for steps in (1, 4):
        lesson = SelfDistillation(steps=steps).lesson(TEACHERS["ideal"], Batch(texts), Rng.of(1, rows))
        assert float(lesson.weight.mean()) == pytest.approx(1.0, abs=0.02)


def test_both_states_of_a_path_of_uniform_noise_have_the_law_of_the_process():
    model, rows, steps = ideal_uniform(LANGUAGE, Linear()), 40_000, 4
    batch = Batch(LANGUAGE.ids[5:6].expand(rows, -1))
    seen = {}

    class Watching(nn.Module):
        def forward(self, xs, s, *, batch):
            seen.update(xs=xs, s=s)
            return model.denoiser(xs, s, batch=batch)

    watched = assemble(nn.Identity(), model.process, Watching())
    lesson = ConsistencyDistillation(steps=steps).lesson(watched, batch, Rng.of(2, rows))
    assert torch.allclose(seen["s"], (lesson.t - 1.0 / steps).clamp(min=0.0))
    for states, times in ((lesson.xt, lesson.t), (seen["xs"], seen["s"])):
        kept = model.process.log_likelihood(batch.tokens, batch.tokens, times).exp()
        assert float((states == batch.tokens).float().mean() - kept.mean()) == pytest.approx(0.0, abs=0.005)
    # A token that is right at t is right a step earlier on the same path.
    right = lesson.xt == batch.tokens
    assert bool((seen["xs"] == batch.tokens)[right].all())


def test_a_student_of_uniform_noise_moves_to_its_teacher():
    """Where the step back reaches x_0 the lesson is x_0; the student's own prediction is a worse one."""
    model = ideal_uniform(LANGUAGE, Linear())
    batch = Batch(LANGUAGE.ids[LANGUAGE.law > 0].repeat(20, 1))
    rng = Rng.of(4, len(batch.tokens))
    loss = ConsistencyDistillation(steps=4)(model, batch, rng=rng)
    assert float(loss.total) > 0.01
    same = ConsistencyDistillation(steps=10**6)(model, batch, rng=rng)
    assert float(same.total) < 1e-3
