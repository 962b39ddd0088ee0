"""Where the statements and expressions of a Python text lie.

Shapes: N nodes.
"""

import ast
import random
import re
import warnings
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_LINE = re.compile(r"\r\n|\r|\n")
_TRIES = 16


def node_spans(text: str) -> NDArray[np.int64] | None:
    """First character of each statement and expression, and the one after its last, int64 [N, 2].

    None where the text is no Python that this interpreter parses.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    places = _Places(text)
    spans = {
        (places.at(node.lineno, node.col_offset), places.at(node.end_lineno, node.end_col_offset))
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt | ast.expr) and node.end_lineno is not None and node.end_col_offset is not None
    }
    # Within f-strings an older parser tells places that lie elsewhere.
    real = sorted(span for span in spans if 0 <= span[0] < span[1] <= len(text))
    return np.array(real, np.int64).reshape(-1, 2)


def draw_node(spans_N2: NDArray[np.int64], start: int, stop: int, rng: random.Random) -> tuple[int, int] | None:
    """One of the nodes that lie in `[start, stop)` and are not all of it; None where there is none.

    A character is drawn, then one of the nodes that it belongs to, from its name up to the function around it: small
    nodes and large ones both come, and no code is passed over. Source: Gong et al. 2025 (arXiv:2506.00204), section 3,
    for nodes as middles.
    """
    starts_N, stops_N = spans_N2.T
    within_N = (starts_N >= start) & (stops_N <= stop) & (stops_N - starts_N < stop - start)
    if not within_N.any():
        return None
    for _ in range(_TRIES):
        place = rng.randrange(start, stop)
        around = np.flatnonzero(within_N & (starts_N <= place) & (place < stops_N))
        if len(around):
            break
    else:
        # Almost all of it is comments.
        around = np.flatnonzero(within_N)
    found = spans_N2[rng.choice(around.tolist())]
    return int(found[0]), int(found[1])


class _Places:
    """Characters of a text by line and UTF-8 byte, as the parser counts."""

    def __init__(self, text: str) -> None:
        borders = [0, *(match.end() for match in _LINE.finditer(text)), len(text)]
        self._starts = borders[:-1]
        self._lines = [text[start:stop] for start, stop in pairwise(borders)]
        self._is_ascii = [line.isascii() for line in self._lines]

    def at(self, line: int, byte: int) -> int:
        """The character at a line from 1 and a byte from 0."""
        own = line - 1
        if self._is_ascii[own]:
            return self._starts[own] + byte
        return self._starts[own] + len(self._lines[own].encode()[:byte].decode(errors="ignore"))
