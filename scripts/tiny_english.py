"""English that a script invents: facts, questions, records in many layouts, lists, dates, short conversations.

Names are mostly random syllables, so that the only way to answer is to copy from the text. The quickstart's
task stays unseen: nothing here has orders, customers, items, quantities or their keys.
"""

import json
import random
import re
from collections.abc import Callable

from pydoc_data.topics import topics

Rng = random.Random
Message = dict[str, str]

ONSETS = "b br c ch cl d dr f fl g gr h j k kl l m n p pr qu r s sh sk sl st t th tr v w y z".split()
NUCLEI = "a e i o u a e i o u ai ea ee ia io oa oo ou".split()
CODAS = ["", "", "", "l", "n", "r", "s", "t", "m", "nd", "rk", "ll", "ck", "x", "sh", "rd", "st", "ng"]
# Words of Python's documentation, to be cut and joined into new ones.
LIBRARY_WORDS = sorted({match for text in topics.values() for match in re.findall(r"\b[a-z]{4,9}\b", text)})
COLOURS = "red blue green white black grey brown yellow purple golden silver pale dark orange pink".split()
ADJECTIVES = (
    "old young quiet loud small large tall short kind brave clever slow quick heavy light warm cold gentle strange "
    "bright soft hard early late broken new round flat deep narrow wooden simple careful hungry tired famous"
).split()
NOUNS = (
    "river mountain garden window bridge forest letter song lamp stone boat horse kitchen tower village field island "
    "road winter summer morning evening market school library teacher farmer sailor doctor painter baker king child "
    "dog cat bird fish fox bear wolf rabbit owl tree flower apple bread milk table chair door wall roof clock mirror "
    "box basket rope wheel engine map coin ring coat hat shoe bell drum flute paper pencil story picture house cloud "
    "rain snow wind storm fire water sand grass leaf seed root branch hill valley lake sea shore harbour train"
).split()
VERBS = (
    "found lost saw carried painted repaired bought sold opened closed remembered forgot followed watched heard "
    "described borrowed returned cleaned built broke drew hid moved measured counted chose kept shared visited"
).split()
PLACES = ["near the {}", "behind the {}", "in the {}", "by the {}", "under the {}", "beside the {}", "past the {}"]
MONTHS = (
    "January February March April May June July August September October November December"
).split()
NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
).split()


def syllables(rng: Rng) -> str:
    """A word of one to three invented syllables."""
    body = "".join(rng.choice(ONSETS) + rng.choice(NUCLEI) for _ in range(rng.choice([1, 2, 2, 3])))
    return body + rng.choice(CODAS)


def blend(rng: Rng) -> str:
    """The beginning of one real word and the end of another."""
    first, second = rng.choice(LIBRARY_WORDS), rng.choice(LIBRARY_WORDS)
    return first[: rng.randint(2, 4)] + second[-rng.randint(2, 5) :]


def word(rng: Rng) -> str:
    """A word, mostly invented."""
    kind = rng.random()
    return syllables(rng) if kind < 0.4 else blend(rng) if kind < 0.85 else rng.choice(LIBRARY_WORDS)


def name(rng: Rng) -> str:
    """An invented name: one capitalised word, sometimes two."""
    first = word(rng).capitalize()
    return f"{first} {word(rng).capitalize()}" if rng.random() < 0.4 else first


def thing(rng: Rng) -> str:
    """A thing in one to three words, some of them invented."""
    head = rng.choice(NOUNS) if rng.random() < 0.6 else word(rng)
    parts = [rng.choice(rng.choice([ADJECTIVES, COLOURS, NOUNS])) for _ in range(rng.choice([0, 0, 1, 1, 2]))]
    return " ".join([*parts, head + ("s" if rng.random() < 0.3 else "")])


def number(rng: Rng) -> int:
    """A whole number, small more often than large."""
    return rng.randint(0, rng.choice([9, 20, 99, 999, 9999]))


def date_forms(rng: Rng) -> list[str]:
    """One random day written in several ways; the first is ISO 8601."""
    year, month, day = rng.randint(1900, 2049), rng.randint(1, 12), rng.randint(1, 28)
    title = MONTHS[month - 1]
    return [
        f"{year}-{month:02d}-{day:02d}",
        f"{day} {title} {year}",
        f"{title} {day}, {year}",
        f"{day:02d}/{month:02d}/{year}",
        f"{day:02d}.{month:02d}.{year}",
        f"{title[:3]} {day} {year}",
    ]


