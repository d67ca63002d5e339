"""The likelihood bound of every Gaussian process, whatever its codec and training loss."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.randomness import Rng
from ..diffusion.densities import low_discrepancy
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.model import DiffusionModel
from ..diffusion.prediction import CHUNK_ELEMENTS, Prediction
from .base import Loss, add_noise, alternate_coin, density_fit, noise_batch, per_token, predict_x0, sample_grid_times

PARTS = 32  # of the range of ln sigma, among which a pilot pass decides


DOUBT = 1e-3  # the chance of all other tokens below which a noisy vector is read as the token it must be


SMOOTHED = 8  # times its squares are averaged with their neighbours: a few rows in each part say little by themselves


def prior_kl(process: GaussianProcess, x0: Float[Tensor, "b l d"], batch: Batch) -> Float[Tensor, " b"]:
    """|x0|^2 / (2 sigma_max^2) per row: the noise at t = 1 against the prior."""
    high = process.sigma(torch.ones((), device=x0.device))
    return 0.5 * (x0.square().sum(-1) * batch.target_mask).sum(-1) / high**2


def diffusion_loss(
    process: GaussianProcess,
    x0: Float[Tensor, "b l d"],
    mean: Float[Tensor, "b l d"],
    t: Float[Tensor, " b"],
    batch: Batch,
) -> Float[Tensor, " b"]:
    """|x0 - D(x_t)|^2 / sigma^2 d ln sigma / dt per row: what the bound is the integral of, over t."""
    error = ((x0 - mean).square().sum(-1) * batch.target_mask).sum(-1)
    return error / process.sigma(t) ** 2 * process.dlogsigma_dt(t)


def denoise(
    model: DiffusionModel, xt: Float[Tensor, "b l d"], t: Float[Tensor, " b"], batch: Batch
) -> Float[Tensor, "b l d"]:
    """D(x_t): the model's mean, but a token's own vector where Bayes' rule leaves less than `DOUBT` for all others.

    Its prior is uniform. A network that misreads one such place costs |x0 - D|^2 / sigma^2, thousands of nats at the
    lowest noise.
    """
    mean, sigma = predict_x0(model, xt, t, batch).mean, model.process.sigma(t)[:, None, None]
    rows = max(1, CHUNK_ELEMENTS // (xt.shape[1] * model.codec.vocab_size))
    read = [_read(model, *part) for part in zip(xt.split(rows), sigma.split(rows), mean.split(rows), strict=True)]
    return torch.cat(read)


def _read(
    model: DiffusionModel, xt: Float[Tensor, "b l d"], sigma: Float[Tensor, "b 1 1"], mean: Float[Tensor, "b l d"]
) -> Float[Tensor, "b l d"]:
    evidence = model.codec.evidence(xt, sigma)
    best, ids = evidence.max(-1, keepdim=True)
    doubtful = torch.logsumexp(evidence - best, -1, keepdim=True) >= DOUBT
    return torch.where(doubtful, mean, model.codec.encode(ids[..., 0]))


def reconstruction_nll(
    model: DiffusionModel, near: Float[Tensor, "b l d"], batch: Batch, learned: bool
) -> Float[Tensor, " b"]:
    """-log p(x | x_sigma_min) per row, by Bayes' rule over the table or by the model's own prediction."""
    zero = torch.zeros(len(near), device=near.device)
    if learned:
        decoder = predict_x0(model, near, zero, batch)
    else:
        decoder = Prediction(model.codec.evidence(near, model.process.sigma(zero[0])))
    return decoder.nll(batch.tokens, batch.target_mask).sum(-1)


class GaussianLikelihood(nn.Module):
    """An upper bound on -log p(x), nats per row, in the variance-exploding frame (specs: continuous 5.1; VDM, eq. 12):

        |x0|^2 / (2 sigma_max^2)  +  E[-log p(x | x_sigma_min)]  +  integral of |x0 - D(x_t)|^2 / sigma^2  d ln sigma

    The decoder of the middle term is Bayes' rule over the table with a uniform prior or, with `learned_decoder`, the
    model's own prediction at the lowest noise (Plaid). D is the posterior mean, with two passes where the denoiser
    takes self-conditioning, and a token's own vector where x_t leaves no doubt (`denoised`): a function of x_t alone,
    as the bound demands. A share `uniform` of the noise levels is drawn evenly in ln sigma so that no part of the
    integral goes unseen; the others follow the model's density or, once `aimed`, what a pilot saw of the integrand.
    """

    exact = False
    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __init__(self, uniform: float = 0.2, *, learned_decoder: bool = False) -> None:
        super().__init__()
        self.uniform, self.learned_decoder = uniform, learned_decoder
        self.shares: Float[Tensor, " k"] | None = None

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, " b"]:
        """One unbiased draw per row; the noise level is stratified over the rows."""
        process = model.process
        x0 = model.codec.encode(batch.tokens)
        zero = torch.zeros(len(x0), device=x0.device)
        near = add_noise(model, x0, zero, batch, rng=rng.fork("decoder"))
        decoded = reconstruction_nll(model, near, batch, self.learned_decoder)
        t, log_density = self._draw(model, low_discrepancy(rng.fork("t"), batch.global_batch_size or len(x0)))
        missed = self._missed(model, x0, t, batch, rng)
        return prior_kl(process, x0, batch) + decoded + missed * torch.exp(-log_density)

    def pilot(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Float[Tensor, "b 2"]:
        """A share u of the range of ln sigma for each row, even over the rows, and the integrand over u there."""
        x0, u = (
            model.codec.encode(batch.tokens),
            low_discrepancy(rng.fork("t"), batch.global_batch_size or len(batch.tokens)),
        )
        t, slope = self._even(model, u)
        return torch.stack((u, self._missed(model, x0, t, batch, rng) / slope), dim=-1)

    def importance_sampled(self, pilot: Float[Tensor, "n 2"]) -> GaussianLikelihood:
        """The same bound, drawn in proportion to the root mean square of the integrand in each part of ln sigma.

        That is the density of least variance. It stays unbiased, for the pilot's draws are not the ones that count.
        """
        place = (pilot[:, 0] * PARTS).long().clamp(max=PARTS - 1)
        sums = pilot.new_zeros(2, PARTS).index_add(
            1, place, torch.stack((pilot[:, 1] ** 2, torch.ones_like(pilot[:, 1])))
        )
        for _ in range(SMOOTHED):
            padded = torch.cat((sums[:, :1], sums, sums[:, -1:]), dim=-1)
            sums = 0.25 * padded[:, :-2] + 0.5 * padded[:, 1:-1] + 0.25 * padded[:, 2:]
        size = torch.sqrt(sums[0] / sums[1].clamp(min=1e-30)).clamp(min=1e-12)
        other = GaussianLikelihood(self.uniform, learned_decoder=self.learned_decoder)
        other.shares = torch.lerp(size / size.sum(), torch.full_like(size, 1.0 / PARTS), other.uniform)
        return other

    def _missed(
        self, model: DiffusionModel, x0: Float[Tensor, "b l d"], t: Float[Tensor, " b"], batch: Batch, rng: Rng
    ) -> Float[Tensor, " b"]:
        xt = add_noise(model, x0, t, batch, rng=rng.fork("noise"))
        return diffusion_loss(model.process, x0, denoise(model, xt, t, batch), t, batch)

    def _even(self, model: DiffusionModel, u: Float[Tensor, " b"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """The t at the shares u of the range of ln sigma, and the slopes of the share there."""
        low, high = ends(model, u)
        t = model.process.schedule.time(low * (high / low) ** u)
        return t, model.process.dlogsigma_dt(t) / torch.log(high / low)

    def _draw(self, model: DiffusionModel, u: Float[Tensor, " b"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """The t of uniforms, and its log density."""
        if self.shares is not None:
            shares = self.shares.to(u)
            above = shares.cumsum(0)
            i = torch.searchsorted(above, u).clamp(max=PARTS - 1)
            t, slope = self._even(model, ((i + 1 - (above[i] - u) / shares[i]) / PARTS).clamp(0.0, 1.0))
            return t, torch.log(shares[i] * PARTS * slope)
        share, (low, high) = self.uniform, ends(model, u)
        warped = model.time_density.icdf(((u - share) / (1.0 - share)).clamp(1e-6, 1.0 - 1e-6))
        t = torch.where(u < share, self._even(model, u / share)[0], warped)
        slope = model.process.dlogsigma_dt(t) / torch.log(high / low)
        return t, torch.log((1.0 - share) * torch.exp(model.time_density.log_prob(t)) + share * slope)


def ends(model: DiffusionModel, like: Tensor) -> Float[Tensor, "2"]:
    """The lowest and the highest sigma."""
    return model.process.sigma(torch.arange(2.0, device=like.device))


class GaussianELBO(nn.Module):
    """The bound of `GaussianLikelihood` with a learned decoder, in nats per token (Plaid, section 3).

    The denoiser is the network alone, so that it learns at every noise level.

    One row in `every` is decoded, from the lowest noise; the others are denoised at a noise level each; both are
    weighted by their share. The bound trains the network, the embeddings and the ends of the schedule; the noise
    density sees the integrand. All of it is float32.
    """

    processes: ClassVar[tuple[type, ...]] = (GaussianProcess,)

    def __init__(self, every: int = 8) -> None:
        super().__init__()
        self.every = every

    def forward(self, model: DiffusionModel, batch: Batch, *, rng: Rng) -> Loss:
        """One unbiased draw per row."""
        decoding = alternate_coin(rng.fork("decoding"), self.every)
        at = sample_grid_times(model, batch, rng=rng)
        t = torch.where(decoding, 0.0, at)
        drawn = noise_batch(model, batch, rng=rng, t=t)
        missed = diffusion_loss(model.process, drawn.x0, drawn.prediction.mean, t, batch)
        decoded = drawn.prediction.nll(batch.tokens, batch.target_mask & decoding[:, None]).sum(-1)
        weighted = missed * torch.exp(-model.time_density.log_prob(at)) * self.every / (self.every - 1)
        nats = prior_kl(model.process, drawn.x0, batch) + torch.where(decoding, decoded * self.every, weighted)
        total = per_token(nats, batch).mean()
        fit = density_fit(model, at, per_token(missed, batch), ~decoding)
        return Loss(total + fit, {"bound": total.detach(), "density_fit": fit.detach()})
