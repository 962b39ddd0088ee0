"""How fast and how tight documents are packed into rows, on lognormal lengths.

Run it as `python benchmarks/packing.py [--documents 1000000] [--capacity 2048]`. Best-fit decreasing over all lengths,
and over windows of the size of an optimizer step, as a run packs what it draws. Times are of one thread's CPU.
"""

import argparse
import time

import numpy as np

from ftk.data.pack import pack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--capacity", type=int, default=2048)
    arguments = parser.parse_args()
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(5.5, 0.9, arguments.documents).astype(np.int64), 1, arguments.capacity)
    print(f"{len(lengths):,} documents, {lengths.sum():,} tokens, rows of {arguments.capacity:,}")
    for window in (len(lengths), 8192, 1024, 256):
        some = lengths[: 100 * window]
        start = time.process_time()
        num_rows = sum(
            len(pack(some[place : place + window], capacity=arguments.capacity))
            for place in range(0, len(some), window)
        )
        seconds = time.process_time() - start
        ratio = num_rows / np.ceil(some.sum() / arguments.capacity)
        print(f"window {window:>9,}: {len(some) / seconds:>10,.0f} documents/s, {ratio:.4f} of the lower bound of rows")


if __name__ == "__main__":
    main()
