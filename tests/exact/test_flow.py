"""The likelihood of the probability flow is the truth with the ideal denoiser, in the limit of many steps."""

import pytest
import torch

from textdiffusion import TextDiffusion
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.prediction import Prediction
from textdiffusion.evaluation.flow import FlowLikelihood, flow_report
from textdiffusion.scoring.windows import Texts

from .language import IdealDenoiser, WrongDenoiser, ideal_gaussian, tables
from .texts import LANGUAGE, batch_of, nats_of, on_average


class Smooth(IdealDenoiser):
    """Never quite certain, so that its slope is defined where a probability underflows."""

    def forward(self, xt, t, *, batch, self_cond=None):
        onehot = torch.nn.functional.one_hot(self.language.texts, self.language.vocab_size).double()
        probs = torch.einsum("bn,nlv->blv", self.joint(xt, t, batch), onehot)
        return Prediction(torch.log(probs.clamp(min=1e-30)).float(), self.table)


def _model(codec):
    model = ideal_gaussian(LANGUAGE, tables(3)[codec])
    model.denoiser = Smooth(LANGUAGE, model.process, model.codec.table())
    model.denoiser.self_conditioning = False
    return model


@pytest.mark.parametrize(
    ("codec", "layout"), [("bits", "plain"), ("embeddings", "plain"), ("bits", "given and padded")]
)
def test_the_flow_of_the_ideal_denoiser_has_the_true_likelihood(codec, layout):
    model = _model(codec)
    mean, error, truth = nats_of(FlowLikelihood(24), model, layout, repeats=60)
    average, spread = on_average(mean - truth, error)
    assert abs(average) < 3 * spread + 0.01
    assert spread < 0.1


def test_the_error_of_steps_falls():
    model = _model("bits")
    nats = [nats_of(FlowLikelihood(steps), model, repeats=1)[0] for steps in (8, 16, 32, 128)]
    errors = [on_average((each - nats[-1]).abs(), torch.zeros(()))[0] for each in nats[:-1]]
    assert errors[2] < 0.3 * errors[1] < 0.3 * 0.5 * errors[0]


@pytest.mark.parametrize("self_conditioning", [False, True])
def test_the_flow_of_a_wrong_denoiser_lies_above_the_truth(self_conditioning):
    model = _model("bits")
    model.denoiser = WrongDenoiser(LANGUAGE, model.codec.table())
    model.denoiser.self_conditioning = self_conditioning
    mean, error, truth = nats_of(FlowLikelihood(24), model, repeats=20)
    average, spread = on_average(mean - truth, error)
    assert average > 4 * spread


class Twice(torch.nn.Module):
    """Both passes of self-conditioning as one function of x_t."""

    time_independent, self_conditioning = False, False

    def __init__(self, once):
        super().__init__()
        self.once = once

    def forward(self, xt, t, *, batch, self_cond=None):
        return self.once(xt, t, batch=batch, self_cond=self.once(xt, t, batch=batch).mean)


def test_two_passes_are_differentiated_whole():
    model, (batch, _) = _model("bits"), batch_of("given and padded", 4)
    once = WrongDenoiser(LANGUAGE, model.codec.table())
    nats = []
    for denoiser in (once, Twice(once)):
        model.denoiser = denoiser
        nats.append(FlowLikelihood(8)(model, batch, rng=Rng.of(0, len(batch.tokens))))
    torch.testing.assert_close(*nats)
    once.self_conditioning = False
    model.denoiser = once
    assert not torch.allclose(FlowLikelihood(8)(model, batch, rng=Rng.of(0, len(batch.tokens))), nats[0])


def test_a_report_has_a_figure_for_every_number_of_steps(tiny_run):
    model = TextDiffusion.from_pretrained(tiny_run("cdcd"), device="cpu")
    texts = Texts(["The red pear"], model.tokenizer, model.config.text)
    found = flow_report(model.model, texts, steps=(2, 4))
    assert list(found) == [2, 4]
    assert found[2].protocol["flow_steps"] == 2
    assert found[2].digest != found[4].digest
    assert found[2].protocol["likelihood"] == "FlowLikelihood"
    masked = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    with pytest.raises(UserError, match="AbsorbingProcess has no probability flow; only Gaussian processes have one"):
        flow_report(masked.model, texts)
