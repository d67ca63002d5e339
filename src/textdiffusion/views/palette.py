"""The colours of confidence: a ramp from cold (unsure) to warm (sure)."""

from __future__ import annotations

LEVELS = 10


def level(confidence: float) -> int:
    """The step of the ramp, 0 to LEVELS - 1, for a confidence of 0 to 1."""
    return max(0, min(int(confidence * LEVELS), LEVELS - 1))


def _ramp(*anchors: int) -> tuple[str, ...]:
    """LEVELS colours "#rrggbb", interpolated between `anchors` (0xrrggbb)."""
    colours = []
    for i in range(LEVELS):
        position = i * (len(anchors) - 1) / (LEVELS - 1)
        low = min(int(position), len(anchors) - 2)
        weights = 1 - position + low, position - low
        channels = [
            round(sum((anchor >> shift & 255) * w for anchor, w in zip(anchors[low : low + 2], weights, strict=True)))
            for shift in (16, 8, 0)
        ]
        colours.append("#{:02x}{:02x}{:02x}".format(*channels))
    return tuple(colours)


# Blue to amber through violet is distinguishable with every kind of colour vision.
ON_DARK = _ramp(0x5C9DFF, 0xA98BF5, 0xEE86B7, 0xFF9A62, 0xFFC24D)
ON_LIGHT = _ramp(0x1A5FC4, 0x6A43B8, 0xA02F7B, 0xA93C1C, 0x945000)
ON_ANY = _ramp(0x2F7BE0, 0x8A63D8, 0xC2529B, 0xCE5A36, 0xB26B00)  # for terminals, whose background is unknown
DARK, LIGHT = "#14161b", "#ffffff"  # backgrounds
