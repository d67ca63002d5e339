"""What a network of soft tokens sees."""

import pytest
import torch

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.gaussian import GaussianProcess
from textdiffusion.diffusion.sigma_schedules import LogSigma
from textdiffusion.diffusion.table_codecs import SimplexCodec, TableCodec
from textdiffusion.networks.output_heads import X0LogitsHead
from textdiffusion.networks.simplex_denoiser import SimplexDenoiser
from textdiffusion.networks.transformer import Transformer, TransformerConfig

V, L, K = 7, 6, 5.0
CODEC = SimplexCodec(V, K)
PUBLISHED = K * (2.0 * torch.eye(V) - 1.0)
IDS = torch.randint(V, (4, L), generator=torch.Generator().manual_seed(0))


def _denoiser(reading):
    torch.manual_seed(0)
    backbone = Transformer(TransformerConfig(64, 1, modulation="adaln", cond_dim=16))
    process = GaussianProcess(LogSigma(0.5, 200.0))
    denoiser = SimplexDenoiser(backbone, process, CODEC, output_head=X0LogitsHead(64, CODEC), reading=reading)
    for p in denoiser.parameters():
        if bool((p == 0).all()):
            p.data = torch.randn(p.shape) * 0.3
    return denoiser.eval()


def _features(denoiser, *args, **kwargs):
    seen = []
    hook = denoiser.backbone.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    denoiser(*args, **kwargs)
    hook.remove()
    return seen[0]


def test_a_shrunken_state_is_the_papers_up_to_what_no_softmax_sees():
    """w_t = sqrt(a) w_0 + sqrt(1 - a) K eps with w_0 of +K and -K, and softmax(w_t) (SSD-LM, eq. 5 and 8)."""
    eps = torch.randn(4, L, V)
    for share in (0.99, 0.5, 0.02):
        published = share**0.5 * PUBLISHED[IDS] + (1 - share) ** 0.5 * K * eps
        sigma = torch.tensor(K * ((1 - share) / share) ** 0.5)
        ours = _denoiser("shrunken").soft_tokens(CODEC.encode(IDS) + sigma * eps, sigma.expand(4, 1, 1))
        torch.testing.assert_close(ours, published.softmax(-1))


def test_bayes_reading_is_the_posterior_of_a_token_without_context():
    denoiser, t = _denoiser("bayes"), torch.tensor([0.1, 0.4, 0.6, 0.9])
    assert denoiser.log_prior is not None
    torch.nn.init.zeros_(denoiser.log_prior)
    x = denoiser.process.add_noise(CODEC.encode(IDS), t, rng=Rng.of(0, 4))
    table = CODEC.table()
    likely = torch.stack([denoiser.process.log_likelihood(x, row.expand_as(x), t) for row in table], dim=-1)
    read = denoiser.soft_tokens(x, denoiser.process.sigma(t)[:, None, None])
    torch.testing.assert_close(read, likely.softmax(-1), atol=1e-4, rtol=1e-3)


def test_the_dropped_constant_changes_no_evidence():
    published = TableCodec(PUBLISHED)
    x, sigma = torch.randn(4, L, V) * 9 + CODEC.encode(IDS), torch.tensor(3.0)
    ours = CODEC.evidence(x, sigma).softmax(-1)
    torch.testing.assert_close(ours, published.evidence(x - K, sigma).softmax(-1))
    assert CODEC.norm == pytest.approx(float(CODEC.table().norm(dim=-1).mean()))


@pytest.mark.parametrize("reading", ["shrunken", "bayes"])
def test_the_earlier_estimate_is_averaged_in(reading):
    denoiser, t, batch = _denoiser(reading), torch.full((4,), 0.5), Batch(IDS)
    x = denoiser.process.add_noise(CODEC.encode(IDS), t, rng=Rng.of(0, 4))
    law = torch.randn(4, L, V).softmax(-1)
    alone = _features(denoiser, x, t, batch=batch)
    both = _features(denoiser, x, t, batch=batch, self_cond=CODEC.mean(law))
    torch.testing.assert_close(both, 0.5 * (alone + law @ denoiser.tokens))
    none = _features(denoiser, x, t, batch=batch, self_cond=torch.zeros_like(x))
    torch.testing.assert_close(none, alone)  # rows that were not chosen for it in training


@pytest.mark.parametrize("reading", ["shrunken", "bayes"])
def test_given_tokens_are_seen_and_nothing_else_of_their_place(reading):
    denoiser, t = _denoiser(reading), torch.full((4,), 0.5)
    given = torch.zeros(4, L, dtype=torch.bool)
    given[:, 2] = True
    x = denoiser.process.add_noise(CODEC.encode(IDS), t, rng=Rng.of(0, 4))
    said = denoiser(x, t, batch=Batch(IDS, condition_mask=given), self_cond=x.abs()).logits[:, [0, 1, 3, 4, 5]]
    noisier = x + 9.0 * given[..., None]
    told = denoiser(noisier, t, batch=Batch(IDS, condition_mask=given), self_cond=x.abs()).logits[:, [0, 1, 3, 4, 5]]
    torch.testing.assert_close(told, said)
    free = torch.where(given, IDS, (IDS + 1) % V)  # the answers
    again = denoiser(x, t, batch=Batch(free, condition_mask=given), self_cond=x.abs()).logits[:, [0, 1, 3, 4, 5]]
    torch.testing.assert_close(again, said)
    other = denoiser(x, t, batch=Batch((IDS + 1) % V, condition_mask=given), self_cond=x.abs()).logits[
        :, [0, 1, 3, 4, 5]
    ]
    assert not torch.allclose(other, said)
