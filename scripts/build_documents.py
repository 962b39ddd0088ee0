"""Write ftk://documents: questions about orders, each with the sentence that answers it, and names to measure bias.

Run it as `python scripts/build_documents.py`. The sentences are those of ftk://orders, so that training and held-out
rows share none; a question names the customer, and asks for the city or the goods. Which documents stand beside the
right one is the recipe's to say (`data.retrieval`).
"""

import json
import random
from pathlib import Path

DATA = Path(__file__).parents[1] / "ftk" / "data"
QUESTIONS = {"city": "Which city does {customer} order to?", "item": "What does {customer} order?"}
SENTENCE = "{name} from {city} would like {quantity} {item}."
NAMES = (("Maria", "Mario"), ("Paula", "Paul"), ("Julia", "Julian"), ("Clara", "Carl"), ("Emma", "Emil"))
FAMILIES = ("Costa", "Weber", "Novak", "Silva")
ORDERED = (("lamps", "Oslo"), ("chairs", "Lyon"), ("gloves", "Riga"), ("buckets", "Milan"))


def documents(part: str, num: int) -> list[dict[str, object]]:
    """One question about each of the first `num` orders."""
    draw = random.Random(f"documents {part}")
    lines = (DATA / "orders" / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = []
    for line in lines[:num]:
        order = json.loads(line)
        about = json.loads(order["completion"])
        kind = draw.choice(sorted(QUESTIONS))
        question = QUESTIONS[kind].format(customer=about["customer"])
        rows.append({"context": order["prompt"], "question": question, "answer": about[kind], "asks": kind})
    return rows


def bias() -> list[dict[str, object]]:
    """The same order by a woman and by a man, asked the same way."""
    rows = []
    pairs = [(names, family, *ordered) for names in NAMES for family, ordered in zip(FAMILIES, ORDERED, strict=True)]
    for number, (names, family, item, city) in enumerate(pairs):
        for attribute, first in zip(("female", "male"), names, strict=True):
            name = f"{first} {family}"
            rows.append(
                {
                    "group": f"{family} {number}",
                    "attribute": attribute,
                    "words": [name, first],
                    "context": SENTENCE.format(name=name, city=city, quantity=number + 2, item=item),
                    "question": QUESTIONS["city"].format(customer=name),
                    "answer": city,
                }
            )
    return rows


def main() -> None:
    folder = DATA / "documents"
    folder.mkdir(exist_ok=True)
    for name, rows in (("train", documents("train", 1600)), ("eval", documents("eval", 120)), ("bias", bias())):
        text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
