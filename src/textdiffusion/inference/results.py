"""Results in a file of JSON lines, in the order of their requests; a run that was stopped continues the file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from io import BufferedRandom
from pathlib import Path
from typing import Any

import torch

from ..config.config import dumps
from ..core.batch import Batch
from ..core.errors import UserError
from ..core.files import check_target, hold, writing
from ..core.hashing import json_hash
from ..data.tokenizers.base import fingerprint
from .api import TextDiffusion
from .options import SamplingOptions
from .prompts import sample_batches
from .requests import Request
from .run import Run

WINDOW = 8  # times the rows that are sampled at once: requests among which those of one width are looked for
SAMPLED_WEIGHTS = 64  # of each parameter, which a training step changes


@dataclass(frozen=True)
class ResultOptions:
    """How requests are answered: `num` texts each, with at most `length` tokens, cut before a stop text."""

    sampling: SamplingOptions
    num: int = 1
    length: int | None = None
    stops: tuple[str, ...] = ()
    label: str | None = None


def write_results(
    run: TextDiffusion,
    requests: Sequence[Request],
    path: Path,
    options: ResultOptions,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Appends the results of all requests that the file does not have yet; returns how many it had.

    A result is one line of JSON: `id`, `text` (`texts`, where several were asked for), the numbers of `tokens` written,
    `finish`, and `request`, a hash of the request, the options and the run. Requests of similar length are sampled
    together, which changes no text. Raises UserError for a request that the run refuses, before anything is written,
    and for a file that another process writes, or that has results of other requests, options or runs.
    """
    key = _identity(run, options)
    hashes = [json_hash([key, asdict(request)])[:16] for request in requests]
    with _opened(path) as file:
        done = _count_results(file, path, hashes)
        for request in requests[done:]:
            if not request.template:  # whose lengths may take long to propose
                _batch(run, request, options)
        window = WINDOW * run.chunk_rows(run.config.text.length)
        progress(done, len(requests))
        for start in range(done, len(requests), window):
            part = requests[start : start + window]
            for i, result in enumerate(_results(run, part, options), start):
                line = json.dumps({"id": requests[i].id, **result, "request": hashes[i]}, ensure_ascii=False)
                with writing(path):
                    file.write(line.encode() + b"\n")
                    file.flush()
                progress(i + 1, len(requests))
            with writing(path):
                os.fsync(file.fileno())
    return done


def _results(run: TextDiffusion, requests: Sequence[Request], options: ResultOptions) -> Iterator[dict[str, Any]]:
    """The results of the requests in order, each as soon as it and all before it are there."""
    batches = [_batch(run, request, options) for request in requests]
    results: list[list[dict[str, Any]]] = [[] for _ in requests]
    first = 0
    for owners, step, chunk in sample_batches(run, batches, options.sampling):
        if chunk.text_starts is None:
            texts = [{"text": text} for text in run.decode(step, chunk)]
        else:
            written = [each.truncated(options.stops) for each in run.continuations(step, chunk)]
            texts = [{"text": each.text, "tokens": each.num_tokens, "finish": each.finish} for each in written]
        for owner, text in zip(owners, texts, strict=True):
            results[owner].append(text)
        while first < len(results) and len(results[first]) == options.num:
            yield _merged(results[first]) if options.num > 1 else results[first][0]
            first += 1


def _merged(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One result of several texts: `texts`, and lists of the rest."""
    return {"texts" if name == "text" else name: [each[name] for each in results] for name in results[0]}


def _batch(run: TextDiffusion, request: Request, options: ResultOptions) -> Batch:
    return request.batch(run, options.num, options.length, options.label, options.sampling.seed or 0)


def _identity(run: Run, options: ResultOptions) -> str:
    """A hash of what the texts depend on besides the requests."""
    weights = sha256()
    for name, parameter in run.model.state_dict().items():
        sample = parameter.detach().flatten()[:SAMPLED_WEIGHTS]
        weights.update(name.encode() + sample.to("cpu", torch.float64).numpy().tobytes())
    sampling = {name: str(value) for name, value in vars(options.sampling).items()}
    others = [options.num, options.length, options.stops, options.label, run.weights, run.dtype]
    template = run.chat_template.source if run.chat_template else ""
    return json_hash([dumps(run.config), fingerprint(run.tokenizer), weights.hexdigest(), template, sampling, others])


@contextmanager
def _opened(path: Path) -> Iterator[BufferedRandom]:
    """The file, made if it is missing, for this process alone."""
    check_target(path)
    with writing(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    with os.fdopen(handle, "r+b") as file:
        if not hold(handle):
            raise UserError(f"Another process writes {path}; wait for it, or name another file.")
        yield file


def _count_results(file: BufferedRandom, path: Path, hashes: Sequence[str]) -> int:
    """How many results the file has. Cuts a line without an end, and moves to the end of the file.

    Raises UserError for a line that is not the result of the request in its place.
    """
    count, end = 0, 0
    for line in file:
        if not line.endswith(b"\n"):  # the process that wrote it was killed
            break
        if count == len(hashes) or _hash_of(line) != hashes[count]:
            raise UserError(
                f"{path}, line {count + 1}: not a result of this request with this run and these options. Repeat the "
                "command that began the file, or name another one."
            )
        count, end = count + 1, end + len(line)
    with writing(path):
        file.truncate(end)
        file.seek(end)
    return count


def _hash_of(line: bytes) -> str | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record.get("request") if isinstance(record, dict) else None