# Records: kind of thing, and the fields one may tell of it, each with a maker of values.
Maker = Callable[[Rng], object]
KINDS: dict[str, dict[str, Maker]] = {
    "book": {"title": thing, "author": name, "pages": number, "language": name, "printed": lambda r: date_forms(r)[0]},
    "animal": {"name": name, "kind": lambda r: r.choice(NOUNS), "colour": lambda r: r.choice(COLOURS), "age": number},
    "journey": {"traveller": name, "from": name, "to": name, "days": number, "began": lambda r: date_forms(r)[0]},
    "star": {"star": name, "seen by": name, "brightness": number, "colour": lambda r: r.choice(COLOURS)},
    "machine": {"machine": thing, "maker": name, "power": number, "built": lambda r: date_forms(r)[0]},
    "song": {"song": thing, "singer": name, "minutes": number, "mood": lambda r: r.choice(ADJECTIVES)},
    "ship": {"ship": name, "captain": name, "harbour": name, "cargo": thing, "crew": number},
    "painting": {"painting": thing, "painter": name, "museum": name, "year": number},
    "meeting": {"speaker": name, "about": thing, "room": number, "day": lambda r: date_forms(r)[0]},
}
CLAUSES = [
    "the {key} is {value}", "its {key} is {value}", "{value} is the {key}", "with {key} {value}", "{key} {value}",
    "as {key} it has {value}", "we call {value} its {key}", "for the {key} they wrote {value}", "({key}: {value})",
]  # fmt: skip
OPENINGS = [
    "There is a {kind}", "This {kind} is known", "Someone told us of a {kind}", "About the {kind}", "I read of a {kind}",
    "Please note a {kind}", "Here is one more {kind}", "The {kind} in question", "A {kind}",
]  # fmt: skip
Record = dict[str, object]
Frame = Callable[[Record], str]


def schema(rng: Rng) -> tuple[str, dict[str, Maker]]:
    """A kind and three to five of its fields in random order; every other kind is itself invented."""
    if rng.random() < 0.5:
        kind, fields = rng.choice(sorted(KINDS.items()))
    else:
        makers: list[Maker] = [name, name, thing, thing, number, lambda r: date_forms(r)[0]]
        kind, fields = word(rng), {word(rng): rng.choice(makers) for _ in range(5)}
    keys = rng.sample(sorted(fields), rng.randint(3, min(5, len(fields))))
    return kind, {key: fields[key] for key in keys}


def prose_frame(rng: Rng, kind: str, keys: list[str]) -> Frame:
    """A sentence frame for records of this kind: an opening, then one clause a field, in a random order."""
    opening = rng.choice(OPENINGS).format(kind=kind)
    clauses = [(key, rng.choice(CLAUSES)) for key in rng.sample(keys, len(keys))]
    joint = rng.choice([", ", "; ", " and ", ", and "])

    def write(record: Record) -> str:
        told = [clause.format(key=key, value=record[key]) for key, clause in clauses]
        return f"{opening}: {joint.join(told)}."

    return write


def bare_frame(rng: Rng, kind: str, keys: list[str]) -> Frame:
    """A sentence frame that never names its keys: values among small words, told apart by their places only."""
    order = rng.sample(keys, len(keys))
    glue = [" ".join(rng.choice([*ADJECTIVES, *VERBS, *NOUNS, "the", "to", "of", "for", "at", "on", "by", "from"])
            for _ in range(rng.randint(1, 3))) for _ in range(len(order) + 1)]  # fmt: skip

    def write(record: Record) -> str:
        middle = " ".join(f"{record[key]} {part}" for key, part in zip(order, glue[1:], strict=True))
        return f"{glue[0].capitalize()} {middle}."

    return write


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


def rewriting(rng: Rng) -> list[Message]:
    """A conversation that rewrites records of one kind from one layout to another, several times over."""
    kind, fields = schema(rng)
    keys = list(fields)
    sources = [rng.choice([prose_frame, bare_frame, prose_frame, bare_frame, layout])(rng, kind, keys)]
    sources += [prose_frame(rng, kind, keys) for _ in range(rng.choice([0, 1, 3]))]
    if rng.random() < 0.6:
        target: Frame = lambda record: json.dumps(record, separators=(",", ":"))  # noqa: E731
    else:
        target = rng.choice([layout, layout, prose_frame])(rng, kind, keys)
    messages = []
    for _ in range(rng.randint(1, 6)):
        record = {key: make(rng) for key, make in fields.items()}
        messages += turn(rng.choice(sources)(record), target(record))
    return messages


