"""Block diffusion: between a causal factorisation and masked diffusion, and exactly so at both ends."""

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from torch import nn

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.alpha_schedules import CosineAlpha, Linear
from textdiffusion.diffusion.blocks import BlockProcess
from textdiffusion.diffusion.codecs import TokenCodec
from textdiffusion.networks.block_denoiser import BlockDenoiser, BlockDenoiserConfig
from textdiffusion.networks.token_denoiser import TokenDenoiser
from textdiffusion.networks.transformer import Transformer, TransformerConfig
from textdiffusion.objectives.masked import MaskedELBO, MaskedLikelihood
from textdiffusion.samplers.ancestral import Ancestral
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.blocks import BlockAncestral

from .language import IdealBlocks, Language, assemble, last

VOCAB, LENGTH = 3, 3
LANGUAGE = Language.random(VOCAB, LENGTH)
POSSIBLE = LANGUAGE.law > 0
TEXTS, LAW = LANGUAGE.ids[POSSIBLE], LANGUAGE.law[POSSIBLE].double()
SIZES = [1, 2, 3]  # 2 leaves a shorter last block
TABLES = BlockDenoiserConfig(ngram_dim=4, ngram_size=3, ngram_rows=100)


def _process(size, schedule=None, vocab_size=VOCAB):
    return BlockProcess(vocab_size, schedule or Linear(), size)


def _ideal(size, schedule=None, language=LANGUAGE):
    process = _process(size, schedule)
    return assemble(TokenCodec(VOCAB), process, IdealBlocks(process, language), window_length=LENGTH)


def _network(size, vocab_size=VOCAB, length=LENGTH, **backbone):
    """A network of no merit, in which every parameter has an effect."""
    torch.manual_seed(0)
    process = _process(size, vocab_size=vocab_size)
    denoiser = BlockDenoiser(Transformer(TransformerConfig(64, 2, cond_dim=16, **backbone)), process, TABLES)
    for p in denoiser.parameters():
        p.data = torch.randn(p.shape) * (0.2 if p.ndim > 1 else 0.1)
    return assemble(TokenCodec(vocab_size), process, denoiser.requires_grad_(False), window_length=length)


def _masks(given=(), padding=()):
    at = torch.arange(LENGTH)
    return torch.isin(at, torch.tensor(given, dtype=torch.long)), torch.isin(
        at, torch.tensor(padding, dtype=torch.long)
    )


LAYOUTS = {
    "plain": _masks(),
    "given first": _masks(given=(0,)),
    "given anywhere": _masks(given=(0, 2)),
    "padded": _masks(padding=(2,)),
    "given and padded": _masks(given=(0,), padding=(2,)),
}


def _batch(layout, repeats):
    given, padding = LAYOUTS[layout]
    ids = TEXTS.repeat(repeats, 1)
    return Batch(
        ids,
        valid_mask=(~padding).expand(ids.shape) if padding.any() else None,
        condition_mask=given.expand(ids.shape) if given.any() else None,
    )


def _truth(layout, size):
    """The nats of every text, block by block: each given the blocks before it and what is given of itself."""
    given, padding = LAYOUTS[layout]
    total = torch.zeros(len(TEXTS), dtype=torch.float64)
    at = torch.arange(LENGTH)
    for start in range(0, LENGTH, size):
        inside = (at >= start) & (at < start + size)
        total += LANGUAGE.nll(((at < start) | inside & given) & ~padding, inside & ~padding)[POSSIBLE]
    return total


def _mean(model, layout="plain", repeats=100, batches=8):
    """Mean and standard error of the likelihood of every text over independent batches."""
    batch = _batch(layout, repeats)
    with torch.no_grad():
        draws = [MaskedLikelihood()(model, batch, rng=Rng.of(s, len(batch.tokens))).double() for s in range(batches)]
    means = torch.stack([nats.view(repeats, -1).mean(0) for nats in draws])
    return means.mean(0), means.std(0) / batches**0.5


