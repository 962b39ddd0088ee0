"""How filled holes are judged, and programs run that are not to be trusted."""

import json
import random
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from ftk.core.errors import DataError, SetupError
from ftk.evaluation import sandbox
from ftk.evaluation.metrics.edit_similarity import edit_distance, edit_similarity
from ftk.evaluation.metrics.infilling_exact_match import infilling_exact_match
from ftk.evaluation.metrics.infilling_pass_at_1 import InfillingPassAt1
from ftk.evaluation.sandbox import Limits, run_python

SHARED = Path(__file__).parents[3] / "shared" / "data"
LIMITS = Limits(seconds=10.0, memory_bytes=1_000_000_000)
ASKED = {"name": "infilling_pass_at_1", "run_generated_code": True, "time_limit_seconds": 20.0}


def by_the_textbook(first: str, second: str) -> int:
    """The Levenshtein distance by the dynamic programme of Wagner and Fischer 1974."""
    before = list(range(len(second) + 1))
    for row, letter in enumerate(first, start=1):
        now = [row]
        for column, other in enumerate(second, start=1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (letter != other)))
        before = now
    return before[-1]


def test_edit_distance_is_that_of_the_textbook() -> None:
    draws = random.Random(0)
    for _ in range(400):
        first, second = ("".join(draws.choices("abc", k=draws.randrange(12))) for _ in range(2))
        assert edit_distance(first, second) == by_the_textbook(first, second), (first, second)
    long = "".join(draws.choices("abcdef \n", k=200))
    assert edit_distance(long, long[20:] + "x") == by_the_textbook(long, long[20:] + "x")


def test_edit_similarity_by_hand() -> None:
    assert edit_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert edit_similarity("  return x\n", "return x") == 1.0
    assert edit_similarity("", "") == 1.0
    assert edit_similarity("", "abc") == 0.0


def test_exact_match_forgives_white_space_at_the_ends_alone() -> None:
    assert infilling_exact_match("    return x", "    return x\n") == 1.0
    assert infilling_exact_match("return  x", "return x") == 0.0


PROGRAMS = {
    "runs to its end": ("x = [1, 2]\nassert sum(x) == 3\n", True),
    "raises": ("1 / 0", False),
    "does not parse": ("def (", False),
    "is no text": ("\ud800", False),
    "leaves early": ("import sys\nsys.exit(0)", False),
    "leaves early without cleaning up": ("import os\nos._exit(0)", False),
    "takes too much memory": ("bytearray(3_000_000_000)", False),
    "writes too much": ("open('big', 'wb').write(bytes(100_000_000))", False),
    "sees the environment": (
        "import os\nassert 'FTK_SECRET' not in os.environ\nassert os.getcwd() == os.environ['HOME']",
        True,
    ),
    "sees the words it was started with": ("import sys\nassert sys.argv == ['program.py']", True),
    "has a loopback": ("import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)", False),
    "starts others": ("import subprocess, sys\nsubprocess.run([sys.executable, '-c', '1'], check=True)", True),
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_programs_are_kept_within_their_limits(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setenv("FTK_SECRET", "hush")
    text, passes = PROGRAMS[what]
    # Something listens on this machine, and is not to be reached.
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert run_python(text.replace("{port}", str(server.getsockname()[1])), LIMITS) is passes


def test_what_does_not_end_is_killed_with_all_that_it_has_started(tmp_path: Path) -> None:
    sign = f"{tmp_path.name}-{time.time_ns()}"
    child = f"import time\nwhile True:\n    time.sleep(1)  # {sign}"
    start = f"subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)"
    text = f"import subprocess, sys\n{start}\nwhile True: pass"
    begun = time.perf_counter()
    assert not run_python(text, Limits(seconds=1.0, memory_bytes=1_000_000_000))
    assert time.perf_counter() - begun < 20
    deadline = time.monotonic() + 10
    while any(sign in _words(process) for process in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline, "what the program had started lives on"
        time.sleep(0.05)


def _words(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_where_the_network_cannot_be_cut_off_nothing_runs_unless_that_is_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox, "_can_isolate", lambda: False)
    with pytest.raises(SetupError, match="would have the network"):
        run_python("1", LIMITS)
    assert run_python("1", Limits(10.0, 1_000_000_000, allow_network=True))
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SetupError, match="Linux only"):
        run_python("1", LIMITS)


def test_pass_at_1_must_be_asked_for_and_needs_tests() -> None:
    with pytest.raises(ValidationError, match="run_generated_code: true"):
        InfillingPassAt1()
    with pytest.raises(DataError, match=r"evaluation row 1 has no test, entry_point"):
        InfillingPassAt1(**ASKED).score(["x"], ["x"], [{"prefix": "", "suffix": ""}])


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
@pytest.mark.parametrize("name", ["SingleLineInfilling", "RandomSpanInfillingLight"])
def test_canonical_solutions_of_humaneval_pass_and_wrong_ones_do_not(name: str) -> None:
    """A few rows of each; all of them are run by hand, see benchmarks/infill.md."""
    lines = (SHARED / f"humaneval_{name}.jsonl").read_text().splitlines()
    rows = [{**row, "prefix": row["prompt"]} for row in map(json.loads, lines[:: len(lines) // 4])]
    right = [row["canonical_solution"] for row in rows]
    metric = InfillingPassAt1(**ASKED)
    assert metric.score(right, right, rows) == {metric.name: [1.0] * len(rows)}
    wrong = ["    raise NotImplementedError\n"] * len(rows)
    assert metric.score(wrong, right, rows) == {metric.name: [0.0] * len(rows)}
