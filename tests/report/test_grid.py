"""A grid of levels: what limits the accuracy, additive and other errors, and the heat map."""

import numpy as np
import pytest
from ase.build import bulk
from conftest import ROOT
from helpers.command_line import call
from helpers.studies import study_file

from paretofit import Dataset, InputError, run_study
from paretofit.dataset import LevelData, write_dataset
from paretofit.dataset.quality import compute_level_errors
from paretofit.labelling import LabelSettings
from paretofit.report.figures.grid_figures import plot_grid_convergence, plot_level_grid
from paretofit.report.findings import assess_grid, tabulate_grid

CUTOFFS, SPACINGS = [300, 500, 700], [1.0, 0.5, 0.25]


def make_errors(folder, *, cutoff_error, mesh_error, product=0.0, levels=None):
    """Energies of 40 cells with made-up errors of cutoff and mesh (meV/atom), and of their product."""
    ladder = LabelSettings(ladder={"grid": {"cutoff_ev": CUTOFFS, "kspacing_per_angstrom": SPACINGS}}).ladder
    rng = np.random.default_rng(1)
    shape, cells = rng.normal(size=(3, 40)), [bulk("Be", a=2.2 + 0.005 * k) for k in range(40)]
    columns = {}
    for level in ladder:
        steps = CUTOFFS[::-1].index(level.cutoff_ev), SPACINGS[::-1].index(level.kspacing_per_angstrom)
        errors = cutoff_error * steps[0] * shape[0] + mesh_error * steps[1] * shape[1] + 500 * steps[0]
        errors = errors + product * steps[0] * steps[1] * shape[2]
        labels = [
            {"energy": -7.0 + 2 * error / 1000, "forces": np.full((2, 3), 0.001 * sum(steps)), "seconds": 1.0}
            for error in errors
        ]
        columns[level.name] = LevelData(labels, level.to_metadata())
    write_dataset(folder / "grid.h5", cells, columns)
    return compute_level_errors(Dataset(folder / "grid.h5"), levels or [level.name for level in ladder])


def test_the_levels_of_a_grid_are_in_order_of_cost_and_end_with_the_finest():
    ladder = LabelSettings(ladder={"grid": {"cutoff_ev": CUTOFFS, "kspacing_per_angstrom": SPACINGS}}).ladder
    assert [ladder[0].name, ladder[-1].name, len(ladder)] == ["300-1", "700-0.25", 9]


def test_a_grid_may_set_the_width_of_the_smearing():
    grid = {"cutoff_ev": CUTOFFS, "kspacing_per_angstrom": SPACINGS, "smearing_ev": [0.3]}
    settings = LabelSettings(ladder={"grid": grid}, smearing={"method": "gaussian"})
    assert {(level.smearing.method, level.smearing.width_ev) for level in settings.ladder} == {("gaussian", 0.3)}
    with pytest.raises(ValueError, match="'ladder.grid.smearing_ev' must be one width"):
        LabelSettings(ladder={"grid": {**grid, "smearing_ev": [0.1, 0.2]}})


@pytest.mark.parametrize(("cutoff_error", "mesh_error", "cause"), [(1, 20, "k-points limit"), (20, 1, "cutoff limits")])
def test_the_larger_error_limits_and_a_constant_shift_does_not(tmp_path, cutoff_error, mesh_error, cause):
    finding = assess_grid(make_errors(tmp_path, cutoff_error=cutoff_error, mesh_error=mesh_error))
    assert cause in finding.answer
    assert "The errors of cutoff and k-points add" in finding.answer
    numbers = finding.numbers.set_index("level")
    assert numbers["deviation"].max() == pytest.approx(0, abs=1e-6)
    assert np.isnan(numbers.loc["700-1", "deviation"]), "a single error has nothing to add"


def test_equal_errors_limit_neither_and_products_do_not_add(tmp_path):
    finding = assess_grid(make_errors(tmp_path, cutoff_error=5, mesh_error=5, product=10))
    assert "Neither clearly limits" in finding.answer
    assert "do not add" in finding.answer


def test_info_says_what_limits_the_shipped_grid():
    """60 cells: energies change by tens of meV/atom with the mesh, and by 0.2 with the cutoff."""
    done = call("info", ROOT / "data" / "beryllium_grid.h5")
    assert done.returncode == 0, done.stderr
    assert (
        "The k-points limit the accuracy of energies of 60 configurations: at 700 eV, a k-point spacing of 0.5 instead "
        "of 0.25" in done.stdout
    )
    assert "The errors of cutoff and k-points add" in done.stdout


def test_levels_without_a_grid_have_no_finding(tmp_path):
    errors = make_errors(tmp_path, cutoff_error=1, mesh_error=1, levels=["300-1", "500-0.5", "700-0.25"])
    assert tabulate_grid(errors).empty
    assert assess_grid(errors) is None


def test_the_heat_map_has_a_cell_for_each_level(tmp_path):
    grid = tabulate_grid(make_errors(tmp_path, cutoff_error=2, mesh_error=3))
    energy, force, cost = plot_level_grid(grid)
    texts = [text.get_text() for text in energy.texts]
    assert len(texts) == len(force.texts) == len(cost.texts) == 9
    assert texts.count("reference") == 1
    assert [label.get_text() for label in energy.get_xticklabels()] == ["300", "500", "700"]


def test_convergence_has_a_line_for_each_cell_without_the_mean(tmp_path):
    errors = make_errors(tmp_path, cutoff_error=2, mesh_error=3)
    cutoff, mesh = plot_grid_convergence(tabulate_grid(errors), errors.configurations)
    for ax, names, scale in ((cutoff, ["300", "500", "700"], 2), (mesh, ["1", "0.5", "0.25"], 3)):
        assert [label.get_text() for label in ax.get_xticklabels()] == names
        lines = np.array([line.get_ydata() for line in ax.get_lines()])
        assert lines.shape == (40, 3)
        assert lines.mean(axis=0) == pytest.approx(0, abs=1e-9)
        assert lines[:, 0] == pytest.approx(2 * lines[:, 1], abs=1e-6)
        assert (lines[:, 2] == 0).all()
        assert float(ax.texts[1].get_text()) == pytest.approx(scale, rel=0.3)


@pytest.mark.slow
def test_the_grid_of_another_dataset_is_on_the_page_of_a_study(tmp_path):
    keys = {"levels": [5], "sizes": ["all"], "twojmax": [2], "cost": {"measure_md": False}, "confidence": {"splits": 0}}
    path = study_file(tmp_path, grid_labels=str(ROOT / "data" / "beryllium_grid.h5"), **keys)
    run = run_study(path, out=tmp_path / "run")
    assert "The k-points limit the accuracy of energies of 60" in run.report.read_text()
    assert (run.folder / "figures" / "level_grid.png").is_file()


@pytest.mark.parametrize(
    ("name", "message"), [("beryllium.h5", "form no grid of at least two cutoffs"), ("none.h5", "no dataset at")]
)
def test_a_dataset_without_a_grid_is_refused(tmp_path, name, message):
    path = study_file(tmp_path, grid_labels=str(ROOT / "data" / name))
    with pytest.raises(InputError, match=f"'grid_labels': .*{message}"):
        run_study(path, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
