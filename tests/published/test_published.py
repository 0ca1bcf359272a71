"""The published tables against pandas alone, and the authors' dataset format written small with pandas."""

import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from conftest import ROOT

from paretofit import Dataset, InputError
from paretofit.cli import main
from paretofit.commands import analyse_published_tables, format_published
from paretofit.published import SECONDS_PER_CONFIGURATION, import_published, read_published
from paretofit.published.hdf_tables import read_published_folder
from paretofit.study import load_study

OBJECTIVES = ["ref_energy", "ref_force", "label_seconds"]
WEIGHTS = "energy_force_front_twojmax6.csv"
SIZES = (100, 200, 350, 500, 750, 1000)
OURS = {"Random": "random", "Leverage": "leverage", "Block Leverage": "block-leverage"}


@pytest.fixture
def call(monkeypatch, capsys):
    """The command line without a process of its own: exit code, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["paretofit", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=left.value.code or 0, stdout=out, stderr=err)

    return run


# The tables


@pytest.fixture(scope="session")
def tables(shared_data):
    """The published tables, those of weights first."""
    folder = shared_data / "published_pareto"
    if not folder.is_dir():
        pytest.skip(f"no published tables at {folder}")
    return [folder / WEIGHTS, *(folder / f"sampling_twojmax6_{size}.csv" for size in SIZES)]


def by_hand(tables):
    """Medians of what was tested against level 6, in meV, and costs, from the files with pandas alone."""
    weights = pd.read_csv(tables[0]).assign(size=10_000, method="random")
    columns = ["Testing Energy RMSE (6th precision)", "Testing Force RMSE (6th precision)"]
    weights = weights.rename(columns=dict(zip(columns, OBJECTIVES, strict=False)))
    samplings = pd.concat([pd.read_csv(path) for path in tables[1:]])
    samplings = samplings.rename(
        columns={
            "Testing Energy RMSE": "ref_energy",
            "Testing Force RMSE": "ref_force",
            "Sampling Method": "method",
            "Subsample size": "size",
        }
    ).replace({"method": OURS})
    rows = pd.concat([weights, samplings])
    keys = ["Train Precision", "method", "size", "Energy Weight"]
    medians = 1e3 * rows.groupby(keys)[["ref_energy", "ref_force"]].median()
    medians = medians.reset_index()
    cost = [8.33, 10.02, 14.80, 19.18, 91.99, 996.14]
    medians["label_seconds"] = medians["size"] * medians["Train Precision"].map(lambda level: cost[level - 1])
    return medians


def test_medians_and_front_are_those_of_pandas(tables):
    study = analyse_published_tables(tables)
    expected = by_hand(tables)
    keys = ["level", "sampling", "n_train", "w_energy"]
    names = dict(zip(["Train Precision", "method", "size", "Energy Weight"], keys, strict=True))
    expected = expected.rename(columns=names).astype({"level": str}).set_index(keys).sort_index()
    got = study.medians.set_index(keys)[OBJECTIVES].sort_index()
    assert len(got) == 6 * 17 + 3 * len(SIZES)
    pd.testing.assert_frame_equal(got, expected[OBJECTIVES], check_dtype=False, rtol=1e-12)
    points = expected[OBJECTIVES].to_numpy()
    beaten = [((points <= point).all(axis=1) & (points < point).any(axis=1)).any() for point in points]
    on_front = set(expected.index[~np.array(beaten)])
    assert set(map(tuple, study.front[keys].to_numpy())) == on_front
    assert study.front["ref_energy"].is_monotonic_increasing


def test_the_columns_stand_where_the_headers_say(tables):
    results = read_published(tables)
    assert set(results["sampling"]) == set(OURS.values())
    first = results.iloc[0]  # w_E 0.01, level 1
    assert (first["level"], first["n_train"], first["repeat"], first["w_energy"]) == ("1", 10_000, 0, 0.01)
    assert first["train_energy"] == pytest.approx(2003.056304906904)
    assert first["test_force"] == pytest.approx(399.13315641970115)
    assert first["ref_energy"] == pytest.approx(2434.3700990861357)
    assert first["ref_force"] == pytest.approx(250.42755898268587)
    assert first["label_seconds"] == pytest.approx(83_300)
    drawn = results[results["n_train"] == 100]
    assert sorted(drawn["repeat"].value_counts()) == [3] * 50
    assert drawn.iloc[0]["train_force"] == pytest.approx(158.0126833656751)  # of the subset
    assert drawn.iloc[0]["ref_energy"] == drawn.iloc[0]["test_energy"] == pytest.approx(14.553301988149097)


def test_published_sampling_helps_as_the_paper_says(tables):
    medians = analyse_published_tables(tables).medians
    small = medians[medians["n_train"] == 100].set_index("sampling")
    assert small["ref_energy"].idxmin() == "leverage"
    assert small["ref_force"].idxmin() == "block-leverage"
    assert small.loc["random", "ref_energy"] > 1.5 * small.loc["leverage", "ref_energy"]


def test_figures_and_front_of_the_command(tables, tmp_path, call):
    out, figures = tmp_path / "front.csv", tmp_path / "figures"
    done = call("pareto", *tables, "--published", "--figures-folder", figures, "--out", out)
    assert done.returncode == 0, done.stderr
    names = {"energy_force", "front", "error_against_cost", "learning_curves_twojmax6"}
    assert {path.stem for path in figures.glob("*.png")} == {path.stem for path in figures.glob("*.svg")} == names
    assert "not drawn" not in done.stdout
    front = pd.read_csv(out, dtype={"level": str})
    assert len(front) == len(analyse_published_tables(tables).front)
    cheap = call("pareto", tables[0], "--published", "--minimize", "ref_force,label_seconds")
    assert cheap.returncode == 0
    assert len(cheap.stdout.splitlines()) > 2


def test_without_weights_the_tradeoff_is_not_drawn_and_an_old_one_goes(tables, tmp_path):
    analyse_published_tables(tables, figures_folder=tmp_path)
    study = analyse_published_tables(tables[1:], figures_folder=tmp_path, overwrite=True)
    assert not (tmp_path / "energy_force.png").exists()
    assert "same energy/force weight" in study.missing_figures[0]
    assert "not drawn: energy_force" in format_published(study)


@pytest.fixture
def weighted_samplings(tables, tmp_path):
    """A table of samplings and weights, as the authors' of 9,990: the fits of the other table, with rounding errors."""
    weights = pd.read_csv(tables[0], index_col=0)
    rows = weights[weights["Energy Weight"].isin([5, 10, 12.25, 50, 150, 300])].copy()
    errors = [name for name in rows.columns if "RMSE" in name]
    rows[errors] *= 1 + 1e-9 * np.random.default_rng(1).uniform(-1, 1, (len(rows), len(errors)))
    rows.insert(0, "Subsample size", 9_990)
    for name in errors:
        if name.startswith("Training"):
            rows[name.replace("Training", "Subsampled")] = rows[name]
    smaller = rows.assign(**{"Subsample size": 7_500, **{name: rows[name] * 1.0001 for name in errors}})
    return written(rows, tmp_path / "9990.csv"), written(smaller, tmp_path / "7500.csv")


