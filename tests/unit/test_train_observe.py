"""What stays of a run and what is seen of it."""

import json
import math
import os
import re
import signal

import pytest
import torch

from ftk.core.errors import Interrupted, RecipeError, SetupError
from ftk.core.interval import Interval
from ftk.train import rehearse
from ftk.train.display import Bar, Lines, duration
from ftk.train.json_lines import JsonLines, read_lines
from ftk.train.loop import count_total_steps
from ftk.train.optimizers import AdamW, AdamW8bit, Sgd
from ftk.train.random_state import capture, kept, restore, seed_everything
from ftk.train.signals import StopRequest
from ftk.train.trackers import check_trackers

RECORD = {"step": 3, "loss": 1.25, "learning_rate": 1e-3, "tokens_per_second": 1234.5, "peak_memory_bytes": 2**30}


def test_lines_are_cut_back_and_go_on(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    lines = JsonLines(path, up_to_step=2)
    assert lines.kept == [{"step": 1}, {"step": 2}]
    lines.write({"step": 3, "loss": math.nan})
    assert path.read_text().endswith('{"step": 3, "loss": null}\n')
    lines.close()
    assert [line["step"] for line in read_lines(path)] == [1, 2, 3]


def test_plain_lines_are_few_and_the_last_is_there(capfd):
    display = Lines(total_steps=100, first_step=0)
    for step in range(1, 101):
        display.step({**RECORD, "step": step})
    shown = capfd.readouterr().err.splitlines()
    assert [line.split()[1] for line in shown] == ["1/100", "100/100"]
    assert "loss 1.2500  lr 1.00e-03  1,234 tokens/s  peak 1.00 GiB" in shown[0]


def test_the_bar_shows_the_figures(capfd):
    bar = Bar(total_steps=10, first_step=0)
    bar.say("held-out [loss] 2.0")
    bar.step(RECORD)
    bar.close()
    shown = capfd.readouterr().err
    assert "held-out [loss] 2.0" in shown
    assert "3/10" in shown


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_bar_tells_the_time_left_in_a_terminal_of_any_width(capfd, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar = Bar(total_steps=20_000, first_step=0)
    bar.step({**RECORD, "step": 11_003, "tokens_per_second": 123_456.0})
    bar.close()
    last = [line for line in capfd.readouterr().err.splitlines() if "11003/20000" in line][-1]
    assert re.search(r"\d:\d\d|--:--", last)
    assert "loss 1.2500  lr 1.00e-03" in last
    assert ("peak 1.00 GiB" in last) == (columns > 80)


def test_durations():
    assert [duration(61), duration(3723)] == ["1:01", "1:02:03"]


def test_a_missing_tracker_names_the_extra(monkeypatch):
    monkeypatch.setattr("ftk.train.trackers.find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"pip install 'ftk\[mlflow\]'"):
        check_trackers(["mlflow"])


def test_total_steps():
    assert count_total_steps(epochs=3, max_steps=None, steps_per_epoch=10) == 30
    assert count_total_steps(epochs=0.25, max_steps=None, steps_per_epoch=10) == 3
    assert count_total_steps(epochs=3, max_steps=7, steps_per_epoch=None) == 7
    assert count_total_steps(epochs=0.1, max_steps=None, steps_per_epoch=3) == 1
    with pytest.raises(RecipeError, match=r"Set training\.max_steps"):
        count_total_steps(epochs=3, max_steps=None, steps_per_epoch=None)
    assert Interval(epochs=0.5).in_steps(10) == 5


def test_a_second_ctrl_c_stops_at_once():
    before = signal.getsignal(signal.SIGINT)

    def press(times: int) -> None:
        with StopRequest() as stop:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
            assert stop.flags == (0.0, 1.0)

    press(1)
    with pytest.raises(Interrupted) as caught:
        press(2)
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_random_states_go_through_json():
    seed_everything(3, process_index=1)
    state = json.loads(json.dumps(capture()))
    drawn = torch.rand(3)
    with kept():
        torch.rand(5)
    after = torch.rand(3)
    restore(state)
    assert torch.equal(torch.rand(3), drawn)
    assert torch.equal(torch.rand(3), after)
    seed_everything(3, process_index=0)
    assert not torch.equal(torch.rand(3), drawn)


class Memory:
    """A device with room for so many rows."""

    def __init__(self, rows: int) -> None:
        self.rows, self.tried = rows, []

    def run(self, rows) -> None:
        self.tried.append(len(rows.input_ids_BL))
        if len(rows.input_ids_BL) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory")


class Device:
    """As much of an Accelerator as the search looks at."""

    device = torch.device("meta")
    num_processes = 1


class Rows:
    def __init__(self, count: int, length: int = 10) -> None:
        self.input_ids_BL = torch.zeros(count, length)


def search(monkeypatch, *, room: int, rows_per_step: int) -> int:
    memory = Memory(room)
    monkeypatch.setattr(
        rehearse,
        "_fits_everywhere",
        lambda run, batch, accelerator, **states: rehearse.fits(run, batch, **states),
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    return rehearse.find_micro_batch_tokens(
        memory.run,
        Rows,
        optimizer=optimizer,
        state_bytes=Sgd(momentum=0.9).state_bytes,
        accelerator=Device(),
        rows_per_step=rows_per_step,
        longest_row=10,
    )


def test_auto_finds_what_fits(monkeypatch):
    assert search(monkeypatch, room=100, rows_per_step=32) == 320
    assert search(monkeypatch, room=9, rows_per_step=32) == 80
    assert search(monkeypatch, room=9, rows_per_step=12) == 80
    assert search(monkeypatch, room=1, rows_per_step=5) == 10


def test_out_of_memory_says_what_to_lower(monkeypatch):
    with pytest.raises(Exception, match=r"1 rows of 10 tokens.*micro_batch_size.*activation_checkpointing") as caught:
        search(monkeypatch, room=0, rows_per_step=4)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("settings", [AdamW(), AdamW8bit(), Sgd(momentum=0.9), Sgd()])
def test_the_rehearsal_takes_room_for_the_optimizer(settings):
    """Room of each tensor: as many bytes as the optimizer holds for it after its first step."""
    large, small = torch.nn.Parameter(torch.zeros(65, 64)), torch.nn.Parameter(torch.zeros(7))
    optimizer = settings.build([("large", large), ("small", small)], learning_rate=1e-3, weight_decay=0.0)
    room = [one.nbytes for one in rehearse._room_for_states(optimizer, settings.state_bytes)]
    for parameter in (large, small):
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = [optimizer.state[parameter] for parameter in (large, small)]
    # But for AdamW's count of steps and the table of codes that all tensors share.
    held = [
        sum(one.nbytes for key, one in state.items() if key not in ("step", "qmap1", "qmap2") and one is not None)
        for state in states
    ]
    assert room == held
    assert rehearse._room_for_states(optimizer, settings.state_bytes) == []


def test_tensorboard_receives_the_figures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from ftk.train.group import join_group
    from ftk.train.trackers import Trackers

    config = {"training": {"learning_rate": 0.1, "schedule": {"name": "cosine"}, "max_steps": None}}
    trackers = Trackers(["tensorboard"], folder=tmp_path, config=config, accelerator=join_group("fp32"))
    trackers.log({"loss": 0.5, "skipped": "no weight", "token_accuracy": None}, step=4)
    trackers.close()
    (folder,) = {path.parent for path in tmp_path.rglob("events.out.*") if path.parent.name == tmp_path.name}
    events = EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(4, 0.5)]
