"""The likelihood bound of Gaussian processes, for any codec and training loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.batch import Batch
from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import PerRow, Times, Vectors
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import CHUNK_ELEMENTS, Prediction
from .base import Likelihood, Loss, Objective, add_noise, per_token, stratified_uniforms
from .noised_batch import density_fit, every_nth_row, noise_batch, predict_x0, sample_grid_times

MAX_DOUBT = 1e-3  # a noisy vector is read as a token if Bayes' rule gives all others less than about this
UNIFORM_MIX = 0.2  # fraction of the evaluation's noise levels that is uniform in ln sigma
BINS = 32  # equal bins of the range of ln sigma in which a pilot pass measures the integrand
SMOOTHING_PASSES = 8  # a bin has few pilot rows, so its squares are averaged with its neighbours' this many times


def sigma_range(model: DiffusionModel, like: Tensor) -> Float[Tensor, "2"]:
    """The lowest and the highest sigma of the process, on the device of `like`."""
    return model.process.sigma(torch.arange(2.0, device=like.device))


def prior_kl(process: GaussianProcess, x0: Vectors, batch: Batch) -> PerRow:
    """|x0|^2 / (2 sigma_max^2), nats per row: the KL of q(x_1 | x_0) from the prior."""
    sigma_max = process.sigma(torch.ones(1, device=x0.device))
    return 0.5 * (x0.square().sum(-1) * batch.target_mask).sum(-1) / sigma_max**2


def diffusion_loss(process: GaussianProcess, x0: Vectors, mean: Vectors, t: Times, batch: Batch) -> PerRow:
    """|x0 - D(x_t)|^2 / sigma^2 d ln sigma / dt per row: the bound's integrand over t, in nats per unit of t."""
    error = ((x0 - mean).square().sum(-1) * batch.target_mask).sum(-1)
    return error / process.sigma(t) ** 2 * process.dlogsigma_dt(t)


