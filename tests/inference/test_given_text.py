r"""Given text comes back as it was given, whatever the tokenizer makes of it."""

import json
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vocabularies import TEXT, bert_like, byte_level_bpe, llama_like, without_unknown
from textdiffusion import TextDiffusion, recipes
from textdiffusion.cli.writing import Infill
from textdiffusion.config.build import build_model
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.errors import UserError
from textdiffusion.data.tokenizers import subwords
from textdiffusion.data.tokenizers.base import END, PAD, Bytes, Characters, Tokenizer
from textdiffusion.data.tokenizers.sentencepiece import SentencePiece
from textdiffusion.views.frames import Framer, given_texts

SPECIALS = (END, PAD)
TOKENIZERS: dict[str, Tokenizer] = {
    "characters": Characters(TEXT, SPECIALS),
    "bytes": Bytes(SPECIALS),
    "words": subwords.train_words([TEXT], 0, SPECIALS),
    "bpe": subwords.train_bpe([TEXT], 300, SPECIALS),
    "wordpiece": subwords.train_wordpiece([TEXT], 160, SPECIALS, TEXT),
    "sentencepiece": SentencePiece.train([TEXT], 350, SPECIALS),
    "llama-like": llama_like().with_specials(SPECIALS),
    "roberta-like": subwords.Subwords("file", byte_level_bpe(add_prefix_space=True)).with_specials(SPECIALS),
    "bert-like": bert_like().with_specials(SPECIALS),
    "without unknown": without_unknown().with_specials(SPECIALS),
}


@cache
def run(name: str, *options: str) -> TextDiffusion:
    """A run with a small untrained network and this tokenizer."""
    small = ["backbone.width=32", "backbone.depth=1", "backbone.mlp_ratio=1", "text.length=256", "denoiser.ngram_dim=0"]
    config = apply_overrides(recipes.get("mdlm")(), [*small, "sampler.steps=2", *options])
    config = replace(config, text=replace(config.text, layout="lines"))
    torch.manual_seed(0)
    model = build_model(config, TOKENIZERS[name].vocab_size).eval().requires_grad_(False)
    return TextDiffusion(model, TOKENIZERS[name], config)


spaces = "The Dragon Inn ", " ", "  ", "\n", "\t", "\u00a0", "\u2028"
characters = "\u00e9", "e\u0301", "漢", "👨\u200d👩", "ש", '"', "RED", "(it)", " zebra.", "\\a", "x" * 101
markers = "[MASK", "[UNK]", "[END]", "##s", "\u2581", "\u0120"
parts = st.sampled_from([*spaces, *characters, *markers])
spans = st.lists(st.one_of(parts, st.text(st.characters(exclude_categories=["Cs"]), max_size=3)), max_size=3).map(
    "".join
)
templates = st.lists(spans, min_size=2, max_size=4)


def written(pieces: list[str]) -> str:
    """The template with gaps of two tokens between the given pieces."""
    return "[MASK:2]".join(piece.replace("[MASK", r"\[MASK") for piece in pieces)


def is_kept(text: str, pieces: list[str]) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pieces)), text, re.DOTALL) is not None


@pytest.mark.parametrize("name", TOKENIZERS)
@given(asked=st.lists(templates, min_size=8, max_size=8))
@settings(max_examples=8)
def test_given_text_is_kept_by_every_tokenizer(name, asked):
    # A backslash before a gap, or a bracket that closes an earlier one, makes another template.
    asked = [[piece.rstrip("\\") for piece in pieces] for pieces in asked]
    texts = run(name).infill([written(pieces) for pieces in asked])
    for text, pieces in zip(texts, asked, strict=True):
        assert is_kept(text, pieces)


def test_a_space_before_a_gap_is_written_once():
    for name, tokenizer in TOKENIZERS.items():
        token = {"words": " red", "roberta-like": " red", "bert-like": "the"}.get(name)
        for text in run(name).infill("The [MASK:1] (it)", num=3):
            assert text.startswith("The ")
            assert text.endswith(" (it)")
            gap = text.removeprefix("The ").removesuffix(" (it)")
            assert not (token and gap.startswith("  "))
            assert tokenizer.unk_id is None or tokenizer.token_text(tokenizer.unk_id) not in gap


