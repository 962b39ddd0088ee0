"""The `ftk` command: a table of commands, each module of which is imported only when it is called.

A command module `ftk/cli/<name>.py` has either one function `command`, or a dict `commands` of functions by name for
`ftk <name> <subcommand>`. The functions are plain: parameters annotated as typer reads them, the docstring as help.
They return a mapping of JSON values, or None where there is nothing to tell a machine; `ftk/cli/output.py` says how a
command prints and fails. `--json` is added to every one, and the flags of `ftk/cli/flags.py` to each with a parameter
`overrides`.
"""

import atexit
import gc
import importlib
import inspect
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Annotated, Any

import typer

from ftk import __version__
from ftk.cli.flags import RECIPE_FLAGS, as_overrides
from ftk.cli.output import UsageError, finish
from ftk.core.signals import raising

Function = Callable[..., Mapping[str, object] | None]

COMMANDS: dict[str, str] = {
    "init": "Write a first recipe for some data, a model and a memory, with the reason for each choice.",
    "train": "Train a model as a recipe says, and measure it before and after.",
    "estimate-memory": "Tell what a run will take, before anything is loaded or rented.",
    "eval": "Measure a model, an adapter or a run on held-out rows.",
    "merge": "Fold adapters into their base, or merge models into one.",
    "extract": "Take a LoRA out of a base and a model tuned from it.",
    "generate": "Answer one prompt.",
    "chat": "Talk to a model in the terminal.",
    "data": "Look at, check, mend, convert and split data.",
    "recipe": "List, copy, show and check recipes.",
    "env": "Versions and devices, as a bug report needs them.",
}
"""Names and their one line of help, in the order of a session; known here so that help imports none of them."""

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object, last and alone on standard output.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    # Python's last search for garbage walks every object of every import, for up to half a second, and frees nothing.
    atexit.register(gc.freeze)
    # Where Ctrl-C is ignored, as behind nohup, it stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, raising(KeyboardInterrupt))
    words = list(sys.argv[1:] if arguments is None else arguments)
    before_dashes = words[: words.index("--")] if "--" in words else words
    sys.exit(finish(lambda: _call(words), as_json="--json" in before_dashes))


def _call(words: list[str]) -> object:
    chosen = words[0] if words and words[0] in COMMANDS else None
    command = typer.main.get_command(_application(chosen))
    if not words or (chosen is not None and len(words) == 1 and _is_group(chosen)):
        words = [*words, "--help"]
    # Not command.main(), which has its own idea of how interruptions and closed pipes end.
    try:
        with command.make_context("ftk", words) as context:
            return command.invoke(context)
    except typer.TyperException as error:
        raise UsageError(error.format_message(), command=_reached(words)) from error


def _reached(words: Sequence[str]) -> str:
    """The command that the words get to, such as `ftk recipe copy`."""
    reached = ["ftk", *(word for word in words[:1] if word in COMMANDS)]
    if len(reached) > 1 and _is_group(reached[1]):
        reached += [word for word in words[1:2] if word in _module(reached[1])["commands"]]
    return " ".join(reached)


def _application(chosen: str | None) -> typer.Typer:
    app = _plain_typer(help="Finetune language models from YAML recipes.")
    app.callback()(_root)
    for name, line in COMMANDS.items():
        if name != chosen:
            # Never called: only its name and line are shown, which as help alone would be cut.
            app.command(name, help=line, short_help=line)(_not_loaded)
        elif _is_group(name):
            group = _plain_typer(help=line)
            group.callback()(_group)
            for sub_name, function in _module(name)["commands"].items():
                # Said, since what typer takes from the docstring by itself it cuts.
                line_of = (inspect.getdoc(function) or "").partition("\n\n")[0]
                group.command(sub_name, short_help=line_of)(prepared(function))
            app.add_typer(group, name=name)
        else:
            app.command(name)(prepared(_module(name)["command"]))
    return app


def _plain_typer(*, help: str) -> typer.Typer:
    # Rich help costs a tenth of a second.
    return typer.Typer(help=help, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)


def _module(name: str) -> dict[str, Any]:
    return vars(importlib.import_module(f"ftk.cli.{name.replace('-', '_')}"))


def _is_group(name: str) -> bool:
    return "commands" in _module(name)


def _show_version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_show_version)] = False,
) -> None:
    """What all commands share."""


def _group() -> None:
    """Keeps a group of one command a group."""


def _not_loaded() -> None:
    raise AssertionError("a command was called whose module was not imported")


def prepared(function: Function) -> Function:
    """The command as typer takes it: with `--json`, and the recipe's flags where it has a parameter `overrides`."""
    signature = inspect.signature(function, eval_str=True)
    takes_recipe = "overrides" in signature.parameters
    added = [inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonFlag)]
    if takes_recipe:
        added += [flag.parameter() for flag in RECIPE_FLAGS if flag.name not in signature.parameters]

    @wraps(function)
    def run(**values: Any) -> Mapping[str, object] | None:
        extra = {parameter.name: values.pop(parameter.name) for parameter in added}
        if takes_recipe:
            values["overrides"] = [*as_overrides(extra), *(values["overrides"] or ())]
        return function(**values)

    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in signature.parameters.values()]
    run.__signature__ = signature.replace(parameters=[*parameters, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*parameters, *added]}
    return run
