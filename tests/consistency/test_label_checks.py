"""Labels that contradict their structures are found, named, and told from labels that are right."""

import re

import numpy as np
import pytest
from helpers.corruptions import CORRUPTIONS, LabelSet, choose_targets

from paretofit.commands import import_labels, inspect_dataset
from paretofit.consistency import check_labels
from paretofit.dataset import Dataset, LevelData, write_dataset

SHIPPED = "data/beryllium.h5"
QUICK = (
    "energies in Ry",
    "energies per atom",
    "forces of opposite sign",
    "positions in bohr",
    "forces in random order",
    "axes of the forces permuted",
    "5 eV more on one energy",
    "a third of the forces zero",
    "constant energies",
)


@pytest.fixture(scope="module")
def labels():
    """Level 5 of 150 shipped configurations."""
    with Dataset(SHIPPED) as data:
        view = data.select(np.arange(0, 420)[::3][:140])
        stored = view.labels("5")
        forces = [stored.forces[slice(*stored.offsets[k : k + 2])] for k in range(len(view))]
        structures = list(view)
        return LabelSet(structures, stored.energy, forces, stored.stress, choose_targets(structures, forces))


def write(path, *levels):
    write_dataset(
        path,
        levels[0].structures,
        {
            f"level{k}": LevelData(
                [
                    {"energy": energy, "forces": forces, "stress": stress}
                    for energy, forces, stress in zip(level.energies, level.forces, level.stresses, strict=True)
                ]
            )
            for k, level in enumerate(levels)
        },
    )
    return path


def test_right_labels_cause_no_warning(labels, tmp_path):
    with Dataset(write(tmp_path / "d.h5", labels)) as data:
        assert check_labels(data) == []


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CORRUPTIONS]
)
def test_wrong_labels_are_named(labels, tmp_path, name):
    corruption = CORRUPTIONS[name]
    warnings = inspect_dataset(write(tmp_path / "d.h5", corruption.apply(labels))).warnings
    assert re.search(corruption.pattern, "\n".join(warnings)), warnings


def test_the_same_labels_at_two_levels(labels, tmp_path):
    (warning,) = inspect_dataset(write(tmp_path / "d.h5", labels, labels)).warnings
    assert "levels level0 and level1" in warning
    assert "identical" in warning


def test_an_import_checks_its_labels(labels, tmp_path):
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write as write_file

    structures = [atoms.copy() for atoms in labels.structures[:40]]
    for atoms, energy, forces in zip(structures, labels.energies, labels.forces, strict=False):
        atoms.calc = SinglePointCalculator(atoms, energy=energy / 13.6057, forces=forces)
    write_file(tmp_path / "a.extxyz", structures)
    summary = import_labels(tmp_path / "d.h5", {"a": tmp_path / "a.extxyz"})
    assert any("rydberg: multiply them by 13.6057" in text for text in summary.warnings)


def test_a_few_labels_are_not_judged(labels, tmp_path):
    few = LabelSet(labels.structures[:8], -labels.energies[:8], labels.forces[:8], labels.stresses[:8], labels.targets)
    with Dataset(write(tmp_path / "d.h5", few)) as data:
        assert check_labels(data) == []
