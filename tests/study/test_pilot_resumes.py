"""A pilot that is stopped between its folds resumes: finished folds are read, which the terminal says."""

import pytest
from helpers.studies import study_file
from pandas.testing import assert_frame_equal

from paretofit.execution import RunContext
from paretofit.study import pilot, run_pilot
from paretofit.sweep import sweep_run


@pytest.mark.slow
def test_a_stopped_pilot_resumes(tmp_path, monkeypatch, capsys):
    path = study_file(tmp_path, levels=[5], twojmax=[2], weights=[1])

    def run(folder, *, progress=False):
        return run_pilot(path, RunContext(progress=progress), n_configurations=24, out=tmp_path / folder)

    expected = run("whole")
    fit_fold, n_folds = pilot._fit_fold, []

    def stop_after_three_folds(task, folder):
        if len(n_folds) == 3:
            raise KeyboardInterrupt
        n_folds.append(1)
        return fit_fold(task, folder)

    monkeypatch.setattr(pilot, "_fit_fold", stop_after_three_folds)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    monkeypatch.setattr(pilot, "_fit_fold", fit_fold)
    list_pending, n_pending = sweep_run.list_pending_fits, []

    def count_pending(*arguments):
        pending = list_pending(*arguments)
        n_pending.append(sum(len(item.models) for item in pending))
        return pending

    monkeypatch.setattr(sweep_run, "list_pending_fits", count_pending)
    results = run("stopped", progress=True)
    assert n_pending[:3] == [0, 0, 0]
    assert any(n_pending)
    assert_frame_equal(results, expected)
    message = capsys.readouterr().err
    assert "design.h5 are used again" in message
    assert "finished fits of a stopped pilot are in 3 files" in message
