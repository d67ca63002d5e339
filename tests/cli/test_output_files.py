"""Files that commands write replace nothing but the file that was named, and a bad name is said before the work."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

MakeRun = Callable[..., Path]


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "RUN", "--html"),
        ("sample", "RUN", "--gif"),
        ("compare", "RUN", "--out"),
        ("compare", "RUN", "--markdown"),
        ("frontier", "RUN", "--out"),
        ("plot", "RUN", "--out"),
    ],
)
def test_links_pipes_and_devices_are_refused_at_once(words: tuple[str, ...], tmp_path: Path, textdiffusion: Callable):
    """The run does not exist: the name of the file is looked at first."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "link.svg").symlink_to(precious)
    os.mkfifo(tmp_path / "pipe.svg")
    for name, problem in {"link.svg": "is a symbolic link", "pipe.svg": "is a pipe or a device"}.items():
        done = textdiffusion(*words, tmp_path / name)
        assert done.code == 2
        assert problem in done.err
    assert precious.read_text() == "precious"
    assert (tmp_path / "link.svg").is_symlink()


def test_a_plot_replaces_the_old_one_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    matplotlib = pytest.importorskip("matplotlib.figure")
    import torch

    from textdiffusion.core.errors import UserError
    from textdiffusion.evaluation.noise_curve import NoiseCurve
    from textdiffusion.evaluation.report.plots import new_figure, plot_noise_curve

    path, line = tmp_path / "noise.svg", torch.linspace(0.1, 0.9, 3).numpy()
    values = dict.fromkeys(("noise", "nats", "remaining", "bits", "errors"), line)
    curve = NoiseCurve(**values, predicted_loss=None, is_sigma=False)
    plot_noise_curve(new_figure(), curve, "title", path)
    before = path.read_bytes()
    assert b"<svg" in before
    with pytest.raises(UserError, match=r"its name must end in one of \..*\.svg"):
        plot_noise_curve(new_figure(), curve, "title", tmp_path / "noise.xyz")

    def full(figure: object, target: Path, **options: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(matplotlib.Figure, "savefig", full)
    with pytest.raises(UserError, match="No space left"):
        plot_noise_curve(new_figure(), curve, "title", path)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]
