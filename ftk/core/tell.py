"""How ftk speaks to a person: sentences on standard error, whose reader may leave without harm."""

import os
import sys


def tell(sentence: str) -> None:
    """Print a line on standard error; where nobody reads that any more, be silent from then on.

    A training of days must not end because the program it was piped into has.
    """
    try:
        print(sentence, file=sys.stderr, flush=True)
    except BrokenPipeError:
        # What is still in the buffer goes there too, and whatever libraries write.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)
