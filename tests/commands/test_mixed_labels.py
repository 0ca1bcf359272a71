"""Fits to labels of several levels, of which each configuration may have only one, and the family of a fit."""

import numpy as np
import pytest
from conftest import ROOT
from helpers.command_line import call

from paretofit import Dataset, DesignMatrix, InputError
from paretofit.commands import fit_dataset
from paretofit.core import RowKind
from paretofit.dataset import LevelData, write_dataset

LABELLED = {"2": range(45), "5": range(30, 60)}  # numbers of the configurations with labels at each level
STUDY = """
dataset: partial.h5
basis: {elements: [Be]}
twojmax: [2]
weights: [10]
levels: [2, 5]
split: {train_fraction: 0.9}
mixtures: [{base: 2, top: 5, top_sizes: [9], base_energy_weight: [0.5]}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("partial")
    with Dataset(ROOT / "data" / "beryllium.h5") as data:
        structures = [atoms for _, atoms in zip(range(60), data, strict=False)]
        levels = {}
        for level, numbers in LABELLED.items():
            labels, rows = data.labels(level), np.split(data.labels(level).forces, np.cumsum(data.n_atoms)[:-1])
            levels[level] = LevelData(
                [{"energy": labels.energy[k], "forces": rows[k]} if k in numbers else None for k in range(60)]
            )
    write_dataset(folder / "partial.h5", structures, levels)
    (folder / "fit.yaml").write_text(STUDY)
    return folder


def test_the_fit_is_that_of_all_rows_with_an_offset_column(folder):
    fit = fit_dataset(folder / "fit.yaml", folder / "potential", held_out_fraction=0.0, keep_design=True)
    with Dataset(folder / "partial.h5") as data:
        design = DesignMatrix.open(folder / "potential" / "design.h5").with_labels(data, ["2", "5"])
    X, is_energy = design.read_all_rows(), design.kind == RowKind.ENERGY
    X = X[:, : design.count_columns_up_to(2)]
    blocks, targets = [], []
    for level, numbers in LABELLED.items():
        rows = np.isin(design.configuration, list(numbers))
        weights = np.where(is_energy, 10.0 * (0.5 if level == "2" else 1.0), 1.0)[rows]
        offset = X[rows, :1] * (level == "2")
        blocks.append(np.hstack([X[rows], offset]) * weights[:, None])
        targets.append(design.targets[level][rows] * weights)
    solution = np.linalg.lstsq(np.vstack(blocks), np.concatenate(targets), rcond=None)[0][:-1]
    expected = design.targets["5"] - X @ solution
    for name, is_kind in (("energy", is_energy), ("force", ~is_energy)):
        rows = is_kind & np.isin(design.configuration, list(LABELLED["5"]))
        assert fit.errors[f"train {name}"] == pytest.approx(1000 * np.sqrt(np.mean(expected[rows] ** 2)), rel=1e-8)
    assert "training labels: 45 at level 2, 30 at level 5; energies below level 5 weigh 0.5 times" in fit.text
    assert fit.n_train == 60


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, ["--committee", "4"], "a mixture of levels is not supported by committees; fit a single level with"),
        ({"[2]\n": "[2, 4]\n"}, [], "has no leave-one-out errors to choose by; choose --twojmax and --weight-ratio"),
        ({"[2, 5]": "[5]", "base: 2": "base: 3"}, [], "has no level '3'; available: 2, 5"),
        ({"base: 2, top: 5": "base: 5, top: 2"}, [], "must have its levels in order of cost, 2, 5; got 5, 2"),
    ],
)
def test_what_a_mixture_does_not_support_is_said(folder, tmp_path, changes, options, message):
    text = STUDY.replace("partial.h5", str(folder / "partial.h5"))
    for old, new in changes.items():
        text = text.replace(old, new)
    (tmp_path / "fit.yaml").write_text(text)
    done = call("fit", tmp_path / "fit.yaml", "-o", tmp_path / "potential", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "potential").exists()


SUBSETS = "labelling: {{levels: [2, 5], subsets: {{2: {{ids: [0, 1, 2, 3, 20]}}, 5: {{ids: [{}, 40, 41]}}}}}}\n"


def test_all_labels_of_the_subsets_are_fitted(folder, tmp_path):
    """The default split would hold some of them out."""
    text = STUDY.replace("partial.h5", str(folder / "partial.h5"))
    (tmp_path / "fit.yaml").write_text(text + SUBSETS.format(3))
    fit = fit_dataset(tmp_path / "fit.yaml", tmp_path / "potential")
    assert "2 at level 5 (1 of its subset are without a label, or held out)" in fit.text
    (tmp_path / "fit.yaml").write_text(text + SUBSETS.format(35))
    fit = fit_dataset(tmp_path / "fit.yaml", tmp_path / "potential", overwrite=True)
    assert "training labels: 5 at level 2, 3 at level 5" in fit.text
    (tmp_path / "fit.yaml").write_text(text + SUBSETS.format(999))
    with pytest.raises(
        InputError, match=r"'labelling.subsets' of level '5' has id 999, but .*partial.h5 has no labels"
    ):
        fit_dataset(tmp_path / "fit.yaml", tmp_path / "other")


def test_a_single_level_is_fitted_if_it_is_chosen(folder, tmp_path):
    done = call("fit", folder / "fit.yaml", "--level", "5", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "level 5; 30 configurations without a label at this level are not used" in done.stdout


def test_the_family_of_a_fit_to_a_dataset_is_chosen(folder, tmp_path):
    arguments = ["fit", folder / "partial.h5", "--level", "2", "-o", tmp_path, "--family"]
    done = call(*arguments, "pod", "--twojmax", "4", "--weight-ratio", "10")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("POD, 2Jmax 4 (")
    assert (tmp_path / "potential.podcoeff").is_file()
    for options, message in (
        (["ace"], "--family must be one of snap, pod; got 'ace'"),
        (["pod", "--linear"], "--quadratic and --linear are forms of SNAP"),
    ):
        done = call(*arguments, *options, "--force")
        assert (done.returncode, message in done.stderr) == (2, True)
