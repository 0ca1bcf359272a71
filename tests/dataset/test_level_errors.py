"""Errors of convergence levels: every number against a direct computation, and what may not change them."""

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from conftest import ROOT
from scipy.integrate import trapezoid
from scipy.stats import spearmanr

from paretofit import Dataset
from paretofit.core import InputError
from paretofit.dataset import LevelData, write_dataset
from paretofit.dataset.quality import MIN_FORCE_RMSD_MEV_PER_ANGSTROM, compute_level_errors
from paretofit.dataset.quality.level_comparison import CORRELATED_PROPERTIES
from paretofit.report.figures import CannotDrawError, level_figures, style
from paretofit.report.page import build_level_tables, describe_level_errors, plan_level_figures
from paretofit.report.tables.table_text import HEADINGS

LEVELS = ["low", "mid", "top"]
SETTINGS = {
    "low": {"cutoff_ev": 300.0, "kspacing_per_angstrom": None, "smearing": {"method": "gaussian", "width_ev": 0.1}},
    "mid": {"cutoff_ev": 400, "kspacing_per_angstrom": 0.5, "engine": "one"},
    "top": {"kspacing_per_angstrom": 0.25, "engine": "two"},
}
N = 16
IDS = [100 + 3 * k for k in range(N)]


def made_up(seed=3):
    """Configurations of one to three atoms, and labels at three levels with errors that are known."""
    rng = np.random.default_rng(seed)
    configurations, labels = [], {level: [] for level in LEVELS}
    for k in range(N):
        n = k % 3 + 1
        cell = np.diag(rng.uniform(2.5, 6.0, 3)) + 0.3 * rng.normal(size=(3, 3))
        atoms = Atoms(f"Be{n}", cell=cell, pbc=True, scaled_positions=rng.uniform(size=(n, 3)))
        atoms.info["config_type"] = "even" if k % 2 == 0 else "odd"
        configurations.append(atoms)
        energy, forces = -3.5 * n + rng.normal(), rng.normal(size=(n, 3))
        for level, size in zip(LEVELS, (0.3, 0.02, 0.0), strict=True):
            labels[level].append(
                {
                    "energy": energy + size * n * (rng.normal() + 0.5),
                    "forces": forces + size * rng.normal(size=(n, 3)),
                    "seconds": float(rng.uniform(1, 9)),
                    "info": {},
                }
            )
    return configurations, labels


@pytest.fixture
def make(tmp_path):
    """Writes configurations and labels and opens the file."""
    opened = []

    def write(configurations, labels, settings=SETTINGS, ids=IDS):
        path = tmp_path / f"{len(opened)}.h5"
        levels = {name: LevelData(labels[name], settings.get(name, {})) for name in labels}
        write_dataset(path, configurations, levels, ids)
        opened.append(Dataset(path))
        return opened[-1]

    yield write
    for dataset in opened:
        dataset.close()


@pytest.fixture(scope="module")
def shipped():
    with Dataset(ROOT / "data" / "beryllium.h5") as data:
        yield data, compute_level_errors(data, list("12345"), reference_configuration=423)


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def test_the_table_is_what_its_columns_say(make):
    configurations, labels = made_up()
    bulk = 4
    table = compute_level_errors(
        make(configurations, labels), LEVELS, reference_configuration=IDS[bulk]
    ).table.set_index("level")
    sizes = np.array([len(atoms) for atoms in configurations])
    for level in LEVELS[:-1]:
        error = np.array([a["energy"] - b["energy"] for a, b in zip(labels[level], labels["top"], strict=True)])
        error *= 1000 / sizes
        force = np.concatenate([a["forces"] - b["forces"] for a, b in zip(labels[level], labels["top"], strict=True)])
        row = table.loc[level]
        assert row["n_configurations"] == N
        assert row["n_left_out"] == 0
        assert row["energy_rmsd"] == pytest.approx(rms(error))
        assert row["energy_rmsd_bulk_shifted"] == pytest.approx(rms(error - error[bulk]))
        assert row["energy_rmsd_mean_shifted"] == pytest.approx(np.std(error))
        assert row["mean_energy_error"] == pytest.approx(np.mean(error))
        assert row["force_rmsd"] == pytest.approx(1000 * rms(force))
    assert list(table.index) == ["low", "mid"]


