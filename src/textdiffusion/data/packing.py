"""Packing several short examples into one row."""

from __future__ import annotations

import numpy as np

MAX_OPEN_ROWS = 64  # rows that can still take an example; bounds the time on corpora of millions of examples


def first_fit(examples: np.ndarray, lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Put each example, in order, into the first open row with enough space.

    Returns the examples row by row, and the bounds of the rows among them: row i is `order[bounds[i]:bounds[i + 1]]`.
    When more than `MAX_OPEN_ROWS` rows are open, the oldest is closed.
    """
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # row number and free tokens, oldest first
    for example in examples.tolist():
        length = int(lengths[example])
        for i, (row, free) in enumerate(open_rows):
            if length <= free:
                rows[row].append(example)
                open_rows[i] = (row, free - length)
                if free - length < 2:  # the shortest example is one token and its end
                    del open_rows[i]
                break
        else:
            rows.append([example])
            open_rows.append((len(rows) - 1, capacity - length))
            del open_rows[:-MAX_OPEN_ROWS]
    order = np.array([example for row in rows for example in row], dtype=np.int64)
    return order, np.cumsum([0] + [len(row) for row in rows]).astype(np.int64)
