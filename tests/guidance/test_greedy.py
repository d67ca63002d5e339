"""Temperature 0: the likeliest token wherever one is drawn."""

from itertools import pairwise

import pytest
import torch

from textdiffusion import TextDiffusion
from textdiffusion.diffusion.prediction import Prediction


@pytest.mark.parametrize("recipe", ["mdlm", "sedd", "udlm", "d3pm", "cdcd", "autoregressive", "block_diffusion"])
def test_every_family_writes_at_temperature_0(tiny_run, recipe):
    model = TextDiffusion.from_pretrained(tiny_run(recipe), device="cpu")
    texts = model.generate(2, 8, temperature=0.0)
    assert texts == model.generate(2, 8, temperature=0.0)
    assert model.infill("The [MASK:3] pear", temperature=0.0, num=2)[0].startswith("The ")


def test_greedy_text_does_not_depend_on_the_seed_where_the_order_does_not(tiny_run):
    for recipe, sampler in (
        ("autoregressive", None),
        ("mdlm", "unmasking:order=entropy"),
        ("mdlm", "unmasking:order=left"),
    ):
        model = TextDiffusion.from_pretrained(tiny_run(recipe), device="cpu")
        texts = {model.generate(1, 12, temperature=0.0, seed=seed, sampler=sampler)[0] for seed in range(4)}
        assert len(texts) == 1
        assert len({model.generate(1, 12, seed=seed, sampler=sampler)[0] for seed in range(4)}) > 1


def test_each_greedy_token_is_the_likeliest_given_those_before_it(tiny_run):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    batch = model.empty_batch(1, 10)
    steps = list(model.stream(batch=batch, temperature=0.0, sampler="unmasking:order=left", steps=10))
    for before, after in pairwise(steps):
        (position,) = (before.tokens != after.tokens)[0].nonzero()[:, 0].tolist()
        t = torch.tensor([before.t])
        prediction = model.model.denoiser(before.tokens, model.model.process.schedule.time(1 - t), batch=batch)
        assert int(after.tokens[0, position]) == int(prediction.argmax[0, position])


def test_orders_still_see_how_certain_a_greedy_prediction_is(tiny_run):
    logits = torch.tensor([[[2.0, 0.0, 1.0], [0.1, 0.0, 0.2]]])
    greedy = Prediction(logits).greedy()
    assert greedy.probs.tolist() == [[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]
    assert greedy.confidence_logits is logits
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    *_, last = model.stream(1, 12, temperature=0.0, sampler="unmasking:order=entropy", steps=12)
    assert float(last.confidence.max()) < 1.0


def test_a_greedy_text_has_the_word_that_it_must(tiny_run):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    (text,) = model.generate(1, 16, temperature=0.0, guides=["word:text=pear"], sampler="unmasking:order=left")
    assert "pear" in text
