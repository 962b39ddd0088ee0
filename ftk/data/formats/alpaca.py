"""`alpaca`: an instruction, perhaps with an input, and an output."""

from typing import Any

from ftk.core.types import Message
from ftk.data.formats.format import Format, FormatError, Reading, Row, Writer, assistant, said, text, user
from ftk.data.formats.messages import from_json


def read(row: Row) -> Reading:
    """The input follows the instruction after an empty line, as in Stanford Alpaca's prompt; `history` goes before."""
    instruction = text(row["instruction"], "instruction")
    given = row.get("input")
    prompt = f"{instruction}\n\n{text(given, 'input')}" if given not in (None, "") else instruction
    messages = [*_history(row.get("history")), user(prompt), assistant(row["output"])]
    if row.get("system"):
        messages.insert(0, {"role": "system", "content": text(row["system"], "system")})
    return Reading(messages, [])


def _history(value: Any) -> list[Message]:
    """Earlier turns, a list of pairs of instruction and output; learned too, unless `train_on` says otherwise."""
    pairs = from_json(value) if value else []
    if not isinstance(pairs, list | tuple):
        raise FormatError(f"history is {type(pairs).__name__}, expected a list of pairs of instruction and output")
    messages: list[Message] = []
    for number, pair in enumerate(pairs, start=1):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise FormatError(f"history: turn {number} is no pair of an instruction and an output")
        messages += [user(pair[0]), assistant(pair[1])]
    return messages


def write(reading: Reading) -> dict[str, Any]:
    """The whole question is the instruction; the input stays empty, since nothing says where one would begin.

    Earlier turns go to `history`, which Stanford's own rows do not have.
    """
    messages = reading.messages
    system = [said(message) for message in messages[:1] if message["role"] == "system"]
    *earlier, question, answer = map(said, messages[len(system) :])
    row: dict[str, Any] = {"instruction": question, "input": "", "output": answer}
    if system:
        row["system"] = system[0]
    if earlier:
        row["history"] = [list(pair) for pair in zip(earlier[::2], earlier[1::2], strict=True)]
    return row


ALPACA = Format(
    name="alpaca",
    needs=("instruction", "output"),
    takes=("input", "system", "history"),
    read=read,
    writer=Writer(write, system="first", turns="pairs", tools=False),
)
