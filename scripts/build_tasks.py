"""Build ftk://contacts and ftk://events: sentences like those of ftk://orders, whose answers are other JSON.

    python scripts/build_tasks.py            write train.jsonl and eval.jsonl into ftk/data/contacts and ftk/data/events
    python scripts/build_tasks.py --check    say whether the shipped files are what this script writes

They show with ftk://orders what tuning on one task does to another, and what merging keeps. Names and cities are those
of ftk://orders. Of the evaluation rows a third is `unseen`: its names, its words and its sentence frame occur in no
training row.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

from build_orders import TRAIN as ORDERS_TRAIN
from build_orders import UNSEEN as ORDERS_UNSEEN
from build_orders import phrases, words

FOLDER = Path(__file__).resolve().parent.parent / "ftk" / "data"
NUM_TRAIN, NUM_SEEN, NUM_UNSEEN = 800, 80, 40
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
QUARTERS = (0, 15, 30, 45)
"""Minutes at which events start."""

CONTACTS_TRAIN = {
    "role": phrases(
        "buyer,cook,driver,nurse,painter,teacher,baker,clerk,farmer,plumber,lawyer,dentist,editor,architect,"
        "gardener,carpenter,accountant,engineer,mechanic,librarian,translator,photographer,sales manager,"
        "office manager,store manager,chief cook,head nurse,night guard"
    ),
    "company": phrases(
        "Northwind,Bluebird,Silver Oak,Green Valley,Red Stone,Old Mill,Sunrise,Highland,Riverside,Golden Gate,"
        "White Cliff,Black Forest,Lakeview,Iron Bridge,Maple Leaf,Morning Star,Blue Harbor,Stone Age,Clear Water,"
        "Evergreen,Crown,Pioneer,Summit,Horizon"
    ),
    "frame": [
        "{name} is {role} at {company}, extension {extension}.",
        "You reach {name}, our {role}, at {company} under {extension}.",
        "For the {role} of {company}, {name}, dial {extension}.",
        "My name is {name}, I work as {role} for {company}; my extension is {extension}.",
        "Call {extension} and ask for {name}, {role} at {company}.",
        "The {role} at {company} is now {name}. The extension stays {extension}.",
        "{company} has a new {role}: {name}, extension {extension}.",
        "Please save the number {extension}: {name}, {role}, {company}.",
        "At {company}, {name} answers {extension} and is the {role}.",
        "{name} left a card: {role}, {company}, extension {extension}.",
        "Extension {extension} at {company} belongs to {name}, the {role}.",
        "Ask {name} about it, the {role} of {company} under {extension}.",
        "I spoke to {name}, {role} at {company}. The number is {extension}.",
        "Contact: {name}. Role: {role}. Company: {company}. Extension: {extension}.",
        "{company}, extension {extension}: {name} is the {role} there.",
        "Since Monday {name} has been {role} with {company} and answers {extension}.",
        "Dial {extension} for {name} of {company}, who is {role}.",
        "Our {role} {name} moved to {company}; the new extension is {extension}.",
        "Hello, {name} speaking, {role} at {company}, extension {extension}.",
        "Write down {name}, {company}, {role}, {extension}.",
        "The person to ask at {company} is {name}, {role}, under {extension}.",
        "{name}, who is {role} at {company}, can be called under {extension}.",
        "With questions for {company} call {name}, the {role}, extension {extension}.",
        "{company} lists {name} as {role} with extension {extension}.",
    ],
}
CONTACTS_UNSEEN = {
    "role": phrases("tailor,butcher,pilot,chemist,florist,barber,tour guide,shop keeper"),
    "company": phrases("Eagle Rock,Winter Garden,Sea Breeze,Copper Hill,Amber,Grand Union,Quick Step,Falcon"),
    "frame": [
        "Meet {name}, {role} of {company}, on extension {extension}.",
        "If the line {extension} is free, {name} picks up: the {role} at {company}.",
        "On {extension} sits {name}, who works for {company} as {role}.",
        "A note on {name}: {role}, {company}, {extension}.",
        "Should you need a {role}, {company} has {name} under {extension}.",
        "{name} joined {company} as {role} and got extension {extension}.",
    ],
}
EVENTS_TRAIN = {
    "event": phrases(
        "chess club,choir concert,book fair,garden party,film night,yoga class,board meeting,staff lunch,"
        "wine tasting,team dinner,dance lesson,art show,flea market,quiz night,job fair,cooking class,"
        "safety training,music lesson,town meeting,charity run,poetry reading,science fair,tennis match,"
        "birthday party,summer party,fire drill,press meeting,paint workshop"
    ),
    "frame": [
        "The {event} in {city} starts on {day} at {time}.",
        "On {day} at {time} there is a {event} in {city}.",
        "Join us for the {event} in {city}, {day}, {time}.",
        "{city} has its {event} on {day}, beginning at {time}.",
        "Do not miss the {event} on {day}: {time} in {city}.",
        "Next {day} we go to {city} for the {event} at {time}.",
        "At {time} on {day} the {event} opens in {city}.",
        "Reminder: {event}, {city}, {day} at {time}.",
        "The {event} was moved to {day}, {time}, still in {city}.",
        "Will you come to {city} on {day}? The {event} is at {time}.",
        "Save the day: {event} in {city} this {day} from {time}.",
        "Our {event} is held in {city} on {day} and starts at {time}.",
        "In {city}, the {event} begins {day} at {time}.",
        "This {day} at {time}: {event} in {city}.",
        "We invite you to a {event} on {day} at {time} in {city}.",
        "Event: {event}. City: {city}. Day: {day}. Time: {time}.",
        "From {time} on {day}, {city} hosts the {event}.",
        "There will be a {event} at {time} in {city} on {day}.",
        "Tickets for the {event} in {city} are valid on {day} from {time}.",
        "The doors of the {event} in {city} open at {time} on {day}.",
        "{day}, {time}, {city}: {event}.",
        "Meet me at the {event} on {day} at {time}; it is in {city}.",
        "They plan a {event} for {day} at {time}, somewhere in {city}.",
        "It is settled: the {event} takes place in {city} on {day} at {time}.",
    ],
}
EVENTS_UNSEEN = {
    "event": phrases("puppet theatre,street parade,sailing race,jazz evening,blood donation,craft bazaar"),
    "frame": [
        "Come along to {city} on {day}, where the {event} kicks off at {time}.",
        "Starting {time} this {day}, a {event} awaits you in {city}.",
        "Let me tell you of the {event}: {city}, {time}, {day}.",
        "Everyone in {city} looks forward to {day}, {time}, and the {event}.",
        "We postponed the {event} in {city} until {day} at {time}.",
        "Reserve {day} at {time} for the {event} held in {city}.",
    ],
}
Values = dict[str, list[str]]
Answer = dict[str, object]
Task = Callable[[Values, random.Random], tuple[str, Answer]]


def contact(values: Values, rng: random.Random) -> tuple[str, Answer]:
    """One sentence about a person at a company, and its fields."""
    name = f"{rng.choice(values['first'])} {rng.choice(values['last'])}"
    role, company, extension = rng.choice(values["role"]), rng.choice(values["company"]), rng.randint(100, 999)
    sentence = rng.choice(values["frame"]).format(name=name, role=role, company=company, extension=extension)
    return sentence, {"name": name, "role": role, "company": company, "extension": extension}


def event(values: Values, rng: random.Random) -> tuple[str, Answer]:
    """One sentence about an event, and its fields; the time is of 24 hours."""
    name, city, day = rng.choice(values["event"]), rng.choice(values["city"]), rng.choice(DAYS)
    hour, minute = rng.randint(8, 21), rng.choice(QUARTERS)
    told = f"{hour:02d}:{minute:02d}" if rng.random() < 0.6 else _in_half_days(hour, minute)
    sentence = rng.choice(values["frame"]).format(event=name, city=city, day=day, time=told)
    return sentence, {"event": name, "city": city, "day": day, "time": f"{hour:02d}:{minute:02d}"}


def _in_half_days(hour: int, minute: int) -> str:
    """2:30 pm for 14:30."""
    return f"{(hour - 1) % 12 + 1}:{minute:02d} {'am' if hour < 12 else 'pm'}"


TASKS: dict[str, tuple[Task, Values, Values]] = {
    "contacts": (contact, ORDERS_TRAIN | CONTACTS_TRAIN, ORDERS_UNSEEN | CONTACTS_UNSEEN),
    "events": (event, ORDERS_TRAIN | EVENTS_TRAIN, ORDERS_UNSEEN | EVENTS_UNSEEN),
}


def rows(
    task: Task, values: Values, rng: random.Random, *, num: int, unseen: bool, taken: set[str]
) -> list[dict[str, object]]:
    """That many rows, none with a sentence in `taken`, to which theirs are added."""
    made: list[dict[str, object]] = []
    while len(made) < num:
        sentence, answer = task(values, rng)
        prompt = sentence[0].upper() + sentence[1:]
        if prompt not in taken:
            taken.add(prompt)
            completion = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
            made.append({"prompt": prompt, "completion": completion, "unseen": unseen})
    return made


def build(seed: int) -> dict[str, str]:
    """Text of each file, by its path."""
    files: dict[str, str] = {}
    for name, (task, train_values, unseen_values) in TASKS.items():
        rng = random.Random(f"{name} {seed}")
        taken: set[str] = set()
        train = rows(task, train_values, rng, num=NUM_TRAIN, unseen=False, taken=taken)
        held_out = rows(task, train_values, rng, num=NUM_SEEN, unseen=False, taken=taken)
        held_out += rows(task, unseen_values, rng, num=NUM_UNSEEN, unseen=True, taken=taken)
        rng.shuffle(held_out)
        for file, content in (("train", train), ("eval", held_out)):
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in content)
            files[f"{name}/{file}.jsonl"] = "".join(lines)
    return files


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the shipped files instead of writing")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    files = build(arguments.seed)
    if arguments.check:
        differing = [name for name, text in files.items() if (arguments.out / name).read_text(encoding="utf-8") != text]
        print(f"differs from what this script writes: {', '.join(differing)}" if differing else "as this script writes")
        return 1 if differing else 0
    for name, text in files.items():
        (arguments.out / name).parent.mkdir(parents=True, exist_ok=True)
        (arguments.out / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
