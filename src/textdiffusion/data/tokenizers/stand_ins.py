"""Known characters in the place of unknown ones."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator

# By the first letter of the Unicode category: letters, marks, numbers, punctuation, symbols, separators, others.
_BY_CATEGORY = {"L": "eao", "M": "eao", "N": "013", "P": ".,-", "S": "*.-", "Z": " \n", "C": " \n"}
_BY_SUBCATEGORY = {"Pd": "-", "Pi": "\"'", "Pf": "\"'", "Zl": "\n", "Zp": "\n"}
_QUOTES = {"\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'"}


def stand_in(character: str, known: Collection[str]) -> str:
    """The character of `known` (not empty) that is most like `character`: its base letter, its case, its category."""
    return next((candidate for candidate in _candidates(character) if candidate in known), min(known))


def _candidates(character: str) -> Iterator[str]:
    for form in dict.fromkeys((character, *unicodedata.normalize("NFKD", character))):
        yield from (form, form.lower(), form.upper())
    yield _QUOTES.get(character, "")
    category = unicodedata.category(character)
    yield from _BY_SUBCATEGORY.get(category, "")
    yield from _BY_CATEGORY[category[0]]
    yield from " \n"
