"""The log of a run is read line by line, and a line that is not an event is left out and counted."""

import json
from pathlib import Path

import pytest

from textdiffusion.core.errors import UserError
from textdiffusion.evaluation.training_log import read_training_log
from textdiffusion.storage.metrics_log import history, parse_lines

LOGGED = {"event": "logged", "step": 3, "loss": 1.5, "tokens": 90, "cpu_seconds": 2.0}
VALIDATED = {"event": "validated", "step": 3, "bits": 2.0, "error": None, "raw_bits": 2.1, "raw_error": 0.1}
VALIDATED |= {"windows": 8, "cpu_seconds": 2.5}


def test_events_come_back_without_the_line_that_was_cut(tmp_path: Path):
    assert history(tmp_path) == history(None) == []
    (tmp_path / "metrics.jsonl").write_text(f'{json.dumps(LOGGED)}\n{json.dumps(VALIDATED)}\n{{"event": "log')
    unreadable: list[int] = []
    lines = [*parse_lines(tmp_path / "metrics.jsonl", unreadable.append)]
    assert [event for _, event in lines] == history(tmp_path) == [LOGGED, VALIDATED]
    assert lines[0][0] == json.dumps(LOGGED) + "\n"
    assert unreadable == []
    log = read_training_log(tmp_path)
    assert log is not None
    assert (log.steps, log.validations) == (3, ((2.5, 2.0, None),))


@pytest.mark.parametrize(
    "line",
    [
        b'{"step": null}',
        b'{"event": "saved", "step": null}',
        b'{"event": "saved", "step": true}',
        b"null",
        b"[1]",
        b"",
        b'{"event": "saved", "step": 3, "path": "\xe9"}',
        b"[" * 50_000,
        json.dumps({**LOGGED, "cpu_seconds": None}).encode(),
        json.dumps({**LOGGED, "tokens": "many"}).encode(),
        json.dumps({**LOGGED, "loss": [1]}).encode(),
        json.dumps({"event": "validated", "step": 3}).encode(),
        json.dumps({**VALIDATED, "windows": None}).encode(),
    ],
)
def test_a_line_that_is_not_an_event_is_counted(line: bytes, tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(json.dumps(LOGGED).encode() + b"\n" + line + b"\n")
    unreadable: list[int] = []
    assert [event for _, event in parse_lines(path, unreadable.append)] == [LOGGED]
    assert unreadable == [2]
    assert read_training_log(tmp_path) is not None


def test_a_folder_in_its_place_is_named(tmp_path: Path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl is a folder"):
        history(tmp_path)