def test_a_fit_of_two_tables_counts_once(tables, weighted_samplings, tmp_path, call):
    whole, smaller = weighted_samplings
    alone = analyse_published_tables(tables)
    for paths in ([*tables, whole], [whole, *tables]):
        study = analyse_published_tables(paths, figures_folder=tmp_path / "figures", overwrite=True)
        assert study.results.attrs["merged_rows"] == 36
        keys = ["level", "sampling", "n_train", "w_energy"]
        pd.testing.assert_frame_equal(study.medians.set_index(keys), alone.medians.set_index(keys))
        pd.testing.assert_frame_equal(study.front, alone.front)
        assert "36 rows describe a fit of another table" in format_published(study)
    assert "another table" not in format_published(alone)
    assert len(read_published([*tables, smaller])) == len(alone.results) + 36  # other fits
    assert set(read_published([whole])["n_train"]) == {9_990}
    copy = tmp_path / "copy.csv"
    copy.write_bytes(tables[1].read_bytes())
    assert read_published([tables[1], copy]).attrs["merged_rows"] == 150
    done = call("pareto", tables[0], whole, "--published", "--out", tmp_path / "front.csv")
    assert "each fit counts once, with the larger number" in done.stdout


def sampling_rows(against=6, level=6, method="Leverage"):
    return pd.DataFrame(
        {
            "Subsample size": [100, 100],
            "Energy Weight": 150,
            "2Jmax": 6,
            "Train Precision": level,
            "Error Precision": against,
            "Sampling Method": method,
            **{
                f"{where} {quantity} RMSE": [0.01, 0.03]
                for where in ("Subsampled", "Training", "Testing")
                for quantity in ("Energy", "Force")
            },
        }
    )


