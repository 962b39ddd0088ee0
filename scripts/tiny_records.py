"""Invented records in many layouts, and conversations that rewrite them from one layout to another.

The quickstart's task stays unseen: no record is of an order, a customer, an item or a quantity.
"""

import datetime
import json
import random
import re
from collections.abc import Callable

from tiny_words import (
    ADJECTIVES,
    COLOURS,
    NOUNS,
    NUMBER_WORDS,
    VERBS,
    forms_of,
    iso_day,
    name,
    number,
    thing,
    word,
    words,
)

Rng = random.Random
Message = dict[str, str]

# Records: kind of thing, and the fields one may tell of it, each with a maker of values.
Maker = Callable[[Rng], object]
KINDS: dict[str, dict[str, Maker]] = {
    "book": {"title": thing, "author": name, "pages": number, "language": name, "printed": iso_day},
    "animal": {"name": name, "kind": lambda r: r.choice(NOUNS), "colour": lambda r: r.choice(COLOURS), "age": number},
    "journey": {"traveller": name, "from": name, "to": name, "days": number, "began": iso_day},
    "star": {"star": name, "seen by": name, "brightness": number, "colour": lambda r: r.choice(COLOURS)},
    "machine": {"machine": thing, "maker": name, "power": number, "built": iso_day},
    "song": {"song": thing, "singer": name, "minutes": number, "mood": lambda r: r.choice(ADJECTIVES)},
    "ship": {"ship": name, "captain": name, "harbour": name, "cargo": thing, "crew": number},
    "painting": {"painting": thing, "painter": name, "museum": name, "year": number},
    "birth": {"child": name, "mother": name, "town": name, "born": iso_day, "weight": number},
    "walk": {"walker": name, "hill": name, "hours": number, "when": iso_day, "saw": thing},
    "letter": {"writer": name, "reader": name, "pages": number, "town": name, "sent": iso_day},
    "game": {"winner": name, "loser": name, "points": number, "place": name, "played": iso_day},
    "sighting": {"watcher": name, "count": number, "seen": thing, "near": name, "when": iso_day},
    "meeting": {"speaker": name, "about": thing, "room": number, "day": iso_day},
}
# Sentences that use every field of their kind, so that small words tell who, where and when.
SENTENCES = {
    "journey": [
        "{traveller} went from {from} to {to} on {began} and was away for {days} days.",
        "On {began} {traveller} left {from}; it took {days} days to {to}.",
        "It is {days} days from {from} to {to}, and {traveller} set out on {began}.",
        "In {to} they still talk of {traveller}, who left {from} on {began} and walked {days} days.",
    ],
    "birth": [
        "{mother} had a child in {town} on {born}, called {child}, of {weight} grams.",
        "{child} was born in {town} on {born} to {mother} and weighed {weight}.",
        "On {born}, in {town}, {mother} gave birth to {child} ({weight} grams).",
        "With {weight} grams {child}, child of {mother}, came into the world of {town} on {born}.",
    ],
    "walk": [
        "{walker} climbed {hill} in {hours} hours on {when} and saw {saw}.",
        "On {when} {walker} saw {saw} on {hill} after {hours} hours.",
        "It took {hours} hours up {hill}, where on {when} {walker} found {saw}.",
        "{saw}: that is what {walker} met on {hill} on {when}, {hours} hours from home.",
    ],
    "meeting": [
        "{speaker} talks about {about} in room {room} on {day}.",
        "On {day} room {room} hears {speaker} on {about}.",
        "Come to room {room} on {day}: {speaker} will tell us of {about}.",
    ],
    "letter": [
        "{writer} wrote {reader} a letter of {pages} pages from {town} on {sent}.",
        "On {sent} a letter left {town}: {pages} pages by {writer}, for {reader}.",
        "{reader} got {pages} pages from {writer} of {town}, dated {sent}.",
        "Dear {reader}, here are my {pages} pages. {town}, {sent}. Yours, {writer}",
        "It was in {town}, on {sent}, that {writer} began the {pages} pages to {reader}.",
    ],
    "game": [
        "{winner} beat {loser} by {points} points in {place} on {played}.",
        "On {played} in {place}, {loser} lost to {winner} by {points}.",
        "{place}, {played}: {winner} won against {loser}, {points} points ahead.",
        "With {points} points more than {loser}, {winner} went home happy from {place} on {played}.",
        "Nobody in {place} will forget {played}, when {loser} fell {points} points behind {winner}.",
    ],
    "sighting": [
        "{watcher} saw {count} {seen} near {near} on {when}.",
        "On {when}, close to {near}, {count} {seen} were counted by {watcher}.",
        "Near {near} there were {count} {seen}, says {watcher}, who was there on {when}.",
        "{count} {seen}: that is what {watcher} reports from {near} for {when}.",
        "I, {watcher}, have seen {count} {seen} on {when} not far from {near}.",
        "{when}, {near}, {count} {seen}, {watcher}.",
    ],
    "ship": [
        "Captain {captain} brings the {ship} to {harbour} with {crew} men and a load of {cargo}.",
        "The {ship} lies in {harbour}, full of {cargo}; {captain} commands a crew of {crew}.",
        "{crew} sailors under {captain} carry {cargo} to {harbour} on board the {ship}.",
    ],
}
GLUE = [ADJECTIVES, VERBS, NOUNS, words("the to of for at on by from in with and a before after , : ;")]
CLAUSES = [
    "the {key} is {value}", "its {key} is {value}", "{value} is the {key}", "with {key} {value}", "{key} {value}",
    "as {key} it has {value}", "we call {value} its {key}", "for the {key} they wrote {value}", "({key}: {value})",
]  # fmt: skip
OPENINGS = [
    "There is a {kind}", "This {kind} is known", "Someone told us of a {kind}", "About the {kind}",
    "I read of a {kind}", "Please note a {kind}", "Here is one more {kind}", "The {kind} in question", "A {kind}",
]  # fmt: skip
Record = dict[str, object]
Frame = Callable[[Record], str]


