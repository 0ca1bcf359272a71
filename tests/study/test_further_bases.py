"""Several bases in one study: each is fitted as by itself, and they are compared on errors and MD speed."""

import numpy as np
import pandas as pd
import pytest
from helpers.command_line import call
from helpers.studies import study_file

from paretofit import Dataset, DesignMatrix, InputError, run_study
from paretofit.commands import export_front, plan
from paretofit.core import RowKind
from paretofit.descriptors import PodBasis
from paretofit.report import PairedErrors
from paretofit.report.findings import assess_bases
from paretofit.study import estimate_study_cost, load_study
from paretofit.study.further_bases import derive_studies
from paretofit.sweep import read_results
from paretofit.validation import MdProtocol

BASES = [
    {"name": "linear", "quadratic": False},
    {"name": "short", "rcutfac": 4.0, "twojmax": [2]},
    {"name": "pod", "family": "pod", "twojmax": [4, 6]},
]
SIZES = {
    "sizes": [20, "all"], "sampling_methods": ["random"], "repetitions": 2, "levels": [4, 5],
    "mixtures": [{"base": 4, "top": 5, "top_sizes": [20], "top_sampling": "random"}],
}  # fmt: skip
OBJECTIVES = ["ref_energy", "ref_force", "label_seconds"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    cost = {"measure_md": False, "md_us_per_atom_step": {2: 20, 4: 100}}
    return run_study(study_file(folder, bases=BASES, cost=cost, **SIZES), out=folder / "run")


def test_each_basis_is_fitted_as_by_itself(run, tmp_path):
    joined = pd.read_csv(run.folder / "bases.csv")
    assert list(joined["basis"].unique()) == ["basis", "linear", "short", "pod"]
    alone = run_study(
        study_file(tmp_path, basis={"elements": ["Be"], "rcutfac": 4.0}, **{**SIZES, "twojmax": [2]}),
        out=tmp_path / "alone",
    )
    short = read_results(run.folder / "bases" / "short" / "results.csv")
    pd.testing.assert_frame_equal(short, read_results(alone.folder / "results.csv"))
    rows = joined[joined["basis"] == "short"]
    assert rows["ref_force"].to_numpy() == pytest.approx(short["ref_force"].to_numpy())
    draws = [joined.loc[joined["basis"] == name, "label_seconds"].unique().tolist() for name in ("basis", "linear")]
    assert draws[0] == draws[1], "random draws are the same for all bases"


def test_pod_is_the_least_squares_fit_of_its_rows(run):
    """The errors in the results are those of an explicit `lstsq` of rows from `compute_design`."""
    folder = run.folder / "bases" / "pod"
    row = read_results(folder / "results.csv").query("level == '5' and twojmax == 4 and n_train > 20").iloc[0]
    study = load_study(folder / "study.yaml")
    with Dataset(study.dataset) as data:
        design = DesignMatrix.open(folder / "design.h5").with_labels(data, ["5"])
    split = pd.read_csv(folder / "split.csv")
    is_train = np.isin(design.configuration, np.flatnonzero(split["set"] == "train"))
    n_columns = PodBasis(elements=["Be"], twojmax=4).n_features
    X, y = design.read_all_rows()[:, :n_columns], design.targets["5"]
    weights = np.where(design.kind == RowKind.ENERGY, row["w_energy"], row["w_force"])[is_train]
    beta = np.linalg.lstsq(X[is_train] * weights[:, None], y[is_train] * weights, rcond=None)[0]
    for kind, column in ((RowKind.ENERGY, "ref_energy"), (RowKind.FORCE, "ref_force")):
        rows = ~is_train & (design.kind == kind)
        rmse = 1000 * np.sqrt(np.mean((X[rows] @ beta - y[rows]) ** 2))
        assert row[column] == pytest.approx(rmse, rel=1e-8)


def test_the_answer_is_that_of_all_bases(run):
    table = run.answer.table
    assert set(table["basis"]) <= {"basis", "linear", "short", "pod"}
    best = run.answer.curve.iloc[-1]
    medians = read_results(run.folder / "bases.csv").groupby(["basis", "level", "twojmax", "w_energy", "n_train"])
    scores = np.sqrt(medians["ref_energy"].median() * medians["ref_force"].median())
    assert best["basis"] == scores.idxmin()[0]
    for row, text in zip(table.to_dict("records"), run.answer.studies, strict=True):
        path = run.folder.parent / "setting.yaml"
        path.write_text(text)
        setting = load_study(path)
        assert not setting.bases
        assert (setting.basis.family == "pod") == (row["basis"] == "pod")


def test_the_front_is_that_of_all_bases(run):
    front = pd.read_csv(run.folder / "front.csv", dtype={"level": str})
    parts = {name: pd.read_csv(path / "front.csv", dtype={"level": str}) for name, path in list_folders(run).items()}
    assert front["basis"].value_counts().to_dict() == {
        **{name: len(part) for name, part in parts.items()},
        "basis": (front["basis"] == "basis").sum(),
    }
    values = front[OBJECTIVES].to_numpy()
    is_dominated = [((values <= row).all(axis=1) & (values < row).any(axis=1)).any() for row in values]
    assert front["overall"].tolist() == np.logical_not(is_dominated).tolist()


@pytest.mark.slow
def test_the_potentials_of_the_front_are_those_of_all_bases(run, tmp_path):
    front = pd.read_csv(run.folder / "front.csv")
    exported = export_front(run.folder, tmp_path, protocol=MdProtocol(nvt_time_ps=0.02, nve_time_ps=0.02))
    index = pd.read_csv(tmp_path / "index.csv", keep_default_na=False)
    assert sorted(index["basis"]) == sorted(front.loc[front["overall"], "basis"])
    assert set(index["check_problem"]) == {""}
    assert len(exported.index) == len(index)


def list_folders(run):
    return {path.name: path for path in (run.folder / "bases").iterdir()}


def test_mixtures_are_fitted_in_all_bases(run):
    joined = pd.read_csv(run.folder / "bases.csv", dtype={"level": str})
    assert set(joined.loc[joined["level"] == "4+5", "basis"]) == {"basis", "linear", "short", "pod"}
    numbers = pd.read_csv(run.folder / "tables" / "finding_mixtures.csv")
    assert set(numbers["mixture_basis"]) <= {"basis", "linear", "short", "pod"}
    page = (run.folder / "report.html").read_text()
    assert "Do mixtures of levels pay, and from which budget on? <span" in page, "the question names no basis"


@pytest.mark.slow
def test_a_repeated_run_has_the_same_results(run):
    before = (run.folder / "bases.csv").read_bytes()
    run_study(run.folder.parent / "study.yaml", out=run.folder)
    assert (run.folder / "bases.csv").read_bytes() == before


def test_page_plan_and_export_know_the_bases(run):
    page = (run.folder / "report.html").read_text()
    assert "Which basis and 2Jmax have the lowest errors at which MD speed?" in page
    assert "bases/short/report.html" in page
    result = plan(run.folder, budget="1h")
    assert result.choice["basis"] in {"basis", "linear", "short", "pod"}
    assert f"({result.choice['basis']})" in result.text
    setting = run.folder.parent / "plan.yaml"
    setting.write_text(result.study_text)
    study = load_study(setting)
    assert (study.twojmax, study.bases) == ([result.choice["twojmax"]], [])
    assert (study.basis.family == "pod") == (result.choice["basis"] == "pod")
    assert set(plan(run.folder / "bases" / "linear", budget="1h").choice.index).isdisjoint({"basis"})
    assert call("report", run.folder, "-q").returncode == 0


@pytest.mark.slow
def test_an_export_names_the_basis_with_lower_errors(run, tmp_path):
    table = pd.read_csv(run.folder / "bases.csv")
    table["score"] = table["ref_energy"] * table["ref_force"]
    best = table.loc[table["score"].idxmin(), "basis"]
    for name, folder in (("basis", run.folder), (best, run.folder / "bases" / best)):
        done = call("export", folder, "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
        is_named = f"a fit of the basis '{best}' has lower errors" in done.stdout
        assert is_named == (name == "basis" != best)


def test_the_first_basis_of_a_study_is_completed():
    study = load_study_of([{"name": "a", "quadratic": False, "twojmax": [2, 6]}])
    (derived,) = derive_studies(study).values()
    assert (derived.basis.quadratic, derived.basis.twojmax, derived.twojmax) == (False, 6, [2, 6])
    assert derived.basis.rcutfac == study.basis.rcutfac


def test_an_inner_radius_above_the_shortest_distance_is_refused(tmp_path):
    path = study_file(tmp_path, bases=[{"name": "pod", "family": "pod", "rin": 2.2}])
    with pytest.raises(InputError, match=r"'rin' of the POD basis is 2.2 Å, but configuration 0 has atoms at 2.15 Å"):
        estimate_study_cost(path)


def test_the_estimated_cost_includes_the_mixtures_of_all_bases(tmp_path):
    n_fits = []
    for name, bases in (("single", []), ("double", [{"name": "short", "rcutfac": 4.0}])):
        (tmp_path / name).mkdir()
        n_fits.append(estimate_study_cost(study_file(tmp_path / name, bases=bases, **SIZES)).n_fits)
    assert n_fits[1] == 2 * n_fits[0]


def load_study_of(bases):
    import tempfile
    from pathlib import Path

    return load_study(study_file(Path(tempfile.mkdtemp()), bases=bases))


def make_results(errors, costs):
    """One fit for each basis, 2Jmax 4."""
    rows = [
        {"basis": name, "twojmax": 4, "level": "5", "sampling": "random", "n_train": 50, "w_energy": 1.0,
         "w_force": 1.0, "ref_energy": energy, "ref_force": 100.0, "md_us_per_atom_step": cost}
        for (name, energy), cost in zip(errors.items(), costs, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def make_samples(ratio, noise):
    """Errors in five splits of ten samples, `ratio` times 10 meV/atom."""
    rng = np.random.default_rng(3)
    settings = make_results({"x": 1.0}, [1.0]).drop(columns="basis")
    errors = {
        "ref_energy": 10 * ratio * np.exp(noise * rng.normal(size=(5, 10, 1))),
        "ref_force": np.full((5, 10, 1), 100.0),
    }
    return PairedErrors(settings, errors)


def test_the_finding_names_the_front_and_what_is_not_clear():
    results = make_results({"basis": 20.0, "a": 10.0, "b": 10.5, "c": 12.0}, [10.0, 50.0, 40.0, 60.0])
    samples = {
        "basis": make_samples(2, 0),
        "a": make_samples(1, 0),
        "b": make_samples(1.2, 0.5),
        "c": make_samples(1.2, 0),
    }
    finding = assess_bases(results, "5", samples)
    numbers = finding.numbers.set_index("basis")
    assert dict(numbers["verdict"]) == {"basis": "higher", "a": "best", "b": "no clear difference", "c": "higher"}
    assert dict(numbers["on_front"]) == {"basis": "yes", "a": "yes", "b": "yes", "c": "no"}
    assert numbers.loc["basis", "energy_to_lowest"] == pytest.approx(2)
    assert finding.answer.startswith("a at 2Jmax 4 has the lowest errors")
    assert assess_bases(results[:1], "5", samples) is None


@pytest.mark.parametrize(
    ("bases", "message"),
    [
        ([{"name": "a", "rcutfac": 5.0}, {"name": "a", "rcutfac": 4.0}], "'bases' contains 'a' twice"),
        ([{"name": "basis"}], "the name of the first basis"),
        ([{"name": "a", "wj": [1.0, 2.0]}], "'bases', a: .*wj"),
        ([{"name": "a", "rcutfac": 500.0}], "'bases', a: .*rcutfac"),
        ([{"name": "a"}], "no key differs"),
        ([{"name": "a", "rcut": 5.0}], "'bases', a: unknown key 'rcut'"),
        ([{"name": "a", "family": "pod", "rcutfac": 5.0}], "'bases', a: unknown key 'rcutfac'; did you mean 'rcut'"),
        ([{"name": "a", "family": "pod", "twojmax": [4, 14]}], "'bases', a: 'twojmax': .*12; got 14"),
        ([{"name": "a", "family": "pod", "twojmax": [1, 4]}], "'bases', a: 'twojmax': .*2; got 1"),
        ([{"name": "a", "family": "pod", "rin": 9.0}], "'bases', a: rin must be smaller than rcut"),
        ([{"name": "a", "family": "ace"}], "must be 'snap', 'pod' or 'rows'; got 'ace'"),
        ([{"name": "a", "cutoff": 4.0}], "unknown key 'cutoff' in entry 1 of 'bases'"),
        ([{"rcutfac": 4.0}], "name"),
        ([{"name": "a/b"}], "letters, digits"),
    ],
)
def test_wrong_bases_are_refused_in_one_sentence(bases, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        run_study(study_file(tmp_path, bases=bases), out=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
