"""Vectors that others trained, from files to the rows of a table."""

import pytest
import torch
from safetensors.torch import save_file

from tests.models import model_of
from textdiffusion import recipes
from textdiffusion.core.errors import UserError
from textdiffusion.core.registry import build
from textdiffusion.data.tokenizers.base import Characters
from textdiffusion.data.tokenizers.subwords import train_words
from textdiffusion.diffusion.table_codecs import EmbeddingCodec
from textdiffusion.networks.bert import load_pretrained_embeddings

TOKENIZER = Characters("abcd e")
VECTORS = "6 3\na 1 2 2\nb 0 0 3\nz 9 9 9\nd -1 0 0\n"


def _codec(dim=3, vocab_size=TOKENIZER.vocab_size):
    torch.manual_seed(0)
    return EmbeddingCodec(torch.randn(vocab_size, dim), learned=True, unit=dim**0.5)


def _row(codec, token, tokenizer=TOKENIZER):
    names = [tokenizer.token_text(i).strip() for i in range(tokenizer.vocab_size)]
    return codec.weight.detach()[names.index(token)]


def test_lines_are_matched_by_token_and_scaled_together(tmp_path):
    (tmp_path / "v.txt").write_text(VECTORS, encoding="utf-8")
    codec, before = _codec(), _codec()
    assert load_pretrained_embeddings(codec, tmp_path / "v.txt", TOKENIZER).startswith("3 of 6 tokens")
    found = {"a": [1.0, 2.0, 2.0], "b": [0.0, 0.0, 3.0], "d": [-1.0, 0.0, 0.0]}
    factor = torch.tensor(list(found.values())).square().mean().rsqrt()  # root mean square 1, the unit of noise
    for token, numbers in found.items():
        torch.testing.assert_close(_row(codec, token), torch.tensor(numbers) * factor)
    for token in "ce":
        assert torch.equal(_row(codec, token), _row(before, token))


def test_words_are_matched_without_the_space_they_keep(tmp_path):
    words = train_words(iter(["a red pear , a ripe pear"]), 0, ())
    (tmp_path / "v.txt").write_text("pear 1 2 2\nripe 0 1 0\n", encoding="utf-8")
    codec = _codec(vocab_size=words.vocab_size)
    assert load_pretrained_embeddings(codec, tmp_path / "v.txt", words).startswith("2 of")
    ratio = _row(codec, "pear", words) / _row(codec, "ripe", words)[1]
    torch.testing.assert_close(ratio, torch.tensor([1.0, 2.0, 2.0]))


def test_a_table_in_the_order_of_the_tokenizer(tmp_path):
    table = torch.randn(6, 3)
    save_file({"weight": table}, tmp_path / "v.safetensors")
    codec = _codec()
    load_pretrained_embeddings(codec, tmp_path / "v.safetensors", TOKENIZER)
    torch.testing.assert_close(codec.weight.detach(), table * table.square().mean().rsqrt())


def test_the_words_of_an_encoder_in_a_folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\na\nc\n##a\n", encoding="utf-8")
    save_file({"bert.embeddings.word_embeddings.weight": torch.arange(15.0).view(5, 3)}, tmp_path / "model.safetensors")
    codec = _codec()
    assert load_pretrained_embeddings(codec, tmp_path, TOKENIZER).startswith("2 of 6")
    torch.testing.assert_close(_row(codec, "c") / _row(codec, "a"), torch.tensor([9 / 6, 10 / 7, 11 / 8]))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("v.txt", "q 1 2 3\n", "no vector for any token"),
        ("v.txt", "a 1 2 3 4\n", "vectors of 4 numbers; set codec.dim=4"),
        ("v.txt", "a 1 2 3\nb one two three\n", "Line 2 of .* is not a token followed by numbers"),
        ("absent.txt", None, "cannot be read"),
        ("absent.safetensors", None, "is missing"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_pretrained_embeddings(_codec(), tmp_path / name, TOKENIZER)


def test_the_unit_of_noise_stays_where_the_vectors_began():
    """However far they have moved; their scale is seen by the bound, whose prior term counts it."""
    config = recipes.get("diffusion_lm")()
    model, ends = model_of(config, 9), torch.tensor([0.0, 1.0])
    before = model.process.sigma(ends)
    with torch.no_grad():
        model.codec.weight *= 3.0
    assert model.codec.norm == 4.0
    rebuilt = build(config.process, codec=model.codec)
    assert torch.equal(rebuilt.sigma(ends), before)