def test_configurations_and_forces_hold_every_label_in_its_unit(make):
    configurations, labels = made_up()
    errors = compute_level_errors(make(configurations, labels), LEVELS)
    rows = errors.configurations.set_index(["level", "config_id"])
    assert len(rows) == 2 * N
    for level in ("low", "mid"):
        forces = errors.forces[errors.forces["level"] == level]
        np.testing.assert_allclose(
            forces["force"], np.concatenate([label["forces"].ravel() for label in labels[level]])
        )
        np.testing.assert_allclose(
            forces["reference"], np.concatenate([label["forces"].ravel() for label in labels["top"]])
        )
        for k, atoms in enumerate(configurations):
            row, label, top = rows.loc[(level, IDS[k])], labels[level][k], labels["top"][k]
            assert row["atoms"] == len(atoms)
            assert row["config_type"] == atoms.info["config_type"]
            assert row["energy"] == pytest.approx(label["energy"] / len(atoms))
            assert row["reference_energy"] == pytest.approx(top["energy"] / len(atoms))
            assert row["energy_error"] == pytest.approx(1000 * (label["energy"] - top["energy"]) / len(atoms))
            assert row["force_rmsd"] == pytest.approx(1000 * rms(label["forces"] - top["forces"]))
            assert row["shortest_vector"] == pytest.approx(min(np.linalg.norm(vector) for vector in atoms.cell))


def test_settings_are_those_of_table_1_and_what_else_differs(make):
    configurations, labels = made_up()
    settings = compute_level_errors(make(configurations, labels), LEVELS).settings.set_index("level")
    assert list(settings.index) == LEVELS
    assert settings.loc["low", "cutoff_ev"] == 300
    assert np.isnan(settings.loc["top", "cutoff_ev"])
    assert list(settings["kspacing_per_angstrom"]) == ["Gamma only", 0.5, 0.25]
    assert list(settings["smearing"]) == ["gaussian, 0.1 eV", "–", "–"]
    assert list(settings["engine"]) == ["–", "one", "two"]
    for level in LEVELS:
        seconds = [label["seconds"] for label in labels[level]]
        assert settings.loc[level, "n_labels"] == N
        assert settings.loc[level, "mean_seconds"] == pytest.approx(np.mean(seconds))
        assert settings.loc[level, "median_seconds"] == pytest.approx(np.median(seconds))


def test_the_mesh_of_the_label_counts_before_that_of_the_level(make):
    cell = np.diag([4.0, 5.0, 20.0])
    configurations = [Atoms("Be", cell=cell, pbc=pbc) for pbc in (True, [True, True, False], False, True)]
    label = {"energy": -3.5, "forces": np.zeros((1, 3))}
    other = {"energy": -3.6, "forces": np.zeros((1, 3))}
    labels = {"mid": [label, label, label, {**label, "info": {"kpts": [1, 7, 2]}}], "top": [other] * 4}
    rows = compute_level_errors(make(configurations, labels, ids=[0, 1, 2, 3]), ["mid", "top"]).configurations
    lengths = 2 * np.pi / np.diag(cell)  # 1.57, 1.26, 0.31; the level's spacing is 0.5
    np.testing.assert_allclose(rows["n_kpoints"], [4 * 3 * 1, 4 * 3, 1, 14])
    np.testing.assert_allclose(
        rows["largest_kspacing"], [lengths[1] / 3, lengths[1] / 3, np.nan, lengths[0]], equal_nan=True
    )
    np.testing.assert_allclose(rows["shortest_vector"], [4, 4, np.nan, 4], equal_nan=True)
    unknown = compute_level_errors(make(configurations, labels, {}, [0, 1, 2, 3]), ["mid", "top"]).configurations
    assert unknown["n_kpoints"][:3].isna().all()
    assert unknown["n_kpoints"][3] == 14


def test_a_mesh_from_the_spacing_is_the_labellers(make):
    from paretofit.labelling import compute_kpoint_mesh

    configurations, labels = made_up()
    rows = compute_level_errors(make(configurations, labels), LEVELS).configurations
    wanted = [np.prod(compute_kpoint_mesh(atoms.cell[:], atoms.pbc, 0.5)) for atoms in configurations]
    assert list(rows.loc[rows["level"] == "mid", "n_kpoints"]) == wanted
    assert (rows.loc[rows["level"] == "low", "n_kpoints"] == 1).all()


