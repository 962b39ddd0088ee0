"""`ftk chat`."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ftk.runs.generate import Sampling, Speaker

HELP = "/reset forgets what was said, /exit or Ctrl-D ends"


def command(
    model: Annotated[str, typer.Argument(help="Hub id, model folder, adapter folder or run folder.")],
    *,
    system: Annotated[str | None, typer.Option("--system", help="A system message before it all.")] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="Longest answer in tokens.")] = 512,
    temperature: Annotated[float, typer.Option("--temperature", help="0 takes the most probable token.")] = 0.7,
    top_p: Annotated[float, typer.Option("--top-p", help="Draw from the fewest tokens of this probability.")] = 0.95,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draws.")] = 0,
    chat_template: Annotated[
        str | None, typer.Option("--chat-template", help="A shipped template or a Jinja file instead of the model's.")
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub id.")] = None,
) -> Mapping[str, object]:
    """Talk to a model in the terminal.

    /reset forgets what was said, /exit or Ctrl-D ends, Ctrl-C stops an answer. Where standard input is no terminal,
    each of its lines is a question.
    """
    from ftk.runs.generate import Sampling, Speaker

    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed, max_new_tokens=max_new_tokens)
    speaker = Speaker(model, revision=revision, chat_template=chat_template)
    if sys.stdin.isatty():
        print(f"{model}. {HELP}.", file=sys.stderr)
    opening = [{"role": "system", "content": system}] if system is not None else []
    return {"messages": _talk(speaker, sampling, opening)}


def _talk(speaker: "Speaker", sampling: "Sampling", opening: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turn after turn until the end; what was said since the last reset."""
    messages = list(opening)
    turn = 0
    while (line := _next_line()) is not None and line != "/exit":
        if line == "/reset":
            messages = list(opening)
            print("What was said is forgotten.", file=sys.stderr)
        elif line.startswith("/"):
            print(f"There is no command {line.split()[0]}: {HELP}.", file=sys.stderr)
        elif line:
            question = {"role": "user", "content": line}
            answer = _answer(speaker, sampling, [*messages, question], turn)
            if answer is not None:
                messages += [question, {"role": "assistant", "content": answer}]
            turn += 1
    return messages


def _next_line() -> str | None:
    """What the user says next; None at the end."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.strip() if line else None
    try:
        # To standard error, since input() would put its prompt beside the answers.
        print("> ", end="", file=sys.stderr, flush=True)
        return input().strip()
    except EOFError:
        print(file=sys.stderr)
        return None


def _answer(speaker: "Speaker", sampling: "Sampling", messages: list[dict[str, Any]], turn: int) -> str | None:
    """The model's answer, told as it comes; None where it was stopped, or there is no room for one."""
    from dataclasses import replace

    from ftk.core.errors import DataError

    try:
        # Each turn draws anew, so that the same question twice does not get the same answer.
        drawn = replace(sampling, seed=sampling.seed + turn)
        reply = speaker.answer(messages, drawn, on_text=lambda piece: print(piece, end="", flush=True))
    except KeyboardInterrupt:
        print("\n(stopped)", file=sys.stderr)
        return None
    except DataError as error:
        if not sys.stdin.isatty() or len(messages) == 1:
            raise
        print(error, file=sys.stderr)
        return None
    print()
    return reply.text
