"""The bound of every recipe's own network: nothing is said of even texts in fewer nats than there are to say."""

from math import log

import pytest
import torch

from tests.models import model_of
from textdiffusion import recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng

VOCAB, LENGTH, BATCHES, REPEATS = 3, 3, 10, 12
TEXTS = torch.cartesian_prod(*[torch.arange(VOCAB)] * LENGTH)
# As published most say so much more of a text that nothing that was left out would show.
CASES = [(name, kind) for name in recipes.names() for kind in recipes.variants(name) if kind != "as_published"]


def _small(recipe, variant):
    """Parts and settings as they are, but for the size of the network; its weights are not those of the start."""
    config = recipes.get(recipe)(variant)
    depth = min(config.backbone.depth, 3)
    rng = Rng.of(0, 1)
    model = model_of(
        apply_overrides(config, ["backbone.width=32", f"backbone.depth={depth}", f"text.length={LENGTH}"]), VOCAB
    ).eval()
    with torch.no_grad():
        for name, weight in model.denoiser.named_parameters():
            weight += 0.1 * rng.fork(name).normal(*weight.shape)[0]
    return model


@pytest.mark.parametrize(("recipe", "variant"), CASES)
def test_a_bound_is_at_least_the_entropy_of_even_texts(recipe, variant):
    """The mean of -log q(x) over all texts x is at least that of -log 1 / 27, for q can sum to no more than 1."""
    model, batch = _small(recipe, variant), Batch(TEXTS.repeat(REPEATS, 1))
    rngs = (Rng.of(seed, len(batch.tokens)) for seed in range(BATCHES))
    with torch.no_grad():
        nats = torch.stack([model.likelihood(model, batch, rng=rng).double().mean() for rng in rngs])
    excess, error = float(nats.mean()) - LENGTH * log(VOCAB), float(nats.std()) / BATCHES**0.5
    assert excess > -4 * error - 1e-6
