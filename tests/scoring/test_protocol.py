"""Protocols: what is hashed, and what may not stand in one table."""

import pytest

from textdiffusion.core.errors import UserError
from textdiffusion.scoring.protocol import MAY_DIFFER, check_comparable, comparable, digest

FACTS = {"text": "a.txt", "sha256": "ab", "windows": 8, "window": 64, "weights": "ema", "seed": 0, "draws": 4}
FACTS |= {"likelihood": "MaskedLikelihood", "dtype": "float32"}


def test_the_digest_is_of_what_must_agree_in_any_order():
    assert digest(dict(reversed(FACTS.items()))) == digest(FACTS)
    assert len(digest(FACTS)) == 10
    assert set(comparable(FACTS)) == {"sha256", "windows", "window", "weights", "dtype"}
    for name in MAY_DIFFER:
        assert digest({**FACTS, name: "other"}) == digest(FACTS)
    for name in comparable(FACTS):
        assert digest({**FACTS, name: "other"}) != digest(FACTS)


def test_like_protocols_share_a_table():
    other = {**FACTS, "seed": 1, "draws": 128, "likelihood": "GaussianLikelihood", "text": "elsewhere/a.txt"}
    assert check_comparable({"mdlm": FACTS, "cdcd": other}) == digest(FACTS)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"weights": "raw"}, "the kind of weights is 'ema' for mdlm and 'raw' for cdcd"),
        ({"sha256": "cd"}, "they are measured on different texts; name one for all with --data"),
        ({"window": 128, "windows": 4}, "the window in tokens is 64 for mdlm and 128"),
        ({"calibration": 8}, "the number of temperatures fitted is not recorded for mdlm and 8"),
        ({"something": 8}, "something is not recorded for mdlm and 8"),
    ],
)
def test_unlike_protocols_are_refused_with_what_differs(change, expected):
    with pytest.raises(UserError, match=f"^mdlm and cdcd are not comparable: {expected}"):
        check_comparable({"sedd": FACTS, "mdlm": FACTS, "cdcd": {**FACTS, **change}})