def test_the_shipped_table_is_that_of_plain_numpy(shipped):
    data, errors = shipped
    atoms, ids = data.n_atoms, data.ids
    reference = data.labels("5")
    for row in errors.table.itertuples():
        labels = data.labels(row.level)
        error = 1000 * (labels.energy - reference.energy) / atoms
        assert row.n_configurations == 426
        assert row.energy_rmsd == pytest.approx(rms(error))
        assert row.energy_rmsd_bulk_shifted == pytest.approx(rms(error - error[ids == 423]))
        assert row.energy_rmsd_mean_shifted == pytest.approx(np.std(error))
        assert row.mean_energy_error == pytest.approx(error.mean())
        assert row.force_rmsd == pytest.approx(1000 * rms(labels.forces - reference.forces))
    assert errors.reference_formula == "Be2"
    assert compute_level_errors(data, list("12345")).reference_configuration == 423  # ideal hcp is the ground state


def test_the_correlations_are_those_of_pandas(shipped):
    _, errors = shipped
    assert len(errors.correlations) == 4 * len(CORRELATED_PROPERTIES)
    for row in errors.correlations.itertuples():
        points = errors.configurations[errors.configurations["level"] == row.level]
        force = points[points["force_rmsd"] >= MIN_FORCE_RMSD_MEV_PER_ANGSTROM]
        assert (row.n_energies, row.n_forces) == (426, 402)
        if row.level == "1" and row.property == "n_kpoints":  # one point for all of them
            assert np.isnan([row.energy_correlation, row.energy_p_value, row.force_correlation]).all()
            continue
        wanted = points["energy_error"].abs().corr(points[row.property], method="spearman")
        assert row.energy_correlation == pytest.approx(wanted)
        assert row.force_correlation == pytest.approx(force["force_rmsd"].corr(force[row.property], method="spearman"))
        assert row.force_p_value == pytest.approx(spearmanr(force["force_rmsd"], force[row.property]).pvalue)


def test_a_reference_that_few_have_leaves_the_others_out_and_counts_them(shipped):
    data, _ = shipped
    errors = compute_level_errors(data, list("123456"))
    assert set(errors.table["n_configurations"]) == {26}
    assert set(errors.table["n_left_out"]) == {400}
    assert list(errors.settings["n_labels"]) == [426] * 5 + [26]
    assert "400 configurations of the dataset are left out" in list(build_level_tables(errors, list("123456")))[1].note


def test_a_constant_per_atom_changes_the_unshifted_column_only(make):
    configurations, labels = made_up()
    before = compute_level_errors(make(configurations, labels), LEVELS, reference_configuration=IDS[2]).table
    for label, atoms in zip(labels["low"], configurations, strict=True):
        label["energy"] += 0.7 * len(atoms)
    after = compute_level_errors(make(configurations, labels), LEVELS, reference_configuration=IDS[2]).table
    assert after.loc[0, "energy_rmsd"] != pytest.approx(before.loc[0, "energy_rmsd"])
    assert after.loc[0, "mean_energy_error"] == pytest.approx(before.loc[0, "mean_energy_error"] + 700)
    same = ["energy_rmsd_bulk_shifted", "energy_rmsd_mean_shifted", "force_rmsd"]
    pd.testing.assert_frame_equal(after[same], before[same])
    pd.testing.assert_series_equal(after.loc[1], before.loc[1])


def test_the_order_of_atoms_and_of_configurations_changes_nothing(make):
    configurations, labels = made_up()
    before = compute_level_errors(make(configurations, labels), LEVELS)
    rng = np.random.default_rng(0)
    for k, atoms in enumerate(configurations):
        order = rng.permutation(len(atoms))
        configurations[k] = atoms[order]
        for level in LEVELS:
            labels[level][k]["forces"] = labels[level][k]["forces"][order]
    order = rng.permutation(N)
    shuffled = {level: [labels[level][k] for k in order] for level in LEVELS}
    after = compute_level_errors(
        make([configurations[k] for k in order], shuffled, ids=[IDS[k] for k in order]), LEVELS
    )
    assert after.reference_configuration == before.reference_configuration
    pd.testing.assert_frame_equal(after.table, before.table)
    pd.testing.assert_frame_equal(after.correlations, before.correlations)


