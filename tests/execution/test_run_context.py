"""The settings of a run: they reach the processes and the progress bar."""

import os
from dataclasses import FrozenInstanceError

import pytest

from paretofit.execution import RunContext


def square_with_pid(number):
    return number * number, os.getpid()


def test_tasks_run_on_the_processes_of_the_run():
    squares, pids = zip(*RunContext(jobs=2).map(square_with_pid, range(6), ordered=True), strict=True)
    assert squares == (0, 1, 4, 9, 16, 25)
    assert os.getpid() not in pids
    assert {pid for _, pid in RunContext().map(square_with_pid, range(3))} == {os.getpid()}


@pytest.mark.parametrize("progress", [False, True])
def test_progress_is_shown_only_where_it_is_enabled(progress, capsys, monkeypatch):
    monkeypatch.setattr("paretofit.core.progress.FIRST_REPORT_S", 0.0)  # of lines on a redirected output
    assert list(RunContext(progress=progress).track("abc", 3, "letters")) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert not captured.out
    assert ("letters" in captured.err) == progress


def test_a_run_context_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        RunContext().jobs = 2