def _by_orders(model):
    """The bound of every text exactly: minus the log probability along every order of each block, averaged."""
    size, total = model.process.block_size, torch.zeros(len(TEXTS), dtype=torch.float64)
    for start in range(0, LENGTH, size):
        orders = list(permutations(range(start, min(start + size, LENGTH))))
        for order in orders:
            x = torch.where(torch.arange(LENGTH) >= start, VOCAB, TEXTS)
            for i in order:
                logits = model.denoiser(x, torch.zeros(len(x)), batch=Batch(TEXTS)).logits[:, i]
                total += nn.functional.cross_entropy(logits.double(), TEXTS[:, i], reduction="none") / len(orders)
                x[:, i] = TEXTS[:, i]
    return total


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_likelihood_with_the_ideal_denoiser_is_the_truth(size, layout):
    mean, error = _mean(_ideal(size), layout)
    truth = _truth(layout, size)
    assert bool(((mean - truth).abs() < 6 * error + 1e-4).all())
    assert float(LAW @ (mean - truth)) == pytest.approx(0.0, abs=4 * float((LAW * error).norm()) + 1e-4)


def test_the_truth_of_blocks_is_the_truth():
    """Where no given token comes after a noised one of an earlier block; elsewhere it is above, on average."""
    given, padding = LAYOUTS["given anywhere"]
    for layout in ("plain", "given first", "padded", "given and padded"):
        known, hidden = LAYOUTS[layout]
        for size in SIZES:
            torch.testing.assert_close(_truth(layout, size), LANGUAGE.nll(known, ~hidden)[POSSIBLE])
    exact = float(LAW @ LANGUAGE.nll(given, ~padding)[POSSIBLE])
    assert float(LAW @ _truth("given anywhere", 3)) == pytest.approx(exact)
    assert float(LAW @ _truth("given anywhere", 1)) > exact + 0.01


@pytest.mark.parametrize("size", SIZES)
def test_both_bounds_of_a_wrong_denoiser_are_the_average_over_orders(size):
    other = Language.random(VOCAB, LENGTH, seed=4)
    other = replace(other, probs=0.7 * other.law + 0.3 / len(other.law))
    model = _ideal(size, language=other)
    exact = _by_orders(model)
    assert float(LAW @ (exact - LANGUAGE.nll()[POSSIBLE])) > 0.1  # above the truth
    mean, error = _mean(model)
    assert bool(((mean - exact).abs() < 6 * error + 1e-4).all())
    drawn = TEXTS[Rng.of(5, 80_000).categorical(LAW.float().expand(80_000, -1))]
    with torch.no_grad():
        loss = MaskedELBO(0.0)(model, Batch(drawn), rng=Rng.of(1, len(drawn)))
    assert float(loss.total) * LENGTH == pytest.approx(float(LAW @ exact), abs=0.04)


def test_blocks_of_one_token_are_a_causal_factorisation():
    """Exact, with nothing to draw: the chain rule, a law that adds up to 1."""
    model, ids = _network(1), LANGUAGE.ids
    nats = [MaskedLikelihood()(model, Batch(ids), rng=Rng.of(seed, len(ids))) for seed in (0, 1)]
    torch.testing.assert_close(nats[0], nats[1])
    chain, seen = torch.zeros(len(ids)), model.denoiser.begin(ids)
    rows = torch.arange(len(ids))
    for i in range(LENGTH):
        blank = torch.full((len(ids), 1), VOCAB)
        law = seen(blank, torch.ones(len(ids)), batch=Batch(blank, row_ids=rows)).logits.log_softmax(-1)
        chain -= law[rows, 0, ids[:, i]]
        seen = seen.append(Batch(ids[:, i : i + 1]))
    torch.testing.assert_close(nats[0], chain, rtol=1e-5, atol=1e-5)
    assert float(torch.exp(-chain.double()).sum()) == pytest.approx(1.0, abs=1e-5)


