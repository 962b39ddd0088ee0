"""`alpaca`: an instruction, perhaps with an input, and an output."""

from typing import Any

from ftk.data.formats.format import Format, Reading, Row, Writer, assistant, said, text, user


def read(row: Row) -> Reading:
    """The input follows the instruction after an empty line, as in the prompt of Stanford Alpaca."""
    instruction = text(row["instruction"], "instruction")
    given = row.get("input")
    prompt = f"{instruction}\n\n{text(given, 'input')}" if given not in (None, "") else instruction
    messages = [user(prompt), assistant(row["output"])]
    if row.get("system"):
        messages.insert(0, {"role": "system", "content": text(row["system"], "system")})
    return Reading(messages, [])


def write(reading: Reading) -> dict[str, Any]:
    """The whole question is the instruction; the input stays empty, since nothing says where one would begin."""
    *system, question, answer = reading.messages
    row = {"instruction": said(question), "input": "", "output": said(answer)}
    return {**row, "system": said(system[0])} if system else row


ALPACA = Format(
    name="alpaca",
    needs=("instruction", "output"),
    takes=("input", "system"),
    read=read,
    writer=Writer(write, system="first", turns="one", tools=False),
)
