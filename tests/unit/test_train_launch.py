"""Processes are started, heard and ended together."""

import os
import signal
import sys
import threading

import pytest
import torch

from ftk.core.errors import RunError, SetupError
from ftk.train import group, launch


def python(program: str) -> list[str]:
    return [sys.executable, "-c", f"import os, sys, time\nrank = int(os.environ['RANK'])\n{program}"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_NTASKS", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.3)


def test_each_process_knows_its_place_and_only_the_first_speaks(capfd):
    code = launch.launch(
        python(
            "e = os.environ; print(rank, e['WORLD_SIZE'], e['LOCAL_RANK'], e['MASTER_ADDR'], int(e['MASTER_PORT']) > 0)"
        ),
        processes=2,
    )
    assert code == 0
    assert capfd.readouterr().out == "0 2 0 127.0.0.1 True\n"


def test_a_code_that_all_agree_on_passes_through():
    assert launch.launch(python("sys.exit(75)"), processes=2) == 75


def test_a_process_that_takes_longer_to_stop_than_another_is_waited_for():
    assert launch.launch(python("time.sleep(1.5 if rank == 0 else 0); sys.exit(75)"), processes=2) == 75


def test_the_first_process_failing_gives_its_code():
    assert launch.launch(python("sys.exit(4) if rank == 0 else time.sleep(60)"), processes=2) == 4


def test_what_the_first_process_has_said_stands_where_the_others_fail_for_the_loss_of_it():
    # The first refuses its input; the second loses it, and its own end is seen sooner.
    assert launch.launch(python("time.sleep(0.2) if rank == 0 else 0; sys.exit(2 - rank)"), processes=2) == 2


def test_a_first_process_that_fails_for_the_loss_of_another_does_not_speak_for_it():
    with pytest.raises(RunError, match=r"process 1 ended with exit code 4:"):
        launch.launch(python("time.sleep(0.2) if rank == 0 else 0; sys.exit(1 + 3 * rank)"), processes=2)


def test_a_silent_process_that_fails_is_heard_and_ends_all():
    with pytest.raises(RunError, match=r"process 1 ended with exit code 1:\nno room"):
        launch.launch(python("sys.exit('no room') if rank == 1 else time.sleep(60)"), processes=2)


def test_signals_are_passed_on():
    program = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\ntime.sleep(60)"
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    assert launch.launch(python(program), processes=2) == 75
    timer.join()


def test_an_accelerator_without_float64_is_passed_over(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 1)
    for kind, expected in (("mps", "cpu"), ("cuda", "cuda:1"), ("xpu", "xpu:1")):
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda kind=kind: torch.device(kind))
        assert str(group.best_device()) == expected


def test_how_many_to_start(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert launch.processes_to_start("auto") == 1
    assert launch.processes_to_start(2) == 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert launch.processes_to_start("auto") == 4
    with pytest.raises(SetupError, match="8 processes need as many GPUs, and 4 can be seen"):
        launch.processes_to_start(8)
    monkeypatch.setenv("RANK", "1")
    assert launch.processes_to_start("auto") == 1


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("gpu[03-05,9],cpu1", "gpu03"), ("node7", "node7"), ("a1,a2", "a1"), ("rack[2,4]-n1", "rack2-n1")],
)
def test_first_host_of_a_slurm_list(nodes, host):
    assert group.first_host(nodes) == host


def test_slurm_is_adopted(monkeypatch):
    job = {
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_TASKS_PER_NODE": "2(x2)",
        "SLURM_STEP_NODELIST": "n[1-2]",
        "SLURM_JOB_ID": "12345",
    }
    for name in ("MASTER_ADDR", "MASTER_PORT", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORLD_SIZE", "")
    monkeypatch.setenv("LOCAL_RANK", "")
    assert group.is_in_group()
    try:
        group.adopt_slurm()
        found = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")}
        assert found == {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
        assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("n1", "29845")
    finally:
        for name in ("RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_WORLD_SIZE"):
            os.environ.pop(name, None)
