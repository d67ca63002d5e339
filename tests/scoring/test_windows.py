"""Texts as windows: a prefix before them, a template around them."""

import pytest
import torch

from textdiffusion import TextDiffusion
from textdiffusion.core.errors import UserError
from textdiffusion.data.config import TextConfig
from textdiffusion.data.tokenizers.base import Characters
from textdiffusion.scoring.windows import Texts

ABC = Characters("abc")
ENDED = Characters("abc", ("[END]", "[PAD]"))


def test_a_prefix_is_given_and_not_counted():
    batch = Texts(["ab"], ABC, TextConfig(length=6), prefix="cc").windows([0])
    assert batch.tokens.tolist() == [[2, 2, 0, 1]]
    assert batch.target_mask.tolist() == [[False, False, True, True]]
    assert batch.num_chars is not None
    assert batch.num_chars.tolist() == [2]


def test_of_a_long_prefix_the_end_is_kept():
    batch = Texts(["ab"], ABC, TextConfig(length=4), prefix="abcbac").windows([0])
    assert batch.tokens.tolist() == [[0, 2, 0, 1]]
    assert batch.valid_mask is None
    with pytest.raises(UserError, match="4 tokens leaves no room for a prefix in a window of 4"):
        Texts(["abca"], ABC, TextConfig(length=4), prefix="a")


def test_only_the_gaps_of_a_template_are_measured():
    batch = Texts(["abcab"], ABC, TextConfig(length=8), given="a[MASK:2]a[MASK:1]").windows([0])
    assert batch.tokens.tolist() == [[0, 1, 2, 0, 1]]
    assert batch.target_mask.tolist() == [[False, True, True, False, True]]
    assert batch.num_chars is not None
    assert batch.num_chars.tolist() == [3]


def test_ends_and_modelled_padding_are_given_around_a_template():
    config = TextConfig(length=5, layout="lines", model_padding=True)
    batch = Texts(["ab"], ENDED, config, given="a[MASK:1]").windows([0])
    assert batch.tokens.tolist() == [[0, 1, ENDED.end_id, ENDED.pad_id, ENDED.pad_id]]
    assert batch.target_mask.tolist() == [[False, True, False, False, False]]
    assert batch.num_chars is not None
    assert batch.num_chars.tolist() == [1]


@pytest.mark.parametrize("text", ["ab", "bbc", "abcc"])
def test_a_text_must_fill_its_template(text):
    with pytest.raises(UserError, match=r"does not fill the template"):
        Texts([text], ABC, TextConfig(length=8), given="a[MASK:2]")


def test_a_prefix_and_a_template_exclude_each_other():
    with pytest.raises(UserError, match="part of the template"):
        Texts(["ab"], ABC, TextConfig(length=8), given="a[MASK:1]", prefix="a")


def test_prefix_and_text_add_up_to_the_whole_where_the_likelihood_is_exact(tiny_run):
    model = TextDiffusion.from_pretrained(tiny_run("autoregressive"), device="cpu")
    whole, first = model.score(["The red pear", "The red"])
    (rest,) = model.score([" pear"], prefix="The red")
    assert rest.characters == 5
    assert first.total + rest.total == pytest.approx(whole.total, abs=1e-3)
    (filled,) = model.score(["The red pear"], given="The red[MASK:5]")
    assert filled.total == pytest.approx(rest.total, abs=1e-4)
    assert filled.digest != rest.digest


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd", "sedd", "udlm", "block_diffusion"])
def test_every_family_scores_what_it_fills_in(tiny_run, recipe):
    model = TextDiffusion.from_pretrained(tiny_run(recipe), device="cpu")
    template = "The [MASK:3] pear"
    texts = model.infill(template, num=2)
    scores = model.score(texts, given=template, draws=2)
    assert [score.characters for score in scores] == [3, 3]
    assert all(0 < score.bits < 60 for score in scores)
    assert model.score(texts[:1], given=template, draws=2) == scores[:1]


def test_prefixes_must_be_as_many_as_texts(tiny_run):
    model = TextDiffusion.from_pretrained(tiny_run("autoregressive"), device="cpu")
    with pytest.raises(UserError, match="2 prefixes for 1 texts"):
        model.score(["a"], prefix=["The", "red"])
    both = model.score([" pear", " pear"], prefix=["The red", "The old"])
    alone = model.score([" pear"], prefix="The old")
    assert both[1].bits == pytest.approx(alone[0].bits)
    assert both[0].bits != both[1].bits
    assert torch.isfinite(torch.tensor([score.bits for score in both])).all()