def written(frame, path):
    frame.to_csv(path)
    return path


def test_errors_count_for_the_level_that_they_are_measured_against(tmp_path):
    at_training_level = written(sampling_rows(against=4, level=4), tmp_path / "at_training_level.csv")
    top = written(sampling_rows(against=6, level=4), tmp_path / "top.csv")
    results = read_published([at_training_level, top])
    assert results["test_energy"].tolist()[:2] == [10, 30]
    assert results["ref_energy"].tolist()[2:] == [10, 30]
    assert results[["ref_energy", "ref_force"]][:2].isna().all(axis=None)
    assert results[["test_force", "train_energy"]][2:].isna().all(axis=None)
    assert results["repeat"].tolist() == [0, 1, 0, 1]
    study = analyse_published_tables([at_training_level, top])  # both halves of one setting
    assert study.medians.loc[0, ["test_energy", "ref_energy", "n_repeats"]].tolist() == [20, 20, 2]
    with pytest.raises(InputError, match="NaN or infinite in an objective"):
        analyse_published_tables([at_training_level])


def test_the_table_of_samplings_and_weights(tmp_path):
    errors = {
        f"{where} {quantity} RMSE ({level} precision)": 0.001 * k
        for k, (where, quantity, level) in enumerate(
            (w, q, p)
            for p in ("train", "6th")
            for w in ("Subsampled", "Training", "Testing")
            for q in ("Energy", "Force")
        )
    }
    keys = {"Subsample size": 200, "Energy Weight": [5, 300], "2Jmax": 10, "Train Precision": [3, 6]}
    results = read_published([written(pd.DataFrame({**keys, **errors}), tmp_path / "both.csv")])
    assert results["sampling"].tolist() == ["leverage"] * 2
    assert results.loc[0, ["train_energy", "train_force", "test_energy"]].tolist() == pytest.approx([0, 1, 4])
    assert results.loc[0, ["ref_energy", "ref_force"]].tolist() == pytest.approx([10, 11])
    assert results["label_seconds"].tolist() == pytest.approx([200 * 14.80, 200 * 996.14])


def test_another_cost_and_its_reference(tmp_path):
    path = written(sampling_rows(against=4, level=4), tmp_path / "t.csv")
    results = read_published([path], {"1": 2.0, "4": 7.5})
    assert results["label_seconds"].tolist() == [750, 750]
    assert results["ref_energy"].tolist() == [10, 30]


def test_what_is_no_published_table(tmp_path, call):
    good = written(sampling_rows(), tmp_path / "good.csv")
    lacking = written(sampling_rows().drop(columns=["Error Precision", "Testing Force RMSE"]), tmp_path / "lacking.csv")
    strange = written(sampling_rows(method="Leverrage"), tmp_path / "strange.csv")
    level = written(sampling_rows(level=7), tmp_path / "level.csv")
    half = written(sampling_rows().assign(**{"Subsample size": 99.5}), tmp_path / "half.csv")
    empty = written(sampling_rows().iloc[:0], tmp_path / "empty.csv")
    text = written(sampling_rows().assign(**{"Testing Energy RMSE": "low"}), tmp_path / "text.csv")
    for paths, message in (
        (
            [lacking],
            "lacking.csv is not a published table; it lacks the columns 'Error Precision', 'Testing Force RMSE'",
        ),
        ([strange], "did you mean 'Leverage'"),
        ([level], "has level 7, which has no cost"),
        ([half], "'Subsample size' must be a positive whole number; got 99.5 in data row 1"),
        ([empty], "empty.csv: the table has no rows"),
        ([text], "text.csv: column 'Testing Energy RMSE' must contain numbers"),
        ([good, good], "is given twice"),
        ([], "no table was given"),
    ):
        with pytest.raises(InputError, match=message):
            read_published(paths)
    with pytest.raises(InputError, match="must be a positive number; got -1"):
        read_published([good], {"6": -1})
    with pytest.raises(InputError, match="is one of the tables"):
        analyse_published_tables([good], out=good)
    for arguments in (["--group-by", "level"], ["--pool"], ["--minimize", "ref_enrgy"]):
        done = call("pareto", good, "--published", *arguments)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
    done = call("pareto", good, good, "--minimize", "a")
    assert done.returncode == 2
    assert "good.csv: unknown column 'a'" in done.stderr
    done = call("pareto", good, good, "--minimize", "2Jmax")
    assert (done.returncode, done.stderr.count("good.csv is given twice")) == (2, 1)


