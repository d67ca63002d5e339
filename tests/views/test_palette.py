import itertools

import pytest

from textdiffusion.views import palette


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("ramp", "ground", "least"),
    [
        (palette.ON_DARK, palette.DARK, 4.5),  # WCAG AA for text
        (palette.ON_LIGHT, palette.LIGHT, 4.5),
        (palette.ON_ANY, "#000000", 3.5),
        (palette.ON_ANY, "#ffffff", 3.5),
    ],
)
def test_every_level_is_legible(ramp, ground, least):
    assert len(set(ramp)) == palette.LEVELS
    assert min(contrast(colour, ground) for colour in ramp) >= least


@pytest.mark.parametrize("ramp", [palette.ON_DARK, palette.ON_LIGHT, palette.ON_ANY])
def test_the_ramp_goes_from_cold_to_warm(ramp):
    warmth = [int(colour[1:3], 16) - int(colour[5:7], 16) for colour in ramp]
    assert all(b > a for a, b in itertools.pairwise(warmth))


def test_levels():
    assert [palette.level(c) for c in (0.0, 0.09, 0.5, 0.99, 1.0)] == [0, 0, 5, 9, 9]
