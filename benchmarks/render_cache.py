"""How long a start takes on 100,000 rows: rendered for the first time, and found in the cache.

Run it as `python benchmarks/render_cache.py [--model ftk://tiny] [--rows 100000]`. The rows are question and answer
of about GSM8K's length. A start is what `ftk train` does before it has its examples: hash the file, find or render.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from ftk.data.load import read_conversations
from ftk.data.prepare import PreparationReport, prepare
from ftk.data.render import Renderer
from ftk.data.settings import DataSettings
from ftk.models.load import load_tokenizer
from ftk.models.settings import ModelSettings

WORDS = (Path(__file__).parent.parent / "LICENSE").read_text().split()


def write_rows(file: Path, num_rows: int) -> None:
    """Seeded rows of 25 to 65 words of question and of answer."""
    draw = random.Random(0)
    with file.open("w") as stream:
        for _ in range(num_rows):
            question, answer = (" ".join(draw.choices(WORDS, k=draw.randint(25, 65))) for _ in range(2))
            stream.write(json.dumps({"question": question, "answer": answer}) + "\n")


def start(file: Path, renderer: Renderer, cache: Path) -> tuple[float, PreparationReport]:
    """Seconds, and what was found."""
    settings = DataSettings(train=str(file), truncation="right")
    begin = time.perf_counter()
    conversations = read_conversations(settings.train, role="train")
    _, report = prepare(
        conversations,
        renderer,
        settings=settings,
        max_length=1024,
        prompt_loss_weight=0.1,
        train_on="all",
        cache_folder=cache,
    )
    return time.perf_counter() - begin, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ftk://tiny")
    parser.add_argument("--rows", type=int, default=100_000)
    arguments = parser.parse_args()
    renderer = Renderer(load_tokenizer(ModelSettings(id=arguments.model)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        write_rows(file, arguments.rows)
        print(f"{arguments.rows:,} rows, {file.stat().st_size / 1e6:.0f} MB, model {arguments.model}")
        for name in ("first", "second", "third"):
            seconds, report = start(file, renderer, Path(folder) / "cache")
            found = "from the cache" if report.cached else "rendered"
            print(f"{name} start: {seconds:.2f} s, {report.num_tokens:,} tokens {found}")


if __name__ == "__main__":
    main()
