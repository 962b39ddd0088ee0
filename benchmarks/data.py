"""How long `ftk data check` takes on a million rows of 200 tokens, and how much memory all its processes use.

Run it as `python benchmarks/data.py [--rows 1000000] [--near] [--duplicates 0.05]`. The rows are question and
answer of about 200 words of English text; a share of them are near duplicates, with one word in fifty changed. Memory
is the largest sum of what the processes hold for themselves and share (PSS), sampled every quarter of a second.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = (Path(__file__).parent.parent / "LICENSE").read_text().split()


def write_rows(file: Path, num_rows: int, *, duplicates: float) -> None:
    """Seeded rows of 150 words in all, which are some 200 tokens; texts of few letters would be quicker to look at."""
    draw = random.Random(0)
    pool = WORDS + [f"word{number}" for number in range(20_000)]
    earlier = ""
    with file.open("w", encoding="utf-8") as stream:
        for number in range(num_rows):
            words = draw.choices(pool, k=150)
            if earlier and draw.random() < duplicates:
                words = [draw.choice(pool) if draw.random() < 0.02 else word for word in earlier.split()]
            if number % 10 == 0:
                earlier = " ".join(words)
            row = {"question": " ".join(words[:50]), "answer": " ".join(words[50:]) + "."}
            stream.write(json.dumps(row) + "\n")


def pss_bytes(group: int) -> int:
    """Of all processes of a group: what pages are shared counts by parts, so that the sum is what they take."""
    total = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            if os.getpgid(int(folder.name)) == group:
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except OSError:
            continue  # it has ended
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--near", action="store_true", help="look for near duplicates too")
    parser.add_argument("--duplicates", type=float, default=0.05, help="share of near duplicates among the rows")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        write_rows(file, arguments.rows, duplicates=arguments.duplicates)
        print(f"{arguments.rows:,} rows, {file.stat().st_size / 1e6:,.0f} MB, {arguments.processes} processes")
        words = ["data", "check", str(file), "--json", "--processes", str(arguments.processes)]
        begin, peak = time.perf_counter(), 0
        command = [sys.executable, "-m", "ftk", *words, "--near" if arguments.near else "--no-near"]
        found = Path(folder) / "found.json"
        with found.open("w", encoding="utf-8") as stream:
            process = subprocess.Popen(command, stdout=stream, start_new_session=True)
            while process.poll() is None:
                peak = max(peak, pss_bytes(process.pid))
                time.sleep(0.25)
        seconds = time.perf_counter() - begin
        answer = json.loads(found.read_text(encoding="utf-8"))
    for finding in answer["findings"]:
        print(f"{finding['severity']:<8}{finding['kind']:<20}{finding['count']:,}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{seconds:.1f} s, of all processes {used.ru_utime + used.ru_stime:.1f} s of a core")
    print(f"{arguments.rows / seconds:,.0f} rows a second, at most {peak / 1e9:.2f} GB of memory")


if __name__ == "__main__":
    main()
