"""`alpaca`: an instruction, perhaps with an input, and an output."""

from ftk.data.formats.format import Format, Reading, Row, assistant, text, user


def read(row: Row) -> Reading:
    """The input follows the instruction after an empty line, as in the prompt of Stanford Alpaca."""
    instruction = text(row["instruction"], "instruction")
    given = row.get("input")
    prompt = f"{instruction}\n\n{text(given, 'input')}" if given not in (None, "") else instruction
    messages = [user(prompt), assistant(row["output"])]
    if row.get("system"):
        messages.insert(0, {"role": "system", "content": text(row["system"], "system")})
    return Reading(messages, [])


ALPACA = Format(name="alpaca", needs=("instruction", "output"), takes=("input", "system"), read=read)