def turn(question: str, answer: str) -> list[Message]:
    """A user's message and the answer."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


RELATIONS = [
    ("{a} lives in {b}.", "Where does {a} live?", "Who lives in {b}?"),
    ("{a} is a friend of {b}.", "Whose friend is {a}?", "Who is a friend of {b}?"),
    ("{a} wrote a letter to {b}.", "To whom did {a} write?", "Who wrote to {b}?"),
    ("The capital of {a} is {b}.", "What is the capital of {a}?", "Of what is {b} the capital?"),
    ("{a} works for {b}.", "For whom does {a} work?", "Who works for {b}?"),
    ("In {a} they grow {b}.", "What do they grow in {a}?", "Where do they grow {b}?"),
    ("{a} means {b}.", "What does {a} mean?", "Which word means {b}?"),
]


def facts(rng: Rng) -> list[Message]:
    """Facts about invented names, then questions in both directions."""
    told, asked = [], []
    for _ in range(rng.randint(2, 6)):
        statement, forward, backward = rng.choice(RELATIONS)
        a, b = name(rng), name(rng)
        told.append(statement.format(a=a, b=b))
        asked.append((forward.format(a=a, b=b), b) if rng.random() < 0.5 else (backward.format(a=a, b=b), a))
    rng.shuffle(asked)
    messages = [message for question, answer in asked for message in turn(question, answer)]
    messages[0] = {"role": "user", "content": " ".join(told) + "\n" + asked[0][0]}
    return messages


def lists(rng: Rng) -> list[Message]:
    """A list to say again, as it is, backwards, one a line, or as JSON."""
    maker = rng.choice([word, name, thing, lambda r: str(number(r))])
    items = [str(maker(rng)) for _ in range(rng.randint(3, 14))]
    ask, answer = rng.choice(
        [
            ("Repeat", ", ".join(items)),
            ("Backwards", ", ".join(reversed(items))),
            ("One a line", "\n".join(items)),
            ("As JSON", json.dumps(items, separators=(",", ":"))),
            ("The first of", items[0]),
            ("The last of", items[-1]),
        ]
    )
    return turn(f"{ask}: {', '.join(items)}", answer)


def dates_and_numbers(rng: Rng) -> list[Message]:
    """Days rewritten from one form to another, and number words as digits."""
    messages = []
    to = rng.choice([0, 0, 0, 1, 2])
    for _ in range(rng.randint(2, 6)):
        forms = date_forms(rng)
        messages += turn(rng.choice(forms), forms[to])
    if rng.random() < 0.3:
        value = rng.randrange(len(NUMBER_WORDS))
        messages += turn(NUMBER_WORDS[value], str(value))
    return messages


def story(rng: Rng) -> str:
    """A few sentences that keep coming back to the same invented people and things."""
    people, things = [name(rng) for _ in range(rng.randint(1, 3))], [thing(rng) for _ in range(rng.randint(2, 4))]
    sentences = []
    for _ in range(rng.randint(4, 12)):
        place = rng.choice(PLACES).format(rng.choice(NOUNS))
        form = rng.choice(
            [
                "{a} {v} the {t} {p}.", "Then {a} {v} the {t}.", "The {t} was {j}, and {a} knew it.",
                "{p}, {a} {v} the {t}.", '"Where is the {t}?" asked {a}.', "On {d} {a} {v} the {t} {p}.",
                "{a} had {n} of them, but only one {t}.", "It was a {j} day, so {a} {v} the {t} and the {u}.",
            ]
        )  # fmt: skip
        sentence = form.format(
            a=rng.choice(people), v=rng.choice(VERBS), t=rng.choice(things), u=rng.choice(things), p=place,
            j=rng.choice(ADJECTIVES), n=rng.choice(NUMBER_WORDS[2:]), d=rng.choice(date_forms(rng)),
        )  # fmt: skip
        sentences.append(sentence[0].upper() + sentence[1:])
    return " ".join(sentences)


def echo(rng: Rng) -> str:
    """Random words said two to four times over: the shortest lesson in copying."""
    words = [rng.choice([word, name, thing, lambda r: str(number(r))])(rng) for _ in range(rng.randint(4, 30))]
    return rng.choice(["\n", " ", " . "]).join([" ".join(words)] * rng.randint(2, 4))


CONVERSATIONS: list[Callable[[Rng], list[Message]]] = [rewriting, rewriting, rewriting, facts, lists, dates_and_numbers]


def conversation(rng: Rng) -> list[Message]:
    """One invented conversation of any kind, now and then with a system message before it."""
    messages = rng.choice(CONVERSATIONS)(rng)
    if rng.random() < 0.1:
        return [{"role": "system", "content": "You are a helpful assistant."}, *messages]
    return messages


def as_plain_text(messages: list[Message], rng: Rng) -> str:
    """The same conversation without chat turns, as notes."""
    ask, answer, end = rng.choice([("Q: ", "A: ", "\n"), ("", "", "\n"), ("", "-> ", "\n"), ("In: ", "Out: ", "\n\n")])
    marks = {"user": ask, "assistant": answer, "system": ""}
    return end.join(marks[message["role"]] + message["content"] for message in messages) + end
