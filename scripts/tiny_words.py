"""Words, names, numbers and days for invented text; most of the words are invented too."""

import datetime
import random
import re
from pydoc_data.topics import topics

Rng = random.Random


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


ONSETS = words("b br c ch cl d dr f fl g gr h j k kl l m n p pr qu r s sh sk sl st t th tr v w y z")
NUCLEI = ["a", "e", "i", "o", "u", "a", "e", "i", "o", "u", "ai", "ea", "ee", "ia", "io", "oa", "oo", "ou"]
CODAS = ["", "", "", "l", "n", "r", "s", "t", "m", "nd", "rk", "ll", "ck", "x", "sh", "rd", "st", "ng"]
# Words of Python's documentation, to be cut and joined into new ones.
LIBRARY_WORDS = sorted({match for text in topics.values() for match in re.findall(r"\b[a-z]{4,9}\b", text)})
COLOURS = words("red blue green white black grey brown yellow purple golden silver pale dark orange pink")
ADJECTIVES = words(
    "old young quiet loud small large tall short kind brave clever slow quick heavy light warm cold gentle "
    "strange bright soft hard early late broken new round flat deep narrow wooden simple careful hungry "
    "tired famous"
)
NOUNS = words(
    "river mountain garden window bridge forest letter song lamp stone boat horse kitchen tower village "
    "field island road winter summer morning evening market school library teacher farmer sailor doctor "
    "painter baker king child dog cat bird fish fox bear wolf rabbit owl tree flower apple bread milk table "
    "chair door wall roof clock mirror box basket rope wheel engine map coin ring coat hat shoe bell drum "
    "flute paper pencil story picture house cloud rain snow wind storm fire water sand grass leaf seed root "
    "branch hill valley lake sea shore harbour train"
)
VERBS = words(
    "found lost saw carried painted repaired bought sold opened closed remembered forgot followed watched "
    "heard described borrowed returned cleaned built broke drew hid moved measured counted chose kept shared "
    "visited"
)
PLACES = ["near the {}", "behind the {}", "in the {}", "by the {}", "under the {}", "beside the {}", "past the {}"]
MONTHS = words("January February March April May June July August September October November December")
NUMBER_WORDS = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)


def syllables(rng: Rng) -> str:
    """A word of one to three invented syllables."""
    body = "".join(rng.choice(ONSETS) + rng.choice(NUCLEI) for _ in range(rng.choice([1, 2, 2, 3])))
    return body + rng.choice(CODAS)


def blend(rng: Rng) -> str:
    """The beginning of one real word and the end of another."""
    first, second = rng.choice(LIBRARY_WORDS), rng.choice(LIBRARY_WORDS)
    return first[: rng.randint(2, 4)] + second[-rng.randint(2, 5) :]


def letters(rng: Rng) -> str:
    """Three to eight letters in no order that a language would have: such words fall into the oddest tokens."""
    return "".join(rng.choice("aabcdeefghiijklmnoopqrstuuvwxyz") for _ in range(rng.randint(3, 8)))


def word(rng: Rng) -> str:
    """A word, mostly invented."""
    maker = rng.choices([syllables, blend, letters], [0.4, 0.4, 0.1])[0]
    return rng.choice(LIBRARY_WORDS) if rng.random() < 0.1 else maker(rng)


def name(rng: Rng) -> str:
    """An invented name: one capitalised word, sometimes two."""
    first = word(rng).capitalize()
    return f"{first} {word(rng).capitalize()}" if rng.random() < 0.5 else first


def thing(rng: Rng) -> str:
    """A thing in one to three words, some of them invented."""
    head = rng.choice(NOUNS) if rng.random() < 0.6 else word(rng)
    parts = [rng.choice(rng.choice([ADJECTIVES, COLOURS, NOUNS])) for _ in range(rng.choice([0, 0, 1, 1, 2]))]
    return " ".join([*parts, head + ("s" if rng.random() < 0.3 else "")])


def number(rng: Rng) -> int:
    """A whole number, small more often than large."""
    return rng.randint(0, rng.choice([9, 20, 99, 999, 9999]))


def day(rng: Rng) -> datetime.date:
    """A random day of the years 1950 to 2049."""
    return datetime.date(1950, 1, 1) + datetime.timedelta(days=rng.randrange(36_524))


def iso_day(rng: Rng) -> str:
    """A random day as ISO 8601 writes it."""
    return day(rng).isoformat()


def forms_of(date: datetime.date) -> list[str]:
    """One day written in several ways; the first is ISO 8601."""
    month = MONTHS[date.month - 1]
    return [
        date.isoformat(),
        f"{date.day} {month} {date.year}",
        f"{month} {date.day}, {date.year}",
        f"{date.day:02d}/{date.month:02d}/{date.year}",
        f"{date.day:02d}.{date.month:02d}.{date.year}",
        f"{month[:3]} {date.day} {date.year}",
    ]
