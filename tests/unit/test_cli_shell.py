"""The shell around every command: exit codes, JSON for machines, flags, closed pipes."""

import json
import math
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Annotated

import pytest
import typer

from ftk import __version__
from ftk.cli import app
from ftk.cli.flags import OVERRIDES_HELP, RECIPE_FLAGS
from ftk.cli.output import as_json_line
from ftk.core.errors import DataError, Interrupted, ModelError, RecipeError, RunError, SetupError, Stopped
from ftk.recipe.schema import Recipe
from ftk.recipe.shapes import fields


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ftk", *words], capture_output=True, text=True, cwd=cwd)


@pytest.fixture
def call(monkeypatch, capsys):
    """Run `ftk env ...` with a command of the test's own in its place."""

    def with_command(function, *words: str) -> tuple[int, str, str]:
        monkeypatch.setitem(sys.modules, "ftk.cli.env", types.SimpleNamespace(command=function))
        with pytest.raises(SystemExit) as end:
            app.main(["env", *words])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return with_command


def test_help_lists_the_commands_and_imports_none():
    program = (
        "import sys\nfrom ftk.cli.app import main\ntry: main(['--help'])\n"
        "except SystemExit: print(sorted(m for m in sys.modules if m.startswith('ftk.') or '.' not in m))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    unfolded = " ".join(done.stdout.split())
    for name, line in app.COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert line in unfolded
        assert f"ftk.cli.{name}'" not in done.stdout
    for name in ("torch", "pydantic", "rich", "yaml"):
        assert f"'{name}'" not in done.stdout


def test_every_command_has_its_module():
    folder = Path(app.__file__).parent
    missing = [name for name in app.COMMANDS if not (folder / f"{name.replace('-', '_')}.py").is_file()]
    assert missing == []


def test_version_and_no_words():
    assert run("--version").stdout == f"{__version__}\n"
    done = run()
    assert done.returncode == 0
    assert "Commands:" in done.stdout
    group = run("recipe")
    assert group.returncode == 0
    assert "validate" in group.stdout


@pytest.mark.parametrize(
    ("words", "help"),
    [(["generate"], "ftk generate"), (["recipe", "copy"], "ftk recipe copy"), (["recipe", "cpy"], "ftk recipe")],
)
def test_a_usage_error_names_the_help_of_its_command(words, help):
    assert f"\n{help} --help says what there is.\n" in run(*words).stderr


def test_help_of_a_group_is_not_cut():
    for group in ("data", "recipe"):
        assert "..." not in run(group, "--help").stdout.split("Commands:")[1]


def test_unknown_command_is_a_usage_error():
    done = run("trian", "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "UsageError"
    assert error["exit_code"] == 2
    assert "Did you mean 'train'" in error["message"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (RecipeError, 2),
        (DataError, 2),
        (ModelError, 2),
        (SetupError, 3),
        (RunError, 4),
        (Stopped, 75),
        (Interrupted, 130),
    ],
)
def test_errors_for_the_user(call, error, exit_code):
    def command():
        print("half a result")
        raise error("something is wrong. Do this", place="rows.jsonl:3")

    code, out, err = call(command)
    assert (code, out, err) == (exit_code, "half a result\n", "rows.jsonl:3: something is wrong. Do this\n")
    code, out, err = call(command, "--json")
    assert code == exit_code
    assert json.loads(out) == {
        "error": {
            "type": error.__name__,
            "message": "something is wrong. Do this",
            "place": "rows.jsonl:3",
            "exit_code": exit_code,
        }
    }
    assert out.count("\n") == 1
    assert err == "half a result\nrows.jsonl:3: something is wrong. Do this\n"


def test_a_defect_has_a_traceback_and_code_1(call):
    def command():
        raise ZeroDivisionError("by design")

    code, out, err = call(command, "--json")
    assert code == 1
    assert json.loads(out)["error"] == {
        "type": "ZeroDivisionError", "message": "by design", "place": None, "exit_code": 1,
    }  # fmt: skip
    assert "Traceback" in err
    assert "ftk env" in err


def test_interrupted_by_hand(call):
    def command():
        raise KeyboardInterrupt

    code, out, err = call(command, "--json")
    assert code == 130
    assert json.loads(out)["error"]["type"] == "Interrupted"
    assert "Traceback" not in err


def test_the_answer_is_alone_on_standard_output(call):
    def command():
        print("for a person")
        return {"loss": 1.5, "bad": math.nan, "worse": [math.inf], "path": Path("x")}

    assert call(command) == (0, "for a person\n", "")
    code, out, err = call(command, "--json")
    assert (code, err) == (0, "for a person\n")
    assert json.loads(out) == {"loss": 1.5, "bad": None, "worse": [None], "path": "x"}


def test_child_processes_keep_off_standard_output_too():
    program = (
        "import subprocess, sys, types\n"
        "def command():\n    subprocess.run(['echo', 'from a child']); return {'a': 1}\n"
        "sys.modules['ftk.cli.env'] = types.SimpleNamespace(command=command)\n"
        "from ftk.cli.app import main\nmain(['env', '--json'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == '{"a": 1}\n'
    assert done.stderr == "from a child\n"


def test_typer_exit_is_taken(call):
    def command():
        raise typer.Exit(4)

    assert call(command)[0] == 4


@pytest.mark.parametrize(
    "words",
    [["recipe", "schema"], ["recipe", "schema", "--json"], ["--help"], ["estimate-memory", "--params", "13B"]],
)
@pytest.mark.parametrize("flags", ["", "-u"])
def test_a_closed_pipe_is_quiet(words, flags):
    # The reader leaves before anything is written, and whether Python buffers must not matter.
    program = f"{sys.executable} {flags} -m ftk {' '.join(words)} | exec true; exit ${{PIPESTATUS[0]}}"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=environment)
    assert "Error" not in done.stderr
    assert done.returncode == 141


def test_flags_shorten_recipe_paths(call):
    seen = {}

    def reads_recipe(
        recipe: str, overrides: Annotated[list[str] | None, typer.Argument(help=OVERRIDES_HELP)] = None
    ) -> dict[str, object]:
        seen["overrides"] = overrides
        return {}

    assert call(reads_recipe, "r.yaml", "training.epochs=2", "--epochs", "1", "--processes", "2")[0] == 0
    assert seen["overrides"] == ["training.epochs=1", "parallel.processes=2", "training.epochs=2"]
    assert call(reads_recipe, "r.yaml")[0] == 0
    assert seen["overrides"] == []


def test_flags_name_paths_of_the_recipe():
    paths = {path for path, _, _ in fields(Recipe)}
    assert {flag.path for flag in RECIPE_FLAGS} <= paths


def test_json_line_is_strict():
    assert as_json_line({"a": (1, float("-inf")), 2: "é"}) == '{"a": [1, null], "2": "é"}'


def test_another_broken_pipe_is_a_defect(call):
    def command():
        raise BrokenPipeError("of a worker")

    code, _, err = call(command)
    assert code == 1
    assert "of a worker" in err
