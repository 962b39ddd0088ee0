"""Build the preferences of ftk://orders: the right JSON of an order against one that is subtly wrong.

    python scripts/build_orders_preference.py            write preference_train.jsonl and preference_eval.jsonl
    python scripts/build_orders_preference.py --check    say whether the shipped files are what this script writes

Sentences are made as those of ftk://orders and are none of them; `wrong` says what the rejected answer has wrong, one
thing a row. Of the evaluation rows, 80 of 200 are `unseen` as in ftk://orders/eval.
"""

import argparse
import datetime
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from build_orders import FOLDER, NUM_SEEN, NUM_UNSEEN, TRAIN, UNSEEN, Values, build, rows

NUM_TRAIN = 800
Answer = dict[str, Any]


def other_quantity(answer: Answer, values: Values, rng: random.Random) -> None:
    """A number that is misread: one off, a digit left out, added or exchanged."""
    quantity = answer["quantity"]
    digits = str(quantity)
    found = {quantity - 1, quantity + 1, quantity + 10, quantity * 10, int(digits[::-1]), int(digits[:-1] or 1)}
    answer["quantity"] = rng.choice(sorted(number for number in found if 0 < number != quantity))


def other_item(answer: Answer, values: Values, rng: random.Random) -> None:
    """Another item, where there is one with a word in common."""
    item = answer["item"]
    others = [one for one in values["item"] if one != item]
    alike = [one for one in others if set(one.split()) & set(item.split())]
    answer["item"] = rng.choice(alike or others)


def other_city(answer: Answer, values: Values, rng: random.Random) -> None:
    """Another city."""
    answer["city"] = rng.choice([one for one in values["city"] if one != answer["city"]])


def other_date(answer: Answer, values: Values, rng: random.Random) -> None:
    """A day or a year beside the right one, or day and month exchanged where that is a date."""
    day = datetime.date.fromisoformat(answer["date"])
    found = [day + datetime.timedelta(days=1), day - datetime.timedelta(days=1), day + datetime.timedelta(days=365)]
    if day.day <= 12 and day.day != day.month:
        found.append(day.replace(month=day.day, day=day.month))
    answer["date"] = rng.choice(found).isoformat()


def date_form(answer: Answer, values: Values, rng: random.Random) -> None:
    """The right day, not as ISO 8601 writes it."""
    day = datetime.date.fromisoformat(answer["date"])
    answer["date"] = rng.choice([f"{day:%d %B %Y}", f"{day:%B %d, %Y}", f"{day:%d.%m.%Y}"])


def misspelt_name(answer: Answer, values: Values, rng: random.Random) -> None:
    """A letter of the customer's name left out, doubled, or exchanged with its neighbour."""
    name = answer["customer"]
    while answer["customer"] == name:
        place = rng.choice([place for place in range(1, len(name) - 1) if name[place - 1 : place + 2].isalpha()])
        before, here, after = name[:place], name[place], name[place + 1 :]
        spelt = [before + after, before + here * 2 + after, before + after[0] + here + after[1:]]
        answer["customer"] = rng.choice(spelt)


def other_name(answer: Answer, values: Values, rng: random.Random) -> None:
    """Another last name."""
    first, last = answer["customer"].split()
    answer["customer"] = f"{first} {rng.choice([one for one in values['last'] if one != last])}"


def swapped_values(answer: Answer, values: Values, rng: random.Random) -> None:
    """Two values in each other's place."""
    one, other = rng.choice([("customer", "city"), ("city", "item"), ("customer", "item")])
    answer[one], answer[other] = answer[other], answer[one]


def missing_field(answer: Answer, values: Values, rng: random.Random) -> None:
    """A field left out."""
    del answer[rng.choice(list(answer))]


def quantity_as_text(answer: Answer, values: Values, rng: random.Random) -> None:
    """The right number, as text."""
    answer["quantity"] = str(answer["quantity"])


MISTAKES: tuple[Callable[[Answer, Values, random.Random], None], ...] = (
    other_quantity,
    other_item,
    other_city,
    other_date,
    date_form,
    misspelt_name,
    other_name,
    swapped_values,
    missing_field,
    quantity_as_text,
)


def preferences(orders: list[dict[str, object]], rng: random.Random) -> list[dict[str, object]]:
    """Each order with a rejected answer beside the right one; every kind of mistake about equally often."""
    kinds = [MISTAKES[number % len(MISTAKES)] for number in range(len(orders))]
    rng.shuffle(kinds)
    made = []
    for order, mistake in zip(orders, kinds, strict=True):
        answer = json.loads(str(order["completion"]))
        mistake(answer, UNSEEN if order["unseen"] else TRAIN, rng)
        rejected = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
        made.append(
            {
                "prompt": order["prompt"],
                "chosen": order["completion"],
                "rejected": rejected,
                "wrong": mistake.__name__,
                "unseen": order["unseen"],
            }
        )
    return made


def build_preferences(seed: int) -> dict[str, str]:
    """Text of each file, by its name."""
    # No sentence of ftk://orders, so that a model tuned on it knows none of these.
    taken = {json.loads(line)["prompt"] for text in build(0).values() for line in text.splitlines()}
    rng = random.Random(f"preference {seed}")
    train = rows(TRAIN, rng, num=NUM_TRAIN, unseen=False, taken=taken)
    held_out = rows(TRAIN, rng, num=NUM_SEEN, unseen=False, taken=taken)
    held_out += rows(UNSEEN, rng, num=NUM_UNSEEN, unseen=True, taken=taken)
    rng.shuffle(held_out)
    files = {"preference_train.jsonl": preferences(train, rng), "preference_eval.jsonl": preferences(held_out, rng)}
    return {
        name: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content) for name, content in files.items()
    }


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the shipped files instead of writing")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    files = build_preferences(arguments.seed)
    if arguments.check:
        differing = [name for name, text in files.items() if (arguments.out / name).read_text(encoding="utf-8") != text]
        print(f"differs from what this script writes: {', '.join(differing)}" if differing else "as this script writes")
        return 1 if differing else 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (arguments.out / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
