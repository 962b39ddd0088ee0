"""`ftk generate`."""

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer


def command(
    model: Annotated[str, typer.Argument(help="Hub id, model folder, adapter folder or run folder.")],
    prompt: Annotated[str | None, typer.Argument(help="What is asked; - reads it from standard input.")] = None,
    *,
    prefix: Annotated[str | None, typer.Option("--prefix", help="Fill a hole: what stands before it.")] = None,
    suffix: Annotated[str | None, typer.Option("--suffix", help="What stands after the hole.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="A system message before it.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Go on from the text as it stands, without a template.")] = False,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="Longest answer in tokens.")] = 256,
    temperature: Annotated[float, typer.Option("--temperature", help="0 takes the most probable token.")] = 0.0,
    top_p: Annotated[float, typer.Option("--top-p", help="Draw from the fewest tokens of this probability.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draws.")] = 0,
    chat_template: Annotated[
        str | None, typer.Option("--chat-template", help="A shipped template or a Jinja file instead of the model's.")
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub id.")] = None,
) -> Mapping[str, object]:
    """Answer one prompt, or fill the hole between --prefix and --suffix."""
    from ftk.core.errors import RecipeError

    if prefix is not None or suffix is not None:
        if prompt is not None or raw or system is not None or chat_template is not None:
            raise RecipeError(
                "--prefix and --suffix fill a hole: a prompt, --raw, --system and --chat-template do not go"
            )
        sampling = {"temperature": temperature, "top_p": top_p, "seed": seed, "max_new_tokens": max_new_tokens}
        return _fill(model, prefix or "", suffix or "", revision=revision, **sampling)
    if prompt is None:
        raise RecipeError("there is no prompt. Give one, or --prefix and --suffix around a hole")
    if raw and (system is not None or chat_template is not None):
        raise RecipeError("--raw uses no template, so --system and --chat-template do nothing beside it")
    text = _standard_input() if prompt == "-" else prompt
    if not text.strip():
        raise RecipeError("the prompt is empty")

    from ftk.runs.generate import Sampling, Speaker

    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed, max_new_tokens=max_new_tokens)
    speaker = Speaker(model, revision=revision, chat_template=chat_template)
    if raw:
        reply = speaker.go_on(text, sampling, on_text=_print_piece)
    else:
        messages = [{"role": "system", "content": system}] if system is not None else []
        reply = speaker.answer([*messages, {"role": "user", "content": text}], sampling, on_text=_print_piece)
    print()
    if reply.finish_reason == "length":
        print(f"(cut after {reply.num_tokens} tokens)", file=sys.stderr)
    return reply.as_json()


def _fill(model: str, prefix: str, suffix: str, *, revision: str | None, **sampling: Any) -> Mapping[str, object]:
    from ftk.core.errors import RecipeError
    from ftk.runs.generate import Sampling, Speaker

    if not prefix and not suffix:
        raise RecipeError("prefix and suffix are empty: there is nothing around the hole")
    wanted = Sampling(**sampling)
    reply = Speaker(model, revision=revision).fill(prefix, suffix, wanted)
    print(reply.text)
    if reply.finish_reason == "length":
        print(f"(cut after {reply.num_tokens} tokens)", file=sys.stderr)
    return reply.as_json()


def _standard_input() -> str:
    from ftk.core.errors import DataError

    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text (byte {error.start + 1})", place="standard input") from error


def _print_piece(piece: str) -> None:
    print(piece, end="", flush=True)
