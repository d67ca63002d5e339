"""Predictions made certain of one token."""

import pytest
import torch

from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.prediction import Prediction, one_hot_logits
from textdiffusion.diffusion.table_codecs import TableCodec
from textdiffusion.diffusion.vector_predictions import X0Prediction
from textdiffusion.networks.heads import RoundingHead
from textdiffusion.samplers.projections import (
    ClampedPrediction,
    GreedyProjection,
    NoProjection,
    SampleProjection,
    nucleus,
)

LAW = torch.tensor([0.5, 0.25, 0.15, 0.1])


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1.0, LAW), (0.9, LAW[:3] / 0.9), (0.6, LAW[:2] / 0.75), (0.5, LAW[:1] / 0.5), (1e-6, LAW[:1] / 0.5)],
)
def test_a_nucleus_is_the_smallest_set_that_reaches_its_share(share, expected):
    order = torch.tensor([2, 0, 3, 1])
    kept = nucleus(LAW[order], share)
    found = torch.zeros(4).scatter(0, order, kept)
    torch.testing.assert_close(found, torch.nn.functional.pad(expected, (0, 4 - len(expected))))


def test_projections_are_corners_drawn_from_the_law():
    rows, table = 20_000, torch.randn(4, 3)
    prediction = Prediction(torch.log(LAW).expand(rows, 1, 4).clone(), table)
    assert NoProjection()(prediction, rng=Rng.of(0, rows)) is prediction
    greedy = GreedyProjection()(prediction, rng=Rng.of(0, rows))
    torch.testing.assert_close(greedy.mean, table[0].expand(rows, 1, 3))
    drawn = SampleProjection()(prediction, rng=Rng.of(0, rows)).probs
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(drawn.mean((0, 1)), LAW, atol=0.015, rtol=0)
    few = SampleProjection(0.6)(prediction, rng=Rng.of(0, rows)).probs.mean((0, 1))
    torch.testing.assert_close(few, torch.tensor([2 / 3, 1 / 3, 0.0, 0.0]), atol=0.015, rtol=0)


class Joint(Prediction):
    """A law under which all places hold the same token."""

    def sample_joint(self, rng):
        return Prediction(one_hot_logits(rng.categorical(self.probs[:, :1]).expand(self.logits.shape[:2]), self.logits))


def test_a_law_of_whole_texts_is_drawn_from_as_a_whole():
    table = torch.randn(4, 3)
    said = Joint(torch.log(LAW).expand(50, 5, 4).clone(), table)
    for prediction in (said, ClampedPrediction(said)):
        text = SampleProjection()(prediction, rng=Rng.of(0, 50)).argmax
        assert torch.equal(text, text[:, :1].expand(50, 5))
        assert len(text.unique()) > 1
    with pytest.raises(UserError, match="use --top-p"):
        SampleProjection(0.9)(said, rng=Rng.of(0, 50))


@pytest.mark.parametrize("regressed", [False, True])
def test_clamping_moves_the_mean_to_the_nearest_token_and_leaves_what_is_read(regressed):
    draw = torch.Generator().manual_seed(4)
    table, logits, mean = (torch.randn(*shape, generator=draw) for shape in ((4, 3), (2, 5, 4), (2, 5, 3)))
    said = X0Prediction(mean, RoundingHead(TableCodec(table)), table) if regressed else Prediction(logits, table)
    clamped = ClampedPrediction(said)
    torch.testing.assert_close(clamped.mean, table[torch.cdist(said.mean, table).argmin(-1)])
    assert torch.equal(clamped.logits, said.logits)