def test_labels_that_are_missing_failed_or_not_finite_are_left_out(make):
    configurations, labels = made_up()
    labels["low"][0] = None
    labels["low"][1]["forces"] = np.full((2, 3), np.nan)
    labels["low"][2]["status"] = "failed"
    labels["top"][3]["energy"] = np.nan
    errors = compute_level_errors(make(configurations, labels), LEVELS)
    assert list(errors.table["n_configurations"]) == [N - 4, N - 1]
    assert list(errors.table["n_left_out"]) == [4, 1]
    assert list(errors.settings["n_incomplete"]) == [2, 0, 1]
    assert errors.table.drop(columns="level").notna().all(axis=None)
    ids = errors.configurations.loc[errors.configurations["level"] == "low", "config_id"]
    assert list(ids) == IDS[4:]
    same = compute_level_errors(make(configurations, labels).select(np.arange(4, N)), LEVELS)
    pd.testing.assert_series_equal(same.table.loc[0].drop("n_left_out"), errors.table.loc[0].drop("n_left_out"))


def test_the_bulk_is_the_lowest_that_is_labelled_everywhere(make):
    configurations, labels = made_up()
    per_atom = [label["energy"] / len(atoms) for label, atoms in zip(labels["top"], configurations, strict=True)]
    first, second = np.argsort(per_atom)[:2]
    assert compute_level_errors(make(configurations, labels), LEVELS).reference_configuration == IDS[first]
    labels["mid"][first] = None
    dataset = make(configurations, labels)
    assert compute_level_errors(dataset, LEVELS).reference_configuration == IDS[second]
    with pytest.raises(InputError, match=rf"configuration {IDS[first]} .* level 'mid'"):
        compute_level_errors(dataset, LEVELS, reference_configuration=IDS[first])
    with pytest.raises(InputError, match="id 7;"):
        compute_level_errors(dataset, LEVELS, reference_configuration=7)


def test_without_a_configuration_at_every_level_there_is_no_bulk_shift(make):
    configurations, labels = made_up()
    for k in range(N):
        labels["low" if k % 2 else "mid"][k] = None
    errors = compute_level_errors(make(configurations, labels), LEVELS)
    assert errors.reference_configuration is None
    assert errors.table["energy_rmsd_bulk_shifted"].isna().all()
    assert errors.table["energy_rmsd"].notna().all()
    assert "no reference configuration for a shift" in list(build_level_tables(errors, LEVELS))[1].note
    assert "reference configuration" not in describe_level_errors(errors)
    figures_of(errors, LEVELS)


@pytest.mark.parametrize(
    ("levels", "message"),
    [([], "none"), (["low", "low"], "'low' appears twice"), (["low", "up"], "'up'"), (["top", "mid"], "'top' and")],
)
def test_levels_that_cannot_be_compared_are_named(make, levels, message):
    configurations, labels = made_up()
    labels["top"] = [None] * N
    with pytest.raises(InputError, match=message.replace("'top' and", "'top' and level 'mid'")):
        compute_level_errors(make(configurations, labels), levels)


def test_one_level_has_settings_and_a_sentence_but_nothing_to_draw(make):
    configurations, labels = made_up()
    errors = compute_level_errors(make(configurations, labels), ["top"])
    assert errors.table.empty
    assert len(errors.settings) == 1
    assert "only convergence level" in describe_level_errors(errors)
    assert len(list(build_level_tables(errors, ["top"]))) == 1
    for plan in plan_level_figures(errors, ["top"]):
        with pytest.raises(CannotDrawError, match="only one (convergence )?level"):
            plan.draw()
    labels["top"] = [None] * N
    with pytest.raises(InputError, match="level 'top'"):
        compute_level_errors(make(configurations, labels), ["top"])


def figures_of(errors, levels):
    return {plan.name: (plan.draw(), plan.caption()) for plan in plan_level_figures(errors, levels)}


@pytest.mark.parametrize("levels", [list("45"), list("123456")])
def test_figures_of_the_shipped_data_are_drawn_small_and_in_the_levels_colours(shipped, tmp_path, levels):
    data, _ = shipped
    drawn = figures_of(compute_level_errors(data, levels), levels)
    for name, (axes, caption) in drawn.items():
        paths = style.save_figure(style.get_parent_figure(axes), tmp_path, name)
        assert all(path.stat().st_size < 500_000 for path in paths)
        assert caption.endswith(".")
        assert "nan" not in caption
    n = len(levels) - 1
    assert drawn["level_energies"][0].shape == drawn["level_forces"][0].shape == (n, 2)
    lines = drawn["level_distributions"][0][0].lines
    assert [line.get_color() for line in lines] == [style.get_level_colour(level, levels) for level in levels]
    assert lines[-1].get_linewidth() > lines[0].get_linewidth()


