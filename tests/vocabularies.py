"""Small tokenizers of every kind that other projects have, for tests."""

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Engine

from textdiffusion.data.tokenizers.base import UNK
from textdiffusion.data.tokenizers.subwords import Subwords, byte_level

TEXT = "The orange  grape is red (it), don't you think?\n\tAll the oranges are grapes.\n"


def llama_like() -> Subwords:
    """BPE of letters with byte fallback, `▁` for spaces and one before the text."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = sorted({*TEXT.replace(" ", "▁")} - {"\n", "\t"})
    vocabulary = {token: i for i, token in enumerate(["<unk>", *bytes_, *letters, "▁T", "▁Th"])}
    merges = [("▁", "T"), ("▁T", "h")]
    engine = Engine(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>"))
    engine.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    engine.decoder = decoders.Sequence(steps)
    return Subwords("file", engine)


def byte_level_bpe(**options) -> Engine:
    engine = byte_level(models.BPE())
    if options:
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(**options)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    engine.train_from_iterator(
        [TEXT * 3], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    return engine


def with_spaces() -> Subwords:
    """Byte-level BPE with tokens of white space that were added."""
    engine = byte_level_bpe()
    engine.add_tokens(["  ", "    ", "\n\n"])
    return Subwords("file", engine)


def composed() -> Subwords:
    """Byte-level BPE that composes characters first."""
    engine = byte_level_bpe()
    engine.normalizer = normalizers.NFC()
    return Subwords("file", engine)


def by_expression() -> Subwords:
    """Byte-level BPE with an expression of its own for words."""
    engine = byte_level_bpe()
    split = pre_tokenizers.Split(Regex(r"\s?\p{L}+|\s+|[^\s\p{L}]+"), "isolated")
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return Subwords("file", engine)


def without_unknown() -> Subwords:
    """BPE of letters that has no token for any other character."""
    letters = sorted({*TEXT})
    engine = Engine(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    engine.decoder = decoders.Fuse()
    return Subwords("file", engine)


def bert_like() -> Subwords:
    """WordPiece in lower case and without white space."""
    letters = sorted({*TEXT.lower()} - {*" \n\t"})
    vocabulary = ["[PAD]", UNK, "the", *letters, *(f"##{letter}" for letter in letters if letter.isalpha())]
    engine = Engine(models.WordPiece({token: i for i, token in enumerate(vocabulary)}, unk_token=UNK))
    engine.normalizer, engine.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    return Subwords("file", engine)