def schema(rng: Rng) -> tuple[str, dict[str, Maker]]:
    """A kind and three to five of its fields in random order; every other kind is itself invented."""
    chance = rng.random()
    if chance < 0.45:
        kind = rng.choice(sorted(SENTENCES))
        keys = list(KINDS[kind])
        if rng.random() < 0.4:
            rng.shuffle(keys)
        return kind, {key: KINDS[kind][key] for key in keys}
    if chance < 0.65:
        kind, fields = rng.choice(sorted(KINDS.items()))
    else:
        makers: list[Maker] = [name, name, thing, thing, number, iso_day]
        kind, fields = word(rng), {word(rng): rng.choice(makers) for _ in range(5)}
    keys = rng.sample(sorted(fields), rng.randint(3, min(5, len(fields))))
    return kind, {key: fields[key] for key in keys}


def told(value: object, rng: Rng) -> str:
    """A value as prose tells it: a day in any of its forms, a small number perhaps as a word."""
    if isinstance(value, int) and value < len(NUMBER_WORDS) and rng.random() < 0.5:
        return NUMBER_WORDS[value]
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        return rng.choice(forms_of(datetime.date.fromisoformat(value))[:3])
    return str(value)


def prose_frame(rng: Rng, kind: str, keys: list[str]) -> Frame:
    """A sentence frame for records of this kind: an opening, then one clause a field, in a random order."""
    opening = rng.choice(OPENINGS).format(kind=kind)
    clauses = [(key, rng.choice(CLAUSES)) for key in rng.sample(keys, len(keys))]
    joint = rng.choice([", ", "; ", " and ", ", and "])

    def write(record: Record) -> str:
        parts = [clause.format(key=key, value=told(record[key], rng)) for key, clause in clauses]
        return f"{opening}: {joint.join(parts)}."

    return write


def bare_frame(rng: Rng, kind: str, keys: list[str]) -> Frame:
    """A sentence frame that never names its keys: values among small words, told apart by their places only."""
    order = rng.sample(keys, len(keys))
    glue = [
        " ".join(rng.choice(rng.choice(GLUE)) for _ in range(rng.choice([1, 1, 2, 3]))) for _ in range(len(order) + 1)
    ]

    def write(record: Record) -> str:
        middle = " ".join(f"{told(record[key], rng)} {part}" for key, part in zip(order, glue[1:], strict=True))
        return f"{glue[0].capitalize()} {middle}."

    return write


def natural_frame(rng: Rng, kind: str, keys: list[str]) -> Frame:
    """A sentence as a person would write it, for records that `SENTENCES` tells whole; for others a bare frame."""
    if kind not in SENTENCES or set(keys) != set(KINDS[kind]):
        return bare_frame(rng, kind, keys)
    sentence = rng.choice(SENTENCES[kind])
    return lambda record: sentence.format(**{key: told(value, rng) for key, value in record.items()})


def layout(rng: Rng, kind: str, keys: list[str]) -> Frame:
    """One way of writing records of this kind down, chosen at random."""
    choices: list[Frame] = [
        lambda record: json.dumps(record, separators=(",", ":")),
        lambda record: json.dumps(record),
        lambda record: ",".join(str(value) for value in record.values()),
        lambda record: " | ".join(str(value) for value in record.values()),
        lambda record: "\n".join(f"{key}: {value}" for key, value in record.items()),
        lambda record: "; ".join(f"{key}={value}" for key, value in record.items()),
        lambda record: f"{kind}({', '.join(f'{key}={value!r}' for key, value in record.items())})",
    ]
    return rng.choice(choices)


def compact(record: Record) -> str:
    """A record as JSON without spaces."""
    return json.dumps(record, separators=(",", ":"))


def turn(question: str, answer: str) -> list[Message]:
    """A user's message and the answer."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def rewriting(rng: Rng) -> list[Message]:
    """A conversation that rewrites records of one kind from one layout to another, several times over."""
    kind, fields = schema(rng)
    keys = list(fields)
    sources = [rng.choice([prose_frame, bare_frame, natural_frame, natural_frame, layout])(rng, kind, keys)]
    sources += [rng.choice([prose_frame, natural_frame])(rng, kind, keys) for _ in range(rng.choice([0, 1, 3]))]
    if rng.random() < 0.6:
        target: Frame = compact
    else:
        target = rng.choice([layout, layout, prose_frame])(rng, kind, keys)
    messages = []
    for _ in range(rng.choice([1, 1, 1, 2, 3, 5])):
        record = {key: make(rng) for key, make in fields.items()}
        messages += turn(rng.choice(sources)(record), target(record))
    return messages