def denoise(model: DiffusionModel, xt: Vectors, t: Times, batch: Batch) -> Vectors:
    """D(x_t): the model's mean, but the vector of one token where Bayes' rule with a uniform prior is sure of it.

    Sure means that all other tokens together have less than `MAX_DOUBT` of its probability. A network that misreads
    one such position would cost |x0 - D|^2 / sigma^2, thousands of nats at the lowest noise.
    """
    mean, sigma = predict_x0(model, xt, t, batch).mean, model.process.sigma(t)[:, None, None]
    rows = max(1, CHUNK_ELEMENTS // (xt.shape[1] * model.codec.vocab_size))
    chunks = zip(xt.split(rows), sigma.split(rows), mean.split(rows), strict=True)
    return torch.cat([_round_if_sure(model, *chunk) for chunk in chunks])


def _round_if_sure(model: DiffusionModel, xt: Vectors, sigma: Float[Tensor, "b 1 1"], mean: Vectors) -> Vectors:
    evidence = model.codec.evidence(xt, sigma)
    best, ids = evidence.max(-1, keepdim=True)
    doubtful = torch.logsumexp(evidence - best, -1, keepdim=True) >= MAX_DOUBT
    return torch.where(doubtful, mean, model.codec.encode(ids[..., 0]))


def reconstruction_nll(model: DiffusionModel, x_min: Vectors, batch: Batch, learned_decoder: bool) -> PerRow:
    """-log p(x | x_sigma_min), nats per row, by the model's own prediction or by Bayes' rule over the table."""
    zero = torch.zeros(len(x_min), device=x_min.device)
    if learned_decoder:
        decoder = predict_x0(model, x_min, zero, batch)
    else:
        decoder = Prediction(model.codec.evidence(x_min, model.process.sigma_over(zero, x_min)))
    return decoder.nll(batch.tokens, batch.target_mask).sum(-1)


@runtime_checkable
class TimeProposal(Protocol):
    """The times at which the bound's integral is estimated: maps uniforms to times and their log densities."""

    def __call__(self, model: DiffusionModel, u: PerRow) -> tuple[Times, PerRow]: ...


@dataclass(frozen=True)
class MixtureTimes:
    """The model's time density, with a fraction `uniform_mix` uniform in ln sigma so that no noise level is missed."""

    uniform_mix: float = UNIFORM_MIX

    def __call__(self, model: DiffusionModel, u: PerRow) -> tuple[Times, PerRow]:
        mix, (low, high) = self.uniform_mix, sigma_range(model, u)
        learned = model.time_density.icdf(((u - mix) / (1.0 - mix)).clamp(1e-6, 1.0 - 1e-6))
        t = torch.where(u < mix, uniform_in_log_sigma(model, u / mix)[0], learned)
        density = model.process.dlogsigma_dt(t) / torch.log(high / low)
        return t, torch.log((1.0 - mix) * torch.exp(model.time_density.log_prob(t)) + mix * density)


@dataclass(frozen=True)
class BinnedTimes:
    """Piecewise uniform in ln sigma: `probs` are the probabilities of equal bins of its range."""

    probs: Float[Tensor, " k"]

    @classmethod
    def from_pilot(cls, pilot: Float[Tensor, "n 2"]) -> BinnedTimes:
        """Bins in proportion to the integrand's root mean square, the density of least variance, mixed with uniform.

        `pilot` holds positions in the range of ln sigma (0 to 1) and the integrand there.
        """
        bins = (pilot[:, 0] * BINS).long().clamp(max=BINS - 1)
        squares_and_ones = torch.stack((pilot[:, 1] ** 2, torch.ones_like(pilot[:, 1])))
        sums = pilot.new_zeros(2, BINS).index_add(1, bins, squares_and_ones)
        for _ in range(SMOOTHING_PASSES):
            padded = torch.cat((sums[:, :1], sums, sums[:, -1:]), dim=-1)
            sums = 0.25 * padded[:, :-2] + 0.5 * padded[:, 1:-1] + 0.25 * padded[:, 2:]
        size = torch.sqrt(sums[0] / sums[1].clamp(min=1e-30)).clamp(min=1e-12)
        return cls(torch.lerp(size / size.sum(), torch.full_like(size, 1.0 / BINS), UNIFORM_MIX))

    def __call__(self, model: DiffusionModel, u: PerRow) -> tuple[Times, PerRow]:
        probs = self.probs.to(u)
        cumulative = probs.cumsum(0)
        i = torch.searchsorted(cumulative, u).clamp(max=BINS - 1)
        position = ((i + 1 - (cumulative[i] - u) / probs[i]) / BINS).clamp(0.0, 1.0)
        t, density = uniform_in_log_sigma(model, position)
        return t, torch.log(probs[i] * BINS * density)


def uniform_in_log_sigma(model: DiffusionModel, position: PerRow) -> tuple[Times, PerRow]:
    """The times at positions (0 to 1) in the range of ln sigma, and d position / dt, the density of even positions."""
    low, high = sigma_range(model, position)
    t = model.process.schedule.time(low * (high / low) ** position)
    return t, model.process.dlogsigma_dt(t) / torch.log(high / low)


@dataclass(frozen=True)
class GaussianEstimator:
    """`GaussianLikelihood` with the noise levels of a proposal."""

    proposal: TimeProposal
    learned_decoder: bool = False

    exact: ClassVar[bool] = False

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> PerRow:
        """One unbiased estimate per row; the noise level is stratified over the rows."""
        x0 = model.codec.encode(batch.tokens)
        zero = torch.zeros(len(x0), device=x0.device)
        x_min = add_noise(model, x0, zero, batch, rng=rng.fork("decoder"))
        reconstruction = reconstruction_nll(model, x_min, batch, self.learned_decoder)
        t, log_density = self.proposal(model, stratified_uniforms(batch, rng=rng.fork("t")))
        integrand = _integrand(model, x0, t, batch, rng)
        return prior_kl(model.process, x0, batch) + reconstruction + integrand * torch.exp(-log_density)


@dataclass(frozen=True)
class GaussianLikelihood(Likelihood):
    """An upper bound on -log p(x), nats per row, in the variance-exploding frame (VDM, eq. 12):

        |x0|^2 / (2 sigma_max^2)  +  E[-log p(x | x_sigma_min)]  +  integral of |x0 - D(x_t)|^2 / sigma^2  d ln sigma

    The decoder of the middle term is Bayes' rule over the table with a uniform prior or, with `learned_decoder`, the
    model's own prediction at the lowest noise (Plaid). D is the posterior mean, by two passes if the denoiser has
    self-conditioning, and a token's own vector where x_t leaves no doubt (`denoise`): a function of x_t alone, as the
    bound demands. Noise levels follow `MixtureTimes` or, once `importance_sampled`, `BinnedTimes`.
    """

    learned_decoder: bool = False

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> PerRow:
        """One unbiased estimate per row; the noise level is stratified over the rows."""
        return GaussianEstimator(MixtureTimes(), self.learned_decoder)(model, batch, rng=rng)

    def pilot(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, "b 2"]:
        """A position (0 to 1) in the range of ln sigma for each row, stratified, and the integrand over it there."""
        x0 = model.codec.encode(batch.tokens)
        position = stratified_uniforms(batch, rng=rng.fork("t"))
        t, density = uniform_in_log_sigma(model, position)
        return torch.stack((position, _integrand(model, x0, t, batch, rng) / density), dim=-1)

    def importance_sampled(self, pilot: Float[Tensor, "n 2"]) -> GaussianEstimator:
        """The same bound with less variance. It stays unbiased, as the pilot's draws are not part of the estimate."""
        return GaussianEstimator(BinnedTimes.from_pilot(pilot), self.learned_decoder)


def _integrand(model: DiffusionModel, x0: Vectors, t: Times, batch: Batch, rng: Rng) -> PerRow:
    xt = add_noise(model, x0, t, batch, rng=rng.fork("noise"))
    return diffusion_loss(model.process, x0, denoise(model, xt, t, batch), t, batch)


@dataclass(frozen=True)
class GaussianELBO(Objective):
    """The bound of `GaussianLikelihood` with a learned decoder, nats per token (Plaid, section 3).

    D is the network's mean alone, so that it learns at every noise level. One row in `every` trains the decoder at the
    lowest noise, the others the denoiser at one noise level each; each kind is weighted by the inverse of its fraction.
    The bound trains the network, the embeddings and the ends of the schedule; the time density is fitted to the
    integrand. All of it is float32.
    """

    every: int = 8

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __post_init__(self) -> None:
        check_bounds(self, every=(2, None))

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """One unbiased estimate per row."""
        decoding = every_nth_row(rng.fork("decoding"), self.every)
        sampled_t = sample_grid_times(model, batch, rng=rng)
        t = torch.where(decoding, 0.0, sampled_t)
        noised = noise_batch(model, batch, rng=rng, t=t)
        integrand = diffusion_loss(model.process, noised.x0, noised.prediction.mean, t, batch)
        reconstruction = noised.prediction.nll(batch.tokens, batch.target_mask & decoding[:, None]).sum(-1)
        weighted = integrand * torch.exp(-model.time_density.log_prob(sampled_t)) * self.every / (self.every - 1)
        nats = prior_kl(model.process, noised.x0, batch) + torch.where(decoding, reconstruction * self.every, weighted)
        total = per_token(nats, batch).mean()
        fit = density_fit(model, sampled_t, per_token(integrand, batch), ~decoding)
        return Loss(total + fit, {"bound": total.detach(), "density_fit": fit.detach()})
