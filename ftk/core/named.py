"""Functions of the user's own that a recipe names as `module:function`."""

import importlib
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ftk.core.errors import RecipeError


def load_function(name: str, *, purpose: str) -> Callable[..., Any]:
    """The function that `module:function` names; the module is looked for in the working directory first.

    `purpose` says in an error what it should be, such as `a row format: function(row) -> messages`.

    Raises:
        RecipeError: there is no such module, it fails to load, or it has no such function.
    """
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        # The `ftk` script, unlike `python -m`, starts without it.
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise RecipeError(f"{name}: module {module_name} needs {error.name}, which is not installed") from error
        raise RecipeError(
            f"{name}: there is no module {module_name} in {here} or among the installed ones. Expected {purpose}"
        ) from error
    except Exception as error:
        raise RecipeError(f"{name}: module {module_name} fails to load: {type(error).__name__}: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = get_close_matches(function_name, own, n=1)
        hint = f" Did you mean {module_name}:{near[0]}?" if near else ""
        raise RecipeError(f"{name}: {module_name} has no function {function_name}. Expected {purpose}.{hint}")
    found: Callable[..., Any] = function
    return found