def test_one_block_is_masked_diffusion():
    """The network, the loss, the likelihood and the samples are those of the absorbing process."""
    blocks = _network(LENGTH)
    backbone, process = blocks.denoiser.backbone, blocks.process.inside
    denoiser = TokenDenoiser(backbone, process, TABLES, time=False)
    denoiser.load_state_dict(blocks.denoiser.state_dict())
    whole = assemble(TokenCodec(VOCAB), process, denoiser.requires_grad_(False))
    batch, rng = Batch(LANGUAGE.ids), Rng.of(0, len(LANGUAGE.ids))
    xt = process.add_noise(batch.tokens, torch.full((len(batch.tokens),), 0.6), rng=rng)
    t = torch.zeros(len(xt))
    said, told = (m.denoiser(xt, t, batch=batch).logits for m in (blocks, whole))
    torch.testing.assert_close(said, told, atol=1e-5, rtol=1e-5)
    for make in (MaskedLikelihood, MaskedELBO):
        a, b = (make()(m, batch, rng=rng) for m in (blocks, whole))
        a, b = (x if isinstance(x, torch.Tensor) else x.total for x in (a, b))
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)
    request = Request.blank(len(xt), LENGTH, 6)
    a = list(BlockAncestral()(blocks, request, rng=rng))
    b = list(Ancestral()(whole, request, rng=rng.fork(0)))
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x.tokens, y.tokens)
        assert (x.index, x.total, x.t, x.nfe) == (y.index, y.total, y.t, y.nfe)
        torch.testing.assert_close(x.confidence, y.confidence, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("size", "modulation"), [(1, "none"), (2, "adaln"), (3, "none"), (20, "none")])
def test_one_pass_over_two_copies_is_a_pass_for_each_block(size, padded, modulation):
    """And the passes over keys and values kept of finished blocks say the same, to 1e-5."""
    length, rows, vocab_size = 6, 3, 7
    model = _network(size, vocab_size, modulation=modulation)
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(vocab_size, (rows, length), generator=draw)
    xt = torch.where(torch.rand(ids.shape, generator=draw) < 0.5, vocab_size, ids)
    real = torch.arange(length) < torch.tensor([6, 5, 2])[:, None] if padded else None
    batch, t = Batch(ids, valid_mask=real), torch.full((rows,), 0.5)
    said = model.denoiser(xt, t, batch=batch).logits
    seen = model.denoiser.begin(ids)
    for start in range(0, length, size):
        stop = min(start + size, length)
        # A pass that has only this block to predict, all later ones hidden.
        later = torch.arange(length) >= stop
        now = torch.where(later, vocab_size, torch.where(torch.arange(length) < start, ids, xt))
        alone = model.denoiser(now, t, batch=replace(batch, tokens=torch.where(later, vocab_size, ids))).logits
        torch.testing.assert_close(said[:, start:stop], alone[:, start:stop], atol=1e-5, rtol=1e-5)
        window = replace(batch.slice(start, stop), row_ids=torch.arange(rows))
        kept = seen(xt[:, start:stop], t, batch=window).logits
        shown = slice(None) if real is None else real[:, start:stop]
        torch.testing.assert_close(said[:, start:stop][shown], kept[shown], atol=1e-5, rtol=1e-5)
        some = torch.tensor([2, 0])
        fewer = seen(xt[some, start:stop], t[some], batch=window.select(some)).logits
        torch.testing.assert_close(fewer, kept[some], atol=1e-5, rtol=1e-5)
        seen = seen.append(window)
    together = model.denoiser.begin(ids).append(batch)
    for one, other in zip(seen.caches, together.caches, strict=True):
        torch.testing.assert_close(one.keys[0], other.keys[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_packed_examples_are_as_if_alone(size):
    model = _network(size, vocab_size=7)
    draw = torch.Generator().manual_seed(2)
    ids = torch.randint(7, (2, 8), generator=draw)
    xt = torch.where(torch.rand(ids.shape, generator=draw) < 0.5, 7, ids)
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]]).expand(2, -1)
    t = torch.full((2,), 0.5)
    packed = model.denoiser(xt, t, batch=Batch(ids, segment_ids=segments)).logits
    for cut in (slice(0, 3), slice(3, 8)):
        alone = model.denoiser(xt[:, cut], t, batch=Batch(ids[:, cut])).logits
        torch.testing.assert_close(packed[:, cut], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 2])
