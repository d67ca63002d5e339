"""Which files a name stands for: links, odd names and patterns."""

import os

import pytest

from textdiffusion.core.errors import UserError
from textdiffusion.data.config import TextConfig
from textdiffusion.data.paths import MissingText, find_files


def names(folder, pattern: str = "", notes: list[str] | None = None) -> list[str]:
    return [str(path.relative_to(folder)) for path in find_files(str(folder / pattern), notes)]


def test_links_are_followed_once(tmp_path):
    home, other = tmp_path / "home", tmp_path / "other"
    for folder in (home, other):
        folder.mkdir()
        (folder / "a.txt").write_text("a")
    (home / "linked").symlink_to(other)
    (home / "loop").symlink_to(home)
    (home / "same.txt").symlink_to("a.txt")
    (tmp_path / "third.txt").write_text("c")
    (home / "elsewhere.txt").symlink_to(tmp_path / "third.txt")
    assert names(home) == ["a.txt", "elsewhere.txt", "linked/a.txt"]


def test_what_is_skipped_is_counted(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").symlink_to("missing")
    (tmp_path / "c.txt").symlink_to("missing")
    os.mkfifo(tmp_path / "d.txt")
    for pattern in ("", "*.txt"):
        notes: list[str] = []
        assert names(tmp_path, pattern, notes) == ["a.txt"]
        assert [note.split(": ")[1] for note in notes] == ["2 broken link(s) skipped", "1 pipe(s) or device(s) skipped"]


def test_folders_that_look_like_patterns(tmp_path):
    for name in ("[1]", "what?", "1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    (tmp_path / "[1]/[2].txt").write_text("")
    assert names(tmp_path, "[1]/*.txt") == ["[1]/[2].txt", "[1]/a.txt"]
    assert names(tmp_path, "[1]") == ["[1]/[2].txt", "[1]/a.txt"]
    assert names(tmp_path, "[1]/[2].txt") == ["[1]/[2].txt"]
    assert names(tmp_path, "what?/*.txt") == ["what?/a.txt"]
    assert names(tmp_path, "[0-9]/*.txt") == ["1/a.txt"]


def test_names_that_stand_for_nothing(tmp_path):
    (tmp_path / "link.txt").symlink_to("gone.txt")
    with pytest.raises(MissingText, match=r"is a link to gone\.txt, which does not exist"):
        find_files(str(tmp_path / "link.txt"))
    with pytest.raises(MissingText, match="There is no file or folder"):
        find_files(str(tmp_path / "a.txt"))
    for name in ("x" * 5000, "a\0b", "~nobody-has-this-name/a.txt", "\udcff.txt"):
        with pytest.raises(UserError) as error:
            find_files(name)
        str(error.value).encode()
        assert len(str(error.value)) < 400


def test_a_folder_of_other_files_says_how_to_read_them(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("import os\n")
    with pytest.raises(UserError, match=r"Name other files by a pattern, such as '.*/\*\*/\*.py'"):
        find_files(str(tmp_path))
    assert names(tmp_path, "**/*.py") == ["src/a.py"]


def test_an_argument_that_is_not_text():
    with pytest.raises(UserError, match=r"data is not valid text: poem\\udcff.txt. Rename the file"):
        TextConfig(data="poem\udcff.txt")