# The dataset


def hdf(frame, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that objects will be pickled
        frame.to_hdf(path, key="df", mode="w")


IDS = [11, 3, 7, 5]  # of no order


@pytest.fixture
def folder(tmp_path):
    """Four beryllium cells as the authors keep them, level 2 without one of them, and level 10."""
    pytest.importorskip("tables")
    rng = np.random.default_rng(3)
    cells = [bulk("Be") * (1 + k % 2, 1, 1) for k in range(4)]
    for atoms in cells:
        atoms.rattle(0.05, rng=rng)
    cells[0].calc = SinglePointCalculator(cells[0], energy=99.0)  # not a level's
    path = tmp_path / "authors"
    path.mkdir()
    hdf(pd.DataFrame({"ASEatoms": pd.Series(cells, index=IDS, dtype=object)}), path / "Be_structures.h5")
    for level, rows in (("10", [3, 2, 1, 0]), ("2", [1, 0, 2])):
        hdf(labels(cells, rows), path / f"Be_prec_{level}.h5")
    return path


def labels(cells, rows):
    return pd.DataFrame(
        {
            "index": [IDS[k] for k in rows],
            "energy": [-3.7 * len(cells[k]) - 0.1 * k for k in rows],
            "forces": [np.full((len(cells[k]), 3), 0.1 * k) for k in rows],
            "stress": [np.diag([1.0, 2.0, 3.0 + k]) + 0.5 * (np.eye(3)[[1, 0, 2]] - np.diag([0, 0, 1])) for k in rows],
        }
    )


def test_round_trip_of_the_authors_format(folder, tmp_path):
    summary = import_published(
        tmp_path / "d.h5", folder, allow_pickle=True, seconds={"2": 10.02, "10": 996.14}, settings={"2": {"encut": 300}}
    )
    assert summary.n_labels == {"2": 3, "10": 4}
    assert summary.missing_ids == {"2": [5], "10": []}
    assert "stresses were omitted" in summary.notes[0]
    with Dataset(tmp_path / "d.h5") as data:
        assert data.levels == ["2", "10"]  # by number
        assert data.ids.tolist() == sorted(IDS)
        at = data.ids.tolist().index(7)
        assert len(data[at]) == 2
        top = data.labels("10")
        assert top.energy[at] == pytest.approx(-7.6)
        assert top.forces[top.offsets[at] : top.offsets[at + 1]].tolist() == np.full((2, 3), 0.2).tolist()
        assert np.isnan(top.stress).all()
        assert (top.seconds == 996.14).all()
        assert data.labels("2").is_complete.tolist() == [True, False, True, True]
        assert data.settings("2")["encut"] == 300


def test_stress_is_taken_with_a_stated_unit_and_sign(folder):
    """VASP's kbar, positive in compression, against ASE's eV/Å³, negative in it: 1602.18 kbar are 1 eV/Å³."""
    data = read_published_folder(folder, allow_pickle=True, stress_unit="kbar")
    stress = data.levels["10"].labels[data.ids.index(7)]["stress"]
    assert stress == pytest.approx(np.array([1, 2, 5, 0, 0, 0.5]) / -1602.1766208, rel=1e-6)
    tension = read_published_folder(folder, allow_pickle=True, stress_unit="eV/Å³", stress_positive_in="tension")
    assert tension.levels["10"].labels[data.ids.index(7)]["stress"][2] == 5.0
    assert not tension.notes
    with pytest.raises(InputError, match="did you mean 'GPa'"):
        read_published_folder(folder, allow_pickle=True, stress_unit="Gpa")


def test_nothing_is_opened_without_the_flag(folder, tmp_path, monkeypatch):
    def refuse(*_, **__):
        pytest.fail("a pickle was opened")

    monkeypatch.setattr(pd, "read_hdf", refuse)
    with pytest.raises(InputError, match="run any code .* --allow-pickle"):
        import_published(tmp_path / "d.h5", folder)
    assert not (tmp_path / "d.h5").exists()


def test_the_command_imports_with_the_flag(folder, tmp_path, call):
    out = tmp_path / "d.h5"
    done = call("import", out, "--published", folder)
    assert done.returncode == 2
    assert "--allow-pickle" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = call("import", out, "--published", folder, "--allow-pickle")
    assert done.returncode == 0, done.stderr
    assert "level 2: 3 labels, 1 missing (ids 5)" in done.stdout
    for arguments in (["--published", folder, "--allow-pickle", "--add"], []):
        done = call("import", out, *arguments)
        assert done.returncode == 2
        assert "--published" in done.stderr


def test_labels_that_are_nan_are_missing(folder, tmp_path):
    level = pd.read_hdf(folder / "Be_prec_10.h5")
    level["energy"] = level["energy"].where(level["index"] != 3)
    level["forces"] = level["forces"].where(level["index"] != 7)  # NaN where an array should be
    hdf(level, folder / "Be_prec_10.h5")
    summary = import_published(tmp_path / "d.h5", folder, allow_pickle=True)
    assert summary.missing_ids["10"] == [3, 7]


def test_the_ids_may_be_a_column(folder):
    structures = pd.read_hdf(folder / "Be_structures.h5")
    hdf(structures.reset_index(), folder / "Be_structures.h5")
    assert read_published_folder(folder, allow_pickle=True).ids == sorted(IDS)


def spoiled(frame, change):
    """A level's table with one thing wrong."""
    if change == "repeated":
        return frame.assign(index=3)
    if change == "foreign":
        return frame.assign(index=frame["index"].replace({3: 4}))
    if change == "forces":
        return frame.assign(forces=[forces[:-1] for forces in frame["forces"]])
    if change == "text":
        return frame.assign(energy="low")
    return frame.drop(columns=["energy", "forces"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("repeated", "Be_prec_10.h5: the index 3 appears more than once"),
        ("foreign", "1 rows have an index without a structure, such as 4"),
        ("forces", r"Be_prec_10.h5, index 5: forces must have the shape \(4, 3\); got \(3, 3\)"),
        ("text", "index 5: energy must be a real number; got 'low'"),
        ("columns", "it lacks energy, forces"),
    ],
)
def test_a_level_that_does_not_fit(folder, tmp_path, change, message):
    hdf(spoiled(pd.read_hdf(folder / "Be_prec_10.h5"), change), folder / "Be_prec_10.h5")
    with pytest.raises(InputError, match=message):
        import_published(tmp_path / "d.h5", folder, allow_pickle=True)
    assert not (tmp_path / "d.h5").exists()


def test_folders_that_do_not_fit(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no directory at"):
        read_published_folder(tmp_path / "none", allow_pickle=True)
    with pytest.raises(InputError, match="has 0 files"):
        read_published_folder(tmp_path / "empty", allow_pickle=True)
    with pytest.raises(InputError, match="unknown level '6' in the seconds; available levels: 2, 10"):
        read_published_folder(folder, allow_pickle=True, seconds={"2": 10.02, "6": 996.14})
    (folder / "Be_prec_3.h5").write_text("no HDF5")
    with pytest.raises(InputError, match="Be_prec_3.h5 cannot be read as a pandas table") as caught:
        read_published_folder(folder, allow_pickle=True)
    assert "\n" not in str(caught.value)
    hdf(pd.DataFrame({"ASEatoms": ["Be2"]}), folder / "Be_structures.h5")
    with pytest.raises(InputError, match="'ASEatoms' of index 0 must be an ase.Atoms; got 'Be2'"):
        read_published_folder(folder, allow_pickle=True)


def test_without_pytables_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tables", None)
    with pytest.raises(InputError, match=r"pip install 'paretofit\[published\]'"):
        read_published_folder(folder, allow_pickle=True)


# The study


def test_the_published_study_is_the_papers_design(call):
    study = load_study(ROOT / "studies" / "published_beryllium.yaml")
    assert study.twojmax == [4, 6, 8, 10]
    assert [pair[0] for pair in study.weights] == [5, 10, 12.25, 50, 150, 300]
    assert set(SIZES) <= set(study.sizes)
    assert study.split.train_fraction == 0.5
    assert study.repetitions == 50
    assert study.cost.label_seconds == dict(SECONDS_PER_CONFIGURATION)
    assert study.levels == list(SECONDS_PER_CONFIGURATION)
    if not study.dataset.exists():
        done = call("run", ROOT / "studies" / "published_beryllium.yaml")
        assert done.returncode == 2
        assert "'paretofit import' creates one" in done.stderr
