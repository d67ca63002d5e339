"""Several short examples in one window."""

from __future__ import annotations

import numpy as np

OPEN = 64  # rows that may still take an example: bounds the time on corpora of millions


def first_fit(examples: np.ndarray, lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Put each example, in order, into the first open row with room.

    Returns the examples row by row, and where each row begins and the last ends. Of more than `OPEN` open rows the
    oldest is closed.
    """
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # row number and room left, oldest first
    for example in examples.tolist():
        need = int(lengths[example])
        for i, (row, room) in enumerate(open_rows):
            if need <= room:
                rows[row].append(example)
                open_rows[i] = (row, room - need)
                if room - need < 2:  # the shortest example is one token and its end
                    del open_rows[i]
                break
        else:
            rows.append([example])
            open_rows.append((len(rows) - 1, capacity - need))
            del open_rows[:-OPEN]
    bounds = np.cumsum([0] + [len(row) for row in rows])
    return np.array([example for row in rows for example in row], dtype=np.int64), bounds.astype(np.int64)