def test_the_likelihood_of_packed_examples_is_their_sum(size):
    model = _network(size)
    texts = LANGUAGE.ids[:20].view(10, 2, LENGTH)  # of 3 tokens, so that blocks begin anywhere in a row
    segments = torch.tensor([0, 0, 0, 1, 1, 1]).expand(10, -1)

    def mean(batch, repeats=2 if size == 1 else 200):
        rows = torch.arange(len(batch.tokens)).repeat(repeats)
        nats = MaskedLikelihood()(model, batch.select(rows), rng=Rng.of(0, len(rows)))
        return nats.view(repeats, -1).mean(0)

    packed = mean(Batch(texts.flatten(1), segment_ids=segments))
    alone = mean(Batch(texts.flatten(0, 1))).view(10, 2).sum(1)
    if size == 1:  # nothing is drawn
        torch.testing.assert_close(packed, alone, atol=1e-4, rtol=0)
    assert float(packed.mean()) == pytest.approx(float(alone.mean()), abs=0.2)


def test_the_answer_is_seen_by_later_blocks_alone():
    model = _network(2, vocab_size=7)
    ids = torch.randint(7, (2, 8), generator=torch.Generator().manual_seed(3))
    xt = torch.full_like(ids, 7)
    said = model.denoiser(xt, torch.ones(2), batch=Batch(ids)).logits
    for i in range(8):
        other = ids.clone()
        other[:, i] = (ids[:, i] + 1) % 7
        moved = (model.denoiser(xt, torch.ones(2), batch=Batch(other)).logits - said).abs().sum((0, 2)) > 1e-4
        assert moved.tolist() == [j // 2 > i // 2 for j in range(8)]


@pytest.mark.parametrize("schedule", [Linear(), CosineAlpha()], ids=repr)
@pytest.mark.parametrize("size", SIZES)
def test_samples_follow_the_law(size, schedule):
    draws = 5000
    with torch.no_grad():
        steps = LENGTH if size == 1 else 100
        ids = last(
            BlockAncestral()(_ideal(size, schedule), Request.blank(draws, LENGTH, steps), rng=Rng.of(1, draws))
        ).tokens
    assert LANGUAGE.distance(ids) < 1.6 * LANGUAGE.floor(draws)


def test_more_steps_in_a_block_come_closer():
    distances = []
    for steps in (2, 8, 32):
        request = Request.blank(8000, LENGTH, steps)
        distances.append(LANGUAGE.distance(last(BlockAncestral()(_ideal(2), request, rng=Rng.of(2, 8000))).tokens))
    assert distances[0] > distances[1] > distances[2]
    assert distances[0] > 0.1


@pytest.mark.parametrize("size", SIZES)
def test_given_tokens_are_kept_and_condition_what_comes_after(size):
    draws, text = 8000, TEXTS[LAW.argmax()]
    given = torch.tensor([False, False, True])
    batch = Batch(text.expand(draws, LENGTH), condition_mask=given.expand(draws, LENGTH))
    model = _ideal(size)
    for step in BlockAncestral()(model, Request(batch, 60), rng=Rng.of(3, draws)):
        assert bool((step.tokens[:, given] == text[given]).all())
        assert bool((step.confidence[:, given] == 1).all())
    # Block by block: a block is drawn given those before it and its own given tokens.
    law, at = torch.ones(len(LANGUAGE.ids), dtype=torch.float64), torch.arange(LENGTH)
    for start in range(0, LENGTH, size):
        inside = (at >= start) & (at < start + size)
        if bool((inside & ~given).any()):
            law *= torch.nan_to_num(torch.exp(-LANGUAGE.nll((at < start) | inside & given, inside)))
    law *= (LANGUAGE.ids[:, given] == text[given]).all(-1)
    counts = torch.bincount(LANGUAGE.number(step.tokens), minlength=len(law)) / draws
    assert float(law.sum()) == pytest.approx(1.0, abs=1e-4)
    assert float((counts - law).abs().sum() / 2) < 0.02
