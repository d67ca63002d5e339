"""Weights know the configuration, the tokenizer and the text that they belong to."""

from dataclasses import replace
from pathlib import Path

import pytest

from textdiffusion import recipes
from textdiffusion.config.identity import check_identity, differences, run_identity, text_hashes
from textdiffusion.core.errors import UserError
from textdiffusion.core.hashing import json_hash
from textdiffusion.data.tokenizers.base import Characters, fingerprint

CONFIG = recipes.get("mdlm")()
PATH = Path("run/model.safetensors")


def test_a_tokenizer_has_the_hash_of_its_json():
    tokenizer = Characters("ab", ["[END]"])
    assert json_hash(tokenizer.to_dict()) == fingerprint(tokenizer)


def test_weights_belong_to_their_configuration_and_tokenizer():
    identity = run_identity(CONFIG, "ab", {"train": "01"})
    check_identity(identity, CONFIG, "ab", PATH)
    check_identity({}, CONFIG, "cd", PATH)  # earlier versions wrote none
    with pytest.raises(UserError, match=r"another tokenizer than the tokenizer\.json"):
        check_identity(identity, CONFIG, "cd", PATH)
    for changed, problem in (
        (
            replace(CONFIG, backbone=replace(CONFIG.backbone, width=192)),
            r"backbone.width was \d+ in training and is now",
        ),
        (replace(CONFIG, training=replace(CONFIG.training, seed=9)), "training.seed was 0 in training and is now 9"),
        (replace(CONFIG, text=replace(CONFIG.text, normaliser="lower")), "text.normaliser was 'none'"),
    ):
        with pytest.raises(UserError, match=problem):
            check_identity(identity, changed, "ab", PATH)


def test_what_may_change_later_does_not_count():
    identity = run_identity(CONFIG, "ab", {})
    longer = replace(CONFIG, training=replace(CONFIG.training, steps=7, eval_every=3))
    check_identity(identity, replace(longer, text=replace(CONFIG.text, data="elsewhere.txt")), "ab", PATH)
    check_identity(identity, replace(CONFIG, sampler=replace(CONFIG.sampler, steps=3)), "ab", PATH)
    del identity["config"]["backbone"]["width"]  # a setting that a later version added
    check_identity(identity, CONFIG, "ab", PATH)


def test_hashes_of_the_text_are_read_with_care():
    assert text_hashes(run_identity(CONFIG, "ab", {"train": "01", "test": "02"})) == {"train": "01", "test": "02"}
    for damaged in ({}, {"text_sha256": None}, {"text_sha256": {"train": 3}}):
        assert text_hashes(damaged) == {}


def test_parts_of_different_kinds_differ_in_their_kind():
    old, new = {"a": {"kind": "x", "b": 1}, "c": 2}, {"a": {"kind": "y", "d": 1}, "c": 2, "e": None, "f": 0}
    assert [*differences(old, new)] == [("a.kind", "x", "y"), ("f", None, 0)]
