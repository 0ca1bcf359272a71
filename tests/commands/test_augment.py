"""Whole sets of candidates from a crystal, an alloy, a sheet and a molecule; the study and the command line."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, molecule
from ase.io import read, write
from helpers.command_line import call
from helpers.pictures import rendered_pictures
from helpers.structures import same

from paretofit import Dataset, InputError
from paretofit.commands import augment_study
from paretofit.dataset import LevelData, assign_groups, split_configurations, write_dataset
from paretofit.structures import AugmentSettings, build_mean_descriptor_function, generate_candidates, is_too_close
from paretofit.study import load_study, write_template

BERYLLIUM = partial(bulk, "Be", "hcp", a=2.286, c=3.584)
SMALL = {"min_length": 6.0, "max_atoms": 60, "slabs": {"miller_indices": [[1, 0, 0]], "min_thickness": 5.0}}


def candidates_of(atoms, name="input.cif", describe=True, **changes):
    chosen = AugmentSettings.model_validate({"n_candidates": 40, **SMALL, **changes})
    elements = sorted({*atoms.get_chemical_symbols(), *chosen.alloys.elements})
    *_, actual = generate_candidates(
        [atoms], [name], chosen, compute_descriptors=build_mean_descriptor_function(elements) if describe else None
    )
    return actual


INPUTS = {
    "crystal": (BERYLLIUM(), {"supercell", "slab", "isolated", "distorted", "strained", "cluster", "vacancy"}),
    "carbide": (
        bulk("TiC", "rocksalt", a=4.33),
        {"supercell", "slab", "isolated", "distorted", "strained", "cluster", "vacancy", "alloy", "substituted"},
    ),
    "intermetallic": (
        Atoms("WBe", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.9, 2.9, 2.9], pbc=True),
        {"supercell", "slab", "isolated", "distorted", "strained", "cluster", "vacancy", "alloy", "substituted"},
    ),
    "sheet": (
        graphene(vacuum=4.0),
        {"supercell", "isolated", "distorted", "strained", "cluster", "vacancy"},
    ),
    "molecule": (
        molecule("CH3OH"),
        {"molecule", "isolated", "distorted", "cluster", "vacancy", "alloy", "substituted"},
    ),
    "one atom": (bulk("Ta"), {"supercell", "slab", "isolated", "distorted", "strained", "cluster", "vacancy"}),
}


@pytest.mark.parametrize("name", INPUTS)
def test_one_input_gives_all_kinds_that_make_sense(name):
    atoms, expected = INPUTS[name]
    before = atoms.copy()
    actual = candidates_of(atoms)
    assert same(atoms, before)
    assert {item.info["config_type"] for item in actual.structures} == expected
    assert len(actual.structures) + sum(actual.given_up.values()) == 40
    assert [item.info["config_id"] for item in actual.structures] == list(range(len(actual.structures)))
    described = [
        build_mean_descriptor_function(sorted(set(atoms.get_chemical_symbols())))(item) for item in actual.structures
    ]
    for k, item in enumerate(actual.structures):
        kind = item.info["config_type"]
        assert not is_too_close(item, 0.6)
        assert len(item) <= 60
        assert item.info["made_by"]
        if kind in {"isolated", "cluster"}:
            assert "parent" not in item.info
            assert not item.pbc.any()
        elif kind in {"vacancy", "substituted"}:
            parent = actual.structures[item.info["parent"]]
            assert item.info["family"] == parent.info["family"]
            assert len(item) == len(parent) - 2 * (kind == "vacancy")
            assert np.array_equal(item.pbc, parent.pbc)
        else:
            assert item.info["parent"] == "input.cif"
            assert item.info["family"] == k
        for other, values in zip(actual.structures[:k], described[:k], strict=True):
            alike = other.get_chemical_formula() == item.get_chemical_formula()
            assert not alike or np.linalg.norm(values - described[k]) > 1e-5 * np.linalg.norm(values)
        for axis in np.flatnonzero(~item.pbc):
            if kind != "vacancy":
                unit = item.cell[axis] / np.linalg.norm(item.cell[axis])
                assert np.linalg.norm(item.cell[axis]) - np.ptp(item.positions @ unit) > 15 - 3.0


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    first, second = (candidates_of(BERYLLIUM(), n_candidates=20).structures for _ in range(2))
    assert all(same(item, other) and item.info == other.info for item, other in zip(first, second, strict=True))
    third = candidates_of(BERYLLIUM(), n_candidates=20, seed=2).structures
    assert not all(same(item, other) for item, other in zip(first, third, strict=True))


def test_a_cell_of_one_atom_that_must_stay_so_is_only_strained():
    actual = candidates_of(
        bulk("Ta"), n_candidates=10, max_atoms=1, slabs={"miller_indices": []}, clusters={"count": 0}, max_attempts=3
    )
    kinds_made = Counter(item.info["config_type"] for item in actual.structures)
    assert kinds_made == {"supercell": 1, "isolated": 1, "strained": 8}


def test_counts_alloys_strain_with_displacements_and_elements_from_elsewhere():
    actual = candidates_of(
        BERYLLIUM(),
        n_candidates=20,
        distorted={"count": 3},
        strained={"count": 4, "fraction": 0.2},
        clusters={"count": 2},
        alloys={"count": 3, "elements": ["Be", "W"]},
        vacancies={"share": 1.0, "n_vacancies": 1},
        isolated_atoms=False,
        slabs={"miller_indices": []},
        substitutions={"share": 0.0},
    )
    result = Counter(item.info["config_type"] for item in actual.structures)
    assert result == {"supercell": 1, "distorted": 3, "strained": 4, "cluster": 2, "alloy": 3, "vacancy": 3}
    strained = next(item for item in actual.structures if item.info["config_type"] == "strained")
    assert "displaced" in strained.info["made_by"]
    distances = strained.get_all_distances(mic=True)[0, 1:]
    assert np.ptp(np.sort(distances)[:6]) > 1e-3


def test_vacancies_that_are_impossible_are_said_and_give_their_share_away():
    actual = candidates_of(
        BERYLLIUM(), n_candidates=20, min_length=0.0, slabs={"miller_indices": []}, distorted={"fraction": 0.4}
    )
    assert actual.skipped == {
        "vacancy": "no structure has more than 2 atoms; raise 'min_length', or lower 'vacancies.n_vacancies'"
    }
    assert len(actual.structures) + sum(actual.given_up.values()) == 20
    assert not any(kind == "vacancy" for kind, _ in actual.rejected)


def test_what_is_made_of_a_slab_says_so():
    result = candidates_of(BERYLLIUM(), n_candidates=40).structures
    slab = next(item.info["config_id"] for item in result if item.info["config_type"] == "slab")
    from_slab = [item for item in result if item.info["made_by"].startswith(f"slab {slab} displaced")]
    assert from_slab
    assert all(len(item) == len(result[slab]) and not item.pbc[2] for item in from_slab)


def test_loops_end_and_what_is_given_up_is_counted():
    actual = candidates_of(
        BERYLLIUM(),
        n_candidates=12,
        distorted={"count": 4, "fraction": 0.0},
        strained={"count": 0},
        clusters={"count": 0},
        max_attempts=5,
    )
    assert actual.given_up["distorted", "duplicate"] > 0
    assert actual.rejected["distorted", "duplicate"] >= 5 * actual.given_up["distorted", "duplicate"]


@pytest.mark.parametrize(
    ("atoms", "changes", "message"),
    [
        (Atoms("Be2", [[0, 0, 0], [0, 0, 0.5]]), {}, "overlapping atoms: the shortest distance is 0.5 Å"),
        (BERYLLIUM() * (3, 3, 3), {"max_atoms": 20}, "has 54 atoms, more than 'max_atoms', 20"),
        (BERYLLIUM(), {"n_candidates": 2}, "'n_candidates' is 2, but there are already 3"),
        (Atoms("Be", pbc=True), {}, "cell vectors of zero length or that lie in one plane"),
        (
            Atoms("Be2", [[0, 0, 0], [0, 0, 2.0]], cell=[3, 3, 18], pbc=True),
            {},
            "third cell vector across 16.0 Å of empty",
        ),
    ],
)
def test_bad_input_is_one_sentence(atoms, changes, message):
    with pytest.raises(InputError, match=message):
        candidates_of(atoms, describe=False, **changes)


def test_no_structures():
    with pytest.raises(InputError, match="no initial structures"):
        list(generate_candidates([], [], AugmentSettings()))


STUDY = """\
augmentation:
  structures: [be.cif]
  n_candidates: {n}
  min_length: 5
  max_atoms: 30
  slabs: {{miller_indices: [[1, 0, 0]], min_thickness: 4}}
{more}"""


def study_file(folder, n=14, more=""):
    if not (folder / "be.cif").exists():
        write(folder / "be.cif", BERYLLIUM())
    (folder / "s.yaml").write_text(STUDY.format(n=n, more=more))
    return folder / "s.yaml"


@pytest.mark.slow
def test_the_command_line_writes_candidates_counts_and_figures(tmp_path):
    path = study_file(
        tmp_path, more="  entropy: {count: 2, composition: {Be: 1}, n_atoms_range: [4, 6], twojmax: 2, max_steps: 3}\n"
    )
    with rendered_pictures():
        done = call("augment", path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in ("16 candidates", "2 entropy", "above random", "map.png", "distributions.png"):
        assert text in done.stdout
    frames = read(tmp_path / "candidates.extxyz", ":")
    assert len(frames) == 16
    assert (tmp_path / "candidates_figures" / "map.png").stat().st_size > 5000
    assert len((tmp_path / "candidates_entropy.csv").read_text().splitlines()) == 3
    first = (tmp_path / "candidates.extxyz").read_bytes()
    augment_study(path, figures=False, overwrite=True)
    assert (tmp_path / "candidates.extxyz").read_bytes() == first
    exact = augment_study(path, figures=False, overwrite=True).candidates.structures
    assert all(same(item, other) for item, other in zip(frames, exact, strict=True))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("  vacancys: {share: 0.1}\n", "unknown key 'augmentation.vacancys'; did you mean 'vacancies'"),
        ("  strained: {strech: 0.1}\n", "did you mean 'stretch'"),
        (
            "  entropy: {count: 3, composition: {Be: 1}}\n",
            "'entropy.n_atoms_range' must end at or below 'max_atoms', 30; got 32",
        ),
        ("  alloys: {elements: [Be]}\n", "an alloy requires at least two elements; got only Be"),
        ("  entropy: {count: 3}\n", "'entropy' requires a 'composition'"),
        ("  entropy: {count: 3, composition: {Bee: 1}}\n", "'Bee' is not a chemical symbol"),
        ("  alloys: {elements: [Be, Xx]}\n", "'Xx' is not a chemical symbol"),
        ("  entropy: {count: 1, composition: {Be: 1}, volume_per_atom: [9, 5]}\n", "must be in ascending order"),
        ("  output: candidates\n", "extended XYZ"),
        ("  clusters: {distance: {SiC: 1.9}}\n", "not a pair of elements"),
        ("  filters: {max_force: 5}\n", "requires a 'force_engine'"),
        ("  filters: {max_force: 5, force_engine: {name: abacus}}\n", "force_engine"),
        (
            "  filters: {max_force: 5, force_engine: {name: ase, calculator: ase.calculators.emt.EMT}}\n",
            "cannot compute be.cif: NotImplementedError: .*choose one that supports Be, or remove 'max_force'",
        ),
        ("  filters: {radii: {Bx: 1.0}}\n", "'Bx' is not a chemical symbol"),
        ("  clusters: {distance: {Be-Xx: 1.9}}\n", "'Xx' is not a chemical symbol"),
        ("  clusters: {distance: {Be-W: 1.9}}\n", "no distance for the pair Be-Be"),
        (
            "  distorted: {count: 70}\n",
            "'n_candidates' is 14, but the counts of all kinds add up to 94; raise 'n_candidates', or lower the counts",
        ),
        ("  slabs: {miller_indices: [[0, 0, 0]]}\n", "not all zero"),
        (
            (
                "  entropy: {count: 1, composition: {Be: 1}, n_atoms_range: [4, 6], volume_per_atom: [0.3, 0.4], "
                "max_steps: 0}\n"
            ),
            "atoms would overlap",
        ),
    ],
)
def test_a_study_that_cannot_be_is_refused_in_one_sentence(tmp_path, more, message):
    path = study_file(tmp_path, more=more)
    if "slabs" in more:
        path.write_text(path.read_text().replace("  slabs: {miller_indices: [[1, 0, 0]], min_thickness: 4}\n", ""))
    with pytest.raises(InputError, match=message) as caught:
        augment_study(path, figures=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "candidates.extxyz").exists()


def test_nothing_to_begin_from_and_a_file_that_is_not_there(tmp_path):
    (tmp_path / "s.yaml").write_text("augmentation: {n_candidates: 3}\n")
    done = call("augment", "s.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "no candidates to generate; set 'augmentation.structures'" in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / "s.yaml").write_text("augmentation: {structures: [none.cif]}\n")
    with pytest.raises(InputError, match="'augmentation.structures': no file at .*none.cif"):
        augment_study(tmp_path / "s.yaml")


def test_forces_under_a_reference_are_a_filter(tmp_path):
    more = "  filters: {max_force: 1.0e-9, force_engine: {name: ase, calculator: ase.calculators.lj.LennardJones}}\n"
    path = study_file(tmp_path, n=5, more="  max_attempts: 2\n  isolated_atoms: false\n" + more)
    actual = augment_study(path, figures=False).candidates
    assert any("forces too large" in why for _, why in actual.rejected)


def test_candidates_of_one_input_can_be_split_by_family(tmp_path):
    result = candidates_of(BERYLLIUM(), n_candidates=40, describe=False).structures
    labels = [{"energy": -1.0, "forces": np.zeros((len(item), 3)), "seconds": 1.0} for item in result]
    crystals = [k for k, item in enumerate(result) if "parent" in item.info]
    write_dataset(tmp_path / "d.h5", [result[k] for k in crystals], {"a": LevelData([labels[k] for k in crystals])})
    template = write_template(tmp_path / "d.h5", tmp_path / "s.yaml")
    assert 'group_by: ["family"]}' in template.read_text()
    assert load_study(template).split.group_by == ["family"]
    with Dataset(tmp_path / "d.h5") as data:
        assert {"parent", "family", "made_by"} <= set(data.info_records[0])
        by_parent, by_family = (assign_groups(data.ids, data.info_records, [key]) for key in ("parent", "family"))
    with pytest.raises(InputError, match=r"write 'split: {group_by: \[family\]}'"):
        split_configurations(by_parent, 0.7, 1)
    split = split_configurations(by_family, 0.7, 1)
    assert not set(by_family[split.train]) & set(by_family[split.test])
    assert len(split.train) / len(crystals) == pytest.approx(0.7, abs=0.1)


@pytest.mark.parametrize("name", ["counts.json", "bulk_counts.json", "bulk_entropy.csv"])
def test_no_input_is_overwritten_by_what_is_written_beside_the_output(tmp_path, name):
    write(tmp_path / name, bulk("Be"), format="json" if name.endswith("json") else "extxyz")
    before = (tmp_path / name).read_bytes()
    (tmp_path / "s.yaml").write_text(
        f"augmentation: {{structures: [{name}], output: bulk.extxyz, n_candidates: 8, max_atoms: 9, "
        "slabs: {miller_indices: []}}\n"
    )
    if name != "counts.json":
        with pytest.raises(InputError, match=f"{name}, which is one of 'structures'"):
            augment_study(tmp_path / "s.yaml", figures=False)
    else:
        augment_study(tmp_path / "s.yaml", figures=False)
    assert (tmp_path / name).read_bytes() == before


def test_stretched_crystals_of_large_atoms_are_not_all_alike():
    actual = candidates_of(
        bulk("Cs"), n_candidates=30, slabs={"miller_indices": []}, distorted={"count": 0}, clusters={"count": 0}
    )
    strained = [item for item in actual.structures if item.info["config_type"] == "strained"]
    factors = [float(item.info["made_by"].split()[-1]) for item in strained]
    assert max(factors) > 1.5
    assert not actual.given_up


def test_a_vacuum_is_that_wide_after_atoms_have_moved():
    for item in candidates_of(graphene(vacuum=4.0), n_candidates=20).structures:
        if item.info["config_type"] == "distorted":
            assert item.cell.lengths()[2] - np.ptp(item.positions[:, 2]) == pytest.approx(15.0)


def test_what_is_given_up_is_replaced():
    actual = candidates_of(
        bulk("TiC", "rocksalt", a=4.33), n_candidates=60, min_length=0.0, alloys={"count": 20}, max_attempts=5
    )
    assert any(kind == "alloy" for kind, _ in actual.given_up)
    assert len(actual.structures) == 60


def test_entropy_alone_with_structures_at_hand(tmp_path):
    more = "  entropy: {count: 2, composition: {Be: 1}, n_atoms_range: [4, 6], twojmax: 2, max_steps: 3}\n"
    result = augment_study(study_file(tmp_path, n=0, more=more), figures=False).candidates.structures
    assert [item.info["config_type"] for item in result] == ["entropy", "entropy"]


def test_the_output_is_never_an_input(tmp_path):
    write(tmp_path / "be.extxyz", bulk("Be"))
    before = (tmp_path / "be.extxyz").read_bytes()
    (tmp_path / "s.yaml").write_text("augmentation: {structures: [be.extxyz], output: be.extxyz, n_candidates: 20}\n")
    with pytest.raises(InputError, match=r"which is one of 'structures'"):
        augment_study(tmp_path / "s.yaml")
    assert (tmp_path / "be.extxyz").read_bytes() == before
