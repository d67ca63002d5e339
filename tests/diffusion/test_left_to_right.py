"""Autoregression as a process."""

import torch

from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.autoregressive import AutoregressiveProcess


def test_the_last_share_t_is_masked():
    process, x0 = AutoregressiveProcess(5), torch.arange(5)[None].repeat(3, 1)
    xt = process.add_noise(x0, torch.tensor([0.0, 0.4, 1.0]), rng=Rng.of(0, 3))
    assert xt.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 5, 5], [5, 5, 5, 5, 5]]
    assert torch.equal(process.sample_prior(x0, rng=Rng.of(0, 3)), torch.full_like(x0, 5))


def test_a_state_that_is_not_the_corrupted_row_is_impossible():
    process, x0, t = AutoregressiveProcess(5), torch.arange(5)[None], torch.tensor([0.4])
    xt = process.add_noise(x0, t, rng=Rng.of(0, 1))
    assert process.log_likelihood(xt, x0, t).tolist() == [[0.0] * 5]
    xt[0, 1], xt[0, 4] = 3, 4  # another token, and one that should be masked
    assert process.log_likelihood(xt, x0, t).exp().tolist() == [[1.0, 0.0, 1.0, 1.0, 0.0]]