def test_what_lies_outside_of_a_parity_panel_is_counted(make):
    configurations, labels = made_up()
    configurations, labels = configurations * 20, {level: labels[level] * 20 for level in LEVELS}
    labels["low"] = [*labels["low"][:-1], {**labels["low"][-1], "energy": 1e4}]
    errors = compute_level_errors(make(configurations, labels, ids=list(range(20 * N))), LEVELS)
    parity, error = level_figures.plot_energy_parity(errors.configurations, LEVELS)[0]
    assert parity.get_title(loc="right") == error.get_title(loc="right") == "1 point outside"
    assert max(map(abs, error.get_ylim())) < 1e5


def test_densities_integrate_to_what_lies_inside():
    rng = np.random.default_rng(0)
    grid = np.linspace(-6, 6, 500)
    density = level_figures.compute_kernel_density(rng.normal(size=5001), grid, 0.2)
    assert trapezoid(density, grid) == pytest.approx(1, abs=1e-6)
    assert density[250] == pytest.approx(0.39, abs=0.02)


def test_molecules_and_equal_cells_are_drawn_without_a_colour_bar(make):
    configurations, labels = made_up()
    for atoms in configurations:
        atoms.pbc = False
    errors = compute_level_errors(make(configurations, labels), LEVELS)
    assert errors.correlations.set_index("property").loc["shortest_vector", "energy_correlation"].isna().all()
    axes = level_figures.plot_energy_parity(errors.configurations, LEVELS)
    assert len(style.get_parent_figure(axes).axes) == axes.size
    level_figures.plot_force_parity(errors.forces, LEVELS)
    with pytest.raises(CannotDrawError, match="shortest cell vector"):
        level_figures.plot_errors_by_vector(errors.configurations, LEVELS)


def test_levels_with_the_same_labels_have_no_error_to_draw(make):
    configurations, labels = made_up()
    errors = compute_level_errors(make(configurations, {**labels, "mid": labels["top"]}), ["mid", "top"])
    assert errors.table.loc[0, ["energy_rmsd", "force_rmsd"]].tolist() == [0, 0]
    assert "is below 1 meV/atom" in describe_level_errors(errors)
    level_figures.plot_energy_parity(errors.configurations, LEVELS)
    with pytest.raises(CannotDrawError, match="no errors"):
        level_figures.plot_errors_by_vector(errors.configurations, LEVELS)


def test_of_many_atoms_an_even_choice_is_kept_the_same_at_every_level(make, monkeypatch):
    from paretofit.dataset.quality import level_comparison as module

    configurations, labels = made_up()
    whole = compute_level_errors(make(configurations, labels), LEVELS)
    monkeypatch.setattr(module, "MAX_SAMPLED_ATOMS", 12)
    part = compute_level_errors(make(configurations, labels), LEVELS)
    assert len(part.forces) == pytest.approx(2 * 3 * 12, abs=6)
    low, mid = (part.forces.loc[part.forces["level"] == level, "reference"].to_numpy() for level in LEVELS[:-1])
    np.testing.assert_array_equal(low, mid)
    pd.testing.assert_frame_equal(part.table, whole.table)


def test_the_words_say_what_the_table_says(shipped):
    _, errors = shipped
    words = describe_level_errors(errors)
    assert "no energy RMSD is below 1 meV/atom" in words
    assert "reference configuration 423 (Be2) raises the energy RMSD of levels 2 and 4 (up to 2.16 times)" in words
    assert "lowers that of levels 1 and 3 (down to 0.882 times)" in words
    assert "the number of atoms at levels 1 and 4 (ρ = −0.75 and −0.2)" in words


def test_every_column_that_is_shown_has_a_heading(shipped):
    _, errors = shipped
    shown = {column for sheet in build_level_tables(errors, list("12345")) for column in sheet.table.columns}
    assert shown - set(HEADINGS) <= {"level", "smearing", "property"}


def test_of_few_configurations_no_correlation_is_called_clear(make):
    configurations, labels = made_up()
    few = make(configurations[:6], {level: labels[level][:6] for level in LEVELS}, ids=IDS[:6])
    errors = compute_level_errors(few, LEVELS)
    assert errors.correlations["energy_correlation"].notna().any()
    assert errors.correlations["energy_p_value"].isna().all()
    assert "correlat" not in describe_level_errors(errors)