@pytest.mark.parametrize("name", ["words", "characters", "bert-like"])
def test_every_way_to_infill_gives_the_same_text(name, tmp_path, capsys, monkeypatch):
    pieces = ["The Dragon Inn is ", " «old» \u2028", "!"]
    template, model = written(pieces), run(name)
    expected = model.infill(template, num=2)
    assert all(is_kept(text, pieces) for text in expected)
    monkeypatch.setattr(TextDiffusion, "from_pretrained", lambda *_, **__: model)
    outputs = {}
    for view in ("json", "watch", "plain"):
        Infill(run="run", template=template, num=2, json=view == "json", watch=view == "watch").execute()
        outputs[view] = capsys.readouterr()
    assert json.loads(outputs["json"].out)["texts"] == expected
    assert "loses" in outputs["json"].err
    for view in ("watch", "plain"):
        assert all(text in outputs[view].out for text in expected)


def test_pictures_show_the_given_text():
    model = run("words")
    batch = model.infill_batch("The Dragon [MASK:1] é")
    *_, last = model.stream(batch=batch)
    frame = Framer(model.tokenizer, batch.condition_mask, given_texts(batch)).frame(last)
    shown = "".join(cell.text for cell in frame.rows[0])
    assert shown == model.decode(last, batch)[0]
    assert shown.startswith("The Dragon ")


@pytest.mark.parametrize("normaliser", ["none", "lower", "text8"])
def test_a_normaliser_changes_what_the_model_reads_and_not_the_result(normaliser):
    model = run("characters", f"text.normaliser={normaliser}")
    template = "The Orange, [MASK:3] Grape."
    (text,) = model.infill(template)
    assert is_kept(text, ["The Orange, ", " Grape."])
    read = {"none": "The Orange, ", "lower": "the orange, ", "text8": "the orange "}[normaliser]
    batch = model.infill_batch(template)
    assert batch.tokens[0, : len(read)].tolist() == model.tokenizer.encode(read).tolist()
    # The text that fills the template is scored in the same letters.
    assert model.score(["The Orange, red Grape."], given=template, draws=2)[0].characters == 3
    assert model.score(["THE ORANGE"], draws=2)[0].protocol["normaliser"] == normaliser
    with pytest.raises(UserError, match="does not fill"):
        model.score([text.replace("Orange", "Grape.")], given=template)


def test_unknown_words_do_not_fill_a_template_for_each_other():
    model = run("words")
    with pytest.raises(UserError, match="does not fill"):
        model.score(["The lion red"], given="The zebra[MASK:1]")
    (score,) = model.score(["The zebra red"], given="The zebra[MASK:1]", draws=2)
    assert (score.characters, score.lost_bits) == (4, 0.0)


def test_guided_words_are_normalised_as_the_text_is():
    model = run("words", "text.normaliser=lower")
    (text,) = model.generate(1, 12, guides=["word:text=GRAPES"])
    assert "grapes" in text
    assert "grapes" not in model.generate(1, 12, guides=["without:text=Grapes"])[0]
    model = run("characters", "text.normaliser=text8")
    with pytest.raises(UserError, match=r"Nothing remains of the word '\?!'"):
        model.generate(guides=["word:text=?!"])


def test_note_on_given_text_that_the_model_reads_otherwise():
    assert run("words").reading_note("The orange[MASK:1]") is None
    note = run("words").reading_note("The zebra[MASK:1]")
    assert note is not None
    assert "loses 6 characters" in note
    assert "' zebra' as '[UNK]'" in note
    assert run("bytes").reading_note("Zébra [MASK:1]") is None


def test_pasting_ends_where_the_model_ends_the_text():
    model = run("words")
    batch = model.infill_batch("The Zebra [MASK]")
    *_, last = model.stream(batch=batch)
    tokens = last.tokens.clone()
    end = model.tokenizer.end_id
    assert end is not None
    assert batch.condition_mask is not None
    grape, start = int(model.tokenizer.encode(" grape")[0]), int(np.flatnonzero(~batch.condition_mask[0].numpy())[0])
    tokens[0, start:] = torch.tensor([grape, end] + [grape] * (tokens.shape[1] - start - 2))
    assert model.decode(replace(last, tokens=tokens), batch) == ["The Zebra grape"]
