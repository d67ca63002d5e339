"""All texts of a language under a likelihood: mean nats with their errors, and the truth beside them."""

from itertools import permutations

import numpy as np
import torch

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.prediction import Prediction

from .language import Language, WrongDenoiser

LANGUAGE = Language.random(vocab_size=3, length=3)
POSSIBLE = LANGUAGE.law > 0
TEXTS, LAW = LANGUAGE.ids[POSSIBLE], LANGUAGE.law[POSSIBLE].double()


def mask_of(*at):
    mask = torch.zeros(3, dtype=torch.bool)
    mask[list(at)] = True
    return mask


# Which positions are given and which are padding; the noised rest is what a likelihood speaks of.
LAYOUTS = {
    "plain": (None, None),
    "given first": (mask_of(0), None),
    "given ends": (mask_of(0, 2), None),
    "padded": (None, mask_of(2)),
    "given and padded": (mask_of(0), mask_of(2)),
}


def batch_of(layout, repeats):
    """Every possible text `repeats` times, under a layout, with the true nats of each text."""
    given, padding = LAYOUTS[layout]
    ids = TEXTS.repeat(repeats, 1)
    none = mask_of()
    batch = Batch(
        ids,
        valid_mask=None if padding is None else (~padding).expand(ids.shape),
        condition_mask=None if given is None else given.expand(ids.shape),
    )
    known = none if given is None else given
    return batch, LANGUAGE.nll(known, ~none if padding is None else ~padding)[POSSIBLE]


BATCHES = 10


def nats_of(likelihood, model, layout="plain", repeats=200):
    """Mean and standard error of the nats of every text over independent batches, and the true nats."""
    batch, truth = batch_of(layout, repeats)
    with torch.no_grad():
        draws = [likelihood(model, batch, rng=Rng.of(seed, len(batch.tokens))).double() for seed in range(BATCHES)]
    means = torch.stack([nats.view(repeats, -1).mean(0) for nats in draws])
    # Noise levels are stratified inside a batch, so only batches are independent of each other.
    return means.mean(0), means.std(0) / BATCHES**0.5, truth


def on_average(mean, error):
    """Mean and standard error over texts that follow the law."""
    return float(LAW @ mean), float(torch.sqrt((LAW * error).square().sum()))


def excess_of(likelihood, model, rows=15_000):
    """Nats of texts drawn from the law above their true nats: mean and standard error over independent batches."""
    means = []
    for seed in range(BATCHES):
        rng = Rng.of(100 + seed, rows)
        drawn = rng.fork("texts").categorical(LAW.float().expand(rows, -1))
        with torch.no_grad():
            nats = likelihood(model, Batch(TEXTS[drawn]), rng=rng).double()
        means.append((nats - LANGUAGE.nll()[POSSIBLE][drawn]).mean())
    return float(torch.stack(means).mean()), float(torch.stack(means).std()) / BATCHES**0.5


def by_orders(model, text, noised):
    """The masked bound of one text exactly: minus the log probability along every order of revealing, averaged."""
    orders = torch.tensor(list(permutations(noised.nonzero()[:, 0].tolist())))
    tokens = text.expand(len(orders), -1)
    x, nats = torch.where(noised, model.process.mask, tokens), torch.zeros(len(orders), 1).double()
    for at in orders.T[..., None]:  # the next position of every order
        logits = model.denoiser(x, torch.zeros(len(orders)), batch=Batch(tokens)).logits
        logp = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        nats -= logp.gather(1, at)
        x = x.scatter(1, at, tokens.gather(1, at))
    return float(nats.mean())


class Timeless(WrongDenoiser):
    """Wrong, and blind to the time: then orders of revealing are all there is to the masked bound."""

    def forward(self, xt, t, *, batch, self_cond=None):
        return super().forward(xt, torch.zeros_like(t), batch=batch, self_cond=self_cond)


def integrated(model, layout):
    """The bound of the uniform process in continuous time and the true nats of every text, by quadrature over t."""
    given, padding = (mask_of() if mask is None else mask for mask in LAYOUTS[layout])
    free, states = ~given & ~padding, torch.cartesian_prod(*[torch.arange(3)] * 3)
    xt, x0 = states.repeat(len(TEXTS), 1), TEXTS.repeat_interleave(len(states), 0)
    reached = (xt == x0)[:, ~free].all(-1)
    xt, x0 = xt[reached], x0[reached]
    batch = Batch(x0, valid_mask=(~padding).expand(x0.shape), condition_mask=given.expand(x0.shape))
    end = torch.as_tensor(model.process.graph.prior_kl(TEXTS, lambda: x0)).expand(TEXTS.shape)
    total = (end * free).sum(-1).double()
    for node, share in zip(*np.polynomial.legendre.leggauss(60), strict=True):
        u = 0.5 + 0.5 * node
        t = torch.full((len(xt),), u**2)  # nats per unit of time grow like log 1 / t
        odds = (model.process.log_likelihood(xt, x0, t).double() * free).sum(-1).exp()
        rate = model.process.kl_rate(xt, x0, model.denoiser(xt, t, batch=batch), t, batch.target_mask)[0].sum(-1)
        total = total + share * u * (odds * rate).view(len(TEXTS), -1).sum(1)
    return total, LANGUAGE.nll(given, ~padding)[POSSIBLE]


class Believing(WrongDenoiser):
    """Wrong about what the others say of a position, and right about what its own state says.

    A denoiser that does not come to believe the state as t falls has an infinite bound in continuous time.
    """

    def __init__(self, language, process):
        super().__init__(language)
        self.process = process

    def forward(self, xt, t, *, batch, self_cond=None):
        said, own = super().forward(xt, t, batch=batch), self.process.self_log_odds(xt, t)
        return said if own is None else Prediction(said.logits.scatter_add(-1, xt[..., None], own[..., None]))
