"""English that the scripts invent: facts and questions, lists, dates, stories, and conversations of all kinds.

Names are mostly invented, so that the only way to answer is to copy from the text.
"""

import json
import re
from collections.abc import Callable

from tiny_records import Message, Rng, rewriting, turn
from tiny_words import ADJECTIVES, NOUNS, NUMBER_WORDS, PLACES, VERBS, day, forms_of, name, number, thing, word

# A piece of a document and the loss weight of its tokens. What is invented cannot be predicted: at full weight its
# loss would drown what there is to learn, which is to find it again and copy it.
Segment = tuple[str, float]
UNPREDICTABLE = 0.15

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
    for _ in range(rng.choice([1, 2, 3, 4, 6])):
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
    items = [str(maker(rng)) for _ in range(rng.choice([1, 2, 3, 4, 6, 10]))]
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
        forms = forms_of(day(rng))
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
            j=rng.choice(ADJECTIVES), n=rng.choice(NUMBER_WORDS[2:]), d=rng.choice(forms_of(day(rng))),
        )  # fmt: skip
        sentences.append(sentence[0].upper() + sentence[1:])
    return " ".join(sentences)


def echo(rng: Rng) -> list[Segment]:
    """Random words said two to four times over, with the same mark between them: the shortest lesson in copying."""
    said = [
        rng.choice([word, name, thing, lambda r: str(number(r))])(rng)
        for _ in range(rng.choice([1, 2, 3, 4, 6, 8, 12, 20]))
    ]
    mark = rng.choice([" ", " ", "", ",", "_", ", "])
    again = rng.choice(["\n", " . ", " = "])
    once = mark.join(said)
    return [(once, UNPREDICTABLE), ((again + once) * rng.randint(1, 3), 1.0)]


CONVERSATIONS: list[Callable[[Rng], list[Message]]] = [*[rewriting] * 4, facts, lists, dates_and_numbers]


def conversation(rng: Rng) -> list[Message]:
    """One invented conversation of any kind, now and then with a system message before it."""
    messages = rng.choice(CONVERSATIONS)(rng)
    if rng.random() < 0.1:
        return [{"role": "system", "content": "You are a helpful assistant."}, *messages]
    return messages


def as_chat(rendered: str) -> list[Segment]:
    """A rendered conversation, cut into what is asked and what is answered (the end of the turn included)."""
    cut = re.split(r"(?<=<\|im_start\|>assistant\n)(.*?<\|im_end\|>)", rendered, flags=re.DOTALL)
    return [(text, 1.0 if place % 2 else UNPREDICTABLE) for place, text in enumerate(cut)]


def as_plain_text(messages: list[Message], rng: Rng) -> list[Segment]:
    """The same conversation without chat turns, as notes."""
    ask, answer, end = rng.choice([("Q: ", "A: ", "\n"), ("", "", "\n"), ("", "-> ", "\n"), ("In: ", "Out: ", "\n\n")])
    segments: list[Segment] = []
    for message in messages:
        if message["role"] == "assistant":
            segments += [(answer, 1.0), (message["content"] + end, 1.0)]
        else:
            segments.append((ask + message["content"] + end, UNPREDICTABLE))
    return segments
