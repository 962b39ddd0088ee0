"""`ftk recipe` and `ftk env`, as they are typed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ftk.cli import app
from ftk.recipe.json_schema import recipe_schema
from ftk.recipe.shipped import SCHEMA_FILE, shipped_recipes
from ftk.runs.environment import environment, git_revision
from ftk.runs.recipes import recipe_path

BASE = "model: ftk://tiny\ndata: {train: rows.jsonl}\ntraining: {learning_rate: 0.5}\n"


@pytest.fixture
def ftk(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            app.main(words)
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


def test_list(ftk):
    code, out, _ = ftk("recipe", "list")
    assert code == 0
    assert len(out.splitlines()) == len(shipped_recipes())
    assert out.split("  ", 1)[0] == "quickstart"
    assert out.split("  ", 1)[1].lstrip().startswith("Orders in plain English")
    listed = json.loads(ftk("recipe", "list", "--json")[1])["recipes"]
    assert listed[0]["name"] == "quickstart"
    assert Path(listed[0]["file"]).is_file()


def test_copy_never_overwrites(ftk, tmp_path):
    code, out, _ = ftk("recipe", "copy", "sft_lora")
    assert (code, out) == (0, f"Wrote sft_lora.yaml and {SCHEMA_FILE}.\n")
    assert json.loads((tmp_path / SCHEMA_FILE).read_text()) == recipe_schema()
    (tmp_path / "sft_lora.yaml").write_text("mine")
    code, _, err = ftk("recipe", "copy", "sft_lora")
    assert code == 2
    assert err == "sft_lora.yaml: exists already. --force overwrites it\n"
    assert (tmp_path / "sft_lora.yaml").read_text() == "mine"
    assert ftk("recipe", "copy", "sft_lora", "--force")[0] == 0
    assert ftk("recipe", "validate", "sft_lora.yaml")[:2] == (0, "ok\n")


def test_copy_of_an_unknown_name(ftk, tmp_path):
    code, _, err = ftk("recipe", "copy", "quickstrat")
    assert code == 2
    assert "Did you mean quickstart?" in err
    assert list(tmp_path.iterdir()) == []


def test_show_is_resolved_and_loads_again(ftk, tmp_path):
    (tmp_path / "r.yaml").write_text(BASE)
    code, out, _ = ftk("recipe", "show", "r.yaml", "tuning=full", "--epochs", "2")
    assert code == 0
    assert "tuning:\n  name: full\n" in out
    assert "epochs: 2.0\n" in out
    (tmp_path / "again.yaml").write_text(out)
    assert ftk("recipe", "show", "again.yaml")[1] == out
    shown = json.loads(ftk("recipe", "show", "r.yaml", "--json")[1])
    assert shown["recipe"]["training"]["learning_rate"] == 0.5
    assert len(shown["advice"]) == 1


def test_show_takes_a_shipped_name(ftk):
    assert ftk("recipe", "show", "quickstart")[1].startswith("model:\n  id: ftk://tiny\n")
    assert recipe_path("nothing_of_the_kind") == "nothing_of_the_kind"


def test_validate_tells_advice_apart(ftk, tmp_path):
    (tmp_path / "r.yaml").write_text(BASE)
    code, out, err = ftk("recipe", "validate", "r.yaml")
    assert (code, out) == (0, "ok\n")
    assert err.startswith("advice: r.yaml:3: training.learning_rate is 0.5; customary is")
    assert json.loads(ftk("recipe", "validate", "r.yaml", "--json")[1])["valid"] is True


def test_validate_refuses_with_every_line(ftk, tmp_path):
    (tmp_path / "r.yaml").write_text(BASE + "sede: 1\nevaluation: {evry: 1}\n")
    code, out, err = ftk("recipe", "validate", "r.yaml")
    assert (code, out) == (2, "")
    assert err == (
        "r.yaml:4: sede is not a section of a recipe. Did you mean seed?\n"
        "r.yaml:5: evaluation.evry is not a field of evaluation. Did you mean every?\n"
    )
    error = json.loads(ftk("recipe", "validate", "r.yaml", "--json")[1])["error"]
    assert error["place"] == "r.yaml:4"


def test_schema(ftk):
    assert json.loads(ftk("recipe", "schema")[1]) == recipe_schema()
    assert json.loads(ftk("recipe", "schema", "--json")[1]) == recipe_schema()


def test_env(ftk):
    code, out, _ = ftk("env")
    assert code == 0
    assert "  torch " in out
    found = json.loads(ftk("env", "--json")[1])
    assert found == json.loads(json.dumps(environment()))
    assert isinstance(found["memory_bytes"], int)
    assert found["packages"]["transformers"]


def test_git_revision_is_of_the_package_alone(tmp_path):
    package = tmp_path / "somebodys" / "site-packages" / "ftk"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    assert git_revision(package) is None
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "y"], check=True)
    commit = git_revision(package)
    assert commit is not None
    assert len(commit) == 40
    (package / "__init__.py").write_text("changed")
    assert git_revision(package) == f"{commit}+changes"


def test_help_is_quick():
    """At most 0.25 s on an idle machine; processor time, so that a busy one does not matter."""
    assert min(_processor_seconds("--help") for _ in range(3)) < 0.25


def _processor_seconds(*words: str) -> float:
    program = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'ftk', *sys.argv[1:]], stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_validate_takes_at_most_three_and_a_half_seconds():
    assert _processor_seconds("recipe", "validate", "quickstart") < 3.5
