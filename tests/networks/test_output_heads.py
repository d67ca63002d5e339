"""Parameterisations of the continuous families: what a network must say for the prediction to be right."""

import pytest
import torch

from textdiffusion.diffusion.table_codecs import EmbeddingCodec, SimplexCodec
from textdiffusion.networks.output_heads import X0Regression, X0RegressionHead

CODECS = {
    "embeddings": EmbeddingCodec(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), normalise="l2"),
    "simplex": SimplexCodec(5),
}
every_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)


def _states(codec, rows=4000):
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(codec.vocab_size, (rows, 1), generator=draw)
    scale = codec.norm / codec.dim**0.5
    sigma = scale * torch.tensor([0.05, 0.5, 1.0, 3.0, 20.0]).repeat(rows // 5)[:, None, None]
    x0 = codec.encode(ids)
    return ids, x0, x0 + sigma * torch.randn(x0.shape, generator=draw), sigma, scale


@every_codec
@pytest.mark.parametrize("kind", ["none", "karras", "tanh"])
def test_the_ideal_output_gives_the_ideal_denoiser(codec, kind):
    """D = c_skip x + c_out F, whatever D is: here Bayes' rule for one token (EDM, eq. 7)."""
    _, _, x, sigma, scale = _states(codec)
    probs = codec.evidence(x, sigma).softmax(-1)
    ideal = probs @ codec.table()
    head = X0RegressionHead(codec.dim, codec, X0Regression(kind))
    torch.nn.init.eye_(head.output.weight)
    skip, out = head.coefficients(sigma / scale)
    said = head((ideal - skip * x) / (out * scale), x, sigma)
    torch.testing.assert_close(said.mean, ideal, rtol=1e-3, atol=1e-3)


def test_karras_gives_the_network_a_target_of_unit_variance_and_the_least_of_its_error():
    """EDM, appendix B.6: Var[(x0 - c_skip x) / c_out] = 1, and c_skip is where c_out is least."""
    codec = CODECS["embeddings"]
    _, x0, x, sigma, scale = _states(codec, 20_000)
    head = X0RegressionHead(4, codec, X0Regression("karras"))
    skip, out = head.coefficients(sigma / scale)
    target = (x0 - skip * x) / (out * scale)
    variance = target.square().mean((1, 2)).view(-1, 5).mean(0)
    torch.testing.assert_close(variance, torch.ones(5), rtol=0.05, atol=0)
    for shifted in (skip - 0.05, skip + 0.05):
        least = (1.0 - shifted) ** 2 + shifted**2 * (sigma / scale) ** 2
        assert bool((least > out**2).all())


@pytest.mark.parametrize("kind", ["karras", "tanh"])
def test_clean_states_pass_and_noise_is_left_to_the_network(kind):
    head = X0RegressionHead(4, CODECS["embeddings"], X0Regression(kind))
    for noise, skips, outs in ((1e-4, 1.0, 0.0), (1e4, 0.0, 1.0)):
        skip, out = head.coefficients(torch.tensor(noise))
        assert float(skip) == pytest.approx(skips, abs=2e-4)
        assert float(out) == pytest.approx(outs, abs=2e-4)


@every_codec
def test_an_interpolated_mean_is_that_of_the_tokens_read(codec):
    _, _, x, sigma, _ = _states(codec, 10)
    hidden = torch.randn(10, 1, 4)
    made = {}
    for interpolated in (False, True):
        torch.manual_seed(0)
        head = X0RegressionHead(4, codec, X0Regression("karras", mean_from_logits=interpolated))
        made[interpolated] = head(hidden, x, sigma)
    torch.testing.assert_close(made[True].logits, made[False].logits)
    torch.testing.assert_close(made[True].mean, made[True].probs @ codec.table())
    assert not torch.allclose(made[True].mean, made[False].mean)


def test_a_fresh_preconditioned_network_reads_the_nearest_token_at_low_noise():
    codec = CODECS["embeddings"]
    ids, _, x, sigma, _ = _states(codec)
    head = X0RegressionHead(4, codec, X0Regression("karras"))
    read = head(torch.randn(len(x), 1, 4), x, sigma).logits.argmax(-1)
    near = sigma[:, 0, 0] < 0.1
    assert torch.equal(read[near], ids[near])
