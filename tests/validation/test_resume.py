"""A stopped validation resumes where it stopped, and repeats what other inputs would change."""

import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk

pytest.importorskip("phonopy")

from paretofit.commands import validate_potential, validation_tasks
from paretofit.core import InputError
from paretofit.validation import (
    QUICK_EFFORT,
    PropertyResult,
    ValidationSettings,
    pack_result,
    pack_structure,
    parse_potential,
    unpack_result,
    unpack_structure,
)
from paretofit.validation.quantity import Quantity

PROPERTIES = ("lattice", "eos", "elastic", "dimer")
SETTINGS = ValidationSettings(QUICK_EFFORT, prototypes=("bcc",))


class PowerFailureError(BaseException):
    """An end of the process that no handler expects."""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a validation that stops before its property number `stop`; return the computed properties and the result."""
    bulk("Cu").write(tmp_path / "cu.xyz", format="extxyz")
    (tmp_path / "eam.lmp").write_text("pair_style eam/alloy\npair_coeff * * Cu_mishin1.eam.alloy Cu\n")
    measure = validation_tasks.validation.measure_property
    relax = validation_tasks.validation.relax_to_standard_cell

    def run_validation(folder, *, stop=None, settings=SETTINGS):
        computed = []

        def count_and_measure(name, case):
            if len(computed) == stop:
                raise PowerFailureError
            computed.append(name)
            return measure(name, case)

        def count_and_relax(potential, atoms):
            computed.append("relaxation")
            return relax(potential, atoms)

        monkeypatch.setattr(validation_tasks.validation, "measure_property", count_and_measure)
        monkeypatch.setattr(validation_tasks.validation, "relax_to_standard_cell", count_and_relax)
        try:
            result = validate_potential(
                tmp_path / "eam.lmp", tmp_path / folder, structures=[tmp_path / "cu.xyz"], properties=PROPERTIES,
                settings=settings, progress=True,
            )  # fmt: skip
        except PowerFailureError:
            result = None
        return computed, result

    return run_validation


def test_finished_properties_are_not_computed_again(run, tmp_path, capsys):
    _, whole = run("whole")
    assert run("parts", stop=3)[0] == ["relaxation", "lattice", "eos"]
    assert not (tmp_path / "parts" / "validation.csv").exists()
    capsys.readouterr()
    computed, result = run("parts")
    assert computed == ["elastic", "dimer"]
    assert "2 of 4 parts of a stopped run" in capsys.readouterr().err
    pd.testing.assert_frame_equal(result.table, whole.table)
    for name, curve in whole.curves.items():
        pd.testing.assert_frame_equal(result.curves[name], curve)
    assert not list((tmp_path / "parts").glob("*.partial"))


def test_other_settings_or_another_potential_repeat_everything(run, tmp_path, capsys):
    run("out", stop=3)
    others = ValidationSettings(QUICK_EFFORT, prototypes=("hcp",))
    capsys.readouterr()
    assert run("out", stop=3, settings=others)[0] == ["relaxation", "lattice", "eos"]
    assert "of a stopped run with other inputs" in capsys.readouterr().err
    (tmp_path / "eam.lmp").write_text("pair_style eam/alloy\npair_coeff * * Cu_zhou.eam.alloy Cu\n")
    computed, result = run("out", settings=others)
    assert computed == ["relaxation", *PROPERTIES]
    assert result.failures.empty


def test_digest_of_a_potential_is_that_of_its_files(tmp_path):
    (tmp_path / "table.eam").write_text("first")
    (tmp_path / "eam.lmp").write_text("# elements: Cu\npair_style eam\npair_coeff 1 1 table.eam\n")
    digests = [parse_potential(str(tmp_path / "eam.lmp")).compute_digest()]
    (tmp_path / "table.eam").write_text("second")
    digests.append(parse_potential(str(tmp_path / "eam.lmp")).compute_digest())
    lennard_jones = "ase.calculators.lj.LennardJones"
    digests += [parse_potential(f'{lennard_jones}:{{"sigma": {x}}}').compute_digest() for x in (3.4, 3.5)]
    assert len(set(digests)) == 4
    assert parse_potential(str(tmp_path / "eam.lmp")).compute_digest() == digests[1]


def test_stored_results_are_exact():
    table = pd.DataFrame({"x": [0.1 + 0.2, np.nan, -np.inf], "n": [1, 2, 3], "structure": ["a", "b", "Γ"]})
    result = PropertyResult([("cu", 0, Quantity("a", "Å", np.float64(1 / 3)))], {"eos": table}, ["a"], ["b"])
    copy = unpack_result(pack_result(result))
    assert copy.values == result.values
    assert (copy.failures, copy.notes) == (["a"], ["b"])
    pd.testing.assert_frame_equal(copy.curves["eos"], table)
    atoms = Atoms("CO", [[0, 0, 0], [0, 0, 1.1]], cell=[3, 4, 5], pbc=[True, False, False], magmoms=[1.0, 2.0])
    assert unpack_structure(pack_structure(atoms)) == atoms
    assert unpack_structure(pack_structure("did not converge")) == "did not converge"


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_killed_command_resumes(tmp_path, stop):
    bulk("Cu").write(tmp_path / "cu.xyz", format="extxyz")
    command = [sys.executable, "-m", "paretofit.cli", "validate", "ase.calculators.emt.EMT", "--structure", "cu.xyz"]
    command += ["--quick", "--property", "lattice,defects,md", "-o", "out"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "out" / "properties.partial"
    deadline = time.monotonic() + 120
    while (
        process.poll() is None
        and time.monotonic() < deadline
        and not (journal.exists() and journal.stat().st_size > 500)
    ):
        time.sleep(0.02)
    process.send_signal(stop)
    message = process.communicate()[1]
    assert stop == signal.SIGKILL or message.endswith("terminated; run the same command again to resume\n")
    assert journal.stat().st_size > 500
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "of 3 parts of a stopped run" in finished.stderr
    table = pd.read_csv(tmp_path / "out" / "validation.csv")
    assert set(table["property"]) == {"lattice", "defects", "md"}


def test_second_run_in_the_same_folder_is_refused(tmp_path, run):
    from paretofit.core import ArrayJournal

    with ArrayJournal(tmp_path / "out" / "relaxations.partial", "x"), pytest.raises(InputError, match="another run"):
        run("out")
