"""Molecular dynamics of the loop: LAMMPS, LAMMPS with a calculator and ASE give the same physics."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from ase import units
from ase.build import bcc110, bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.mixing import SumCalculator

from paretofit.core import lammps_calculator
from paretofit.learning.explore import create_dynamics, run_md
from paretofit.learning.learn_settings import ExploreSettings
from paretofit.learning.md_run import MdBox, MdEngine, MdRun
from paretofit.learning.trajectories import _replace_paths_with_digests, add_dispersion
from paretofit.potentials import format_dispersion_commands

EAM = ("pair_style eam/alloy", "pair_coeff * * W_zhou.eam.alloy W")
NATIVE = MdEngine(EAM, ("W",))
ENGINE = MdEngine((), ("W",), partial(lammps_calculator, EAM, ("W",)), "W_zhou")
SHORT = {"equilibration_ps": 0.0, "time_ps": 0.1, "interval_ps": 0.05}
KBAR = 0.1 * units.GPa


@pytest.fixture(autouse=True, scope="module")
def _potentials():
    lammps_calculator(EAM, ("W",))  # tells LAMMPS where its potentials are


def slab(orthogonal=True):
    atoms = bcc110("W", (2, 2, 4), vacuum=8, orthogonal=orthogonal)
    atoms.pbc = (True, True, False)
    return atoms


def make_start_structures():
    skewed = bulk("W").repeat((2, 2, 3))
    skewed.set_cell(skewed.cell @ [[1, 0.08, 0], [0, 1, 0.05], [0, 0, 1]], scale_atoms=True)
    skewed.rotate(33, (1, 2, 3), rotate_cell=True)
    turned = slab()
    turned.set_cell(turned.cell[[2, 0, 1]])
    turned.pbc = (False, True, True)
    cluster = bulk("W", cubic=True).repeat(2)
    cluster.pbc = False
    wire = bulk("W", cubic=True).repeat((2, 2, 3))
    wire.pbc = (False, False, True)
    return {"bulk": skewed, "slab": slab(False), "turned": turned, "cluster": cluster, "wire": wire}


def run_trajectory(atoms, engine, integrator, temperature=300.0, pressure=0.0, seed=3, **settings):
    run = MdRun(0, atoms, temperature, pressure, seed)
    return run_md(run, engine, ExploreSettings(integrator=integrator, **{**SHORT, **settings}))


def compute_means(atoms, engine, integrator, temperature, pressure, picoseconds, seed):
    """Temperature and volume ratio, averaged over a trajectory after 0.5 ps."""
    run = MdRun(0, atoms, temperature, pressure, seed)
    dynamics = create_dynamics(run, engine, ExploreSettings(integrator=integrator))
    dynamics.start()
    dynamics.start_sampling()
    dynamics.advance(500)
    snapshots = [dynamics.advance(10) for _ in range(round(picoseconds * 100))]
    dynamics.close()
    return np.mean([[snapshot.temperature, snapshot.volume_ratio] for snapshot in snapshots], axis=0)


class Spring(Calculator):
    """Each atom on a spring to its first position, in a box with a bulk modulus."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, fails_at=None, stiffness=5.0, modulus=1.0):
        super().__init__()
        self.fails_at, self.stiffness, self.modulus = fails_at, stiffness, modulus
        self.calls, self.origin, self.volume = 0, None, 0.0

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("the machine is on fire")
        self.origin = atoms.get_scaled_positions(wrap=False) if self.origin is None else self.origin
        displacement = atoms.get_scaled_positions(wrap=False) - self.origin
        displacement = (displacement - np.round(displacement)) @ atoms.cell[:]
        displacement -= displacement.mean(axis=0)
        self.volume = self.volume or atoms.get_volume()
        self.results = {
            "energy": 0.5 * self.stiffness * float(np.sum(displacement**2)),
            "forces": -self.stiffness * displacement,
            "stress": self.modulus * (atoms.get_volume() / self.volume - 1) * np.array([1.0, 1, 1, 0, 0, 0]),
        }


class TestFixExternal:
    @pytest.mark.parametrize("kind", ["bulk", "slab", "turned", "cluster", "wire"])
    def test_calculator_in_lammps_agrees_with_pair_style(self, kind):
        """The same potential as a pair style and through ``fix external``: forces, virial, box and order agree."""
        atoms = make_start_structures()[kind]
        pressure = 100.0 if kind == "bulk" else 5.0
        native, external = (run_trajectory(atoms, engine, "lammps", 600.0, pressure) for engine in (NATIVE, ENGINE))
        assert native.times == external.times
        assert native.reason == external.reason
        assert len(native.frames) >= 1
        for native_frame, external_frame in zip(native.frames, external.frames, strict=True):
            assert external_frame.cell[:] == pytest.approx(native_frame.cell[:], abs=1e-5)
            assert external_frame.get_all_distances(mic=bool(native_frame.pbc.all())) == pytest.approx(
                native_frame.get_all_distances(mic=bool(native_frame.pbc.all())), abs=1e-5
            )

    def test_forces_follow_the_sorting_of_lammps(self):
        """Above some number of atoms LAMMPS changes their order in memory during a run."""
        atoms = bulk("W", cubic=True).repeat(5)
        native, external = (run_trajectory(atoms, engine, "lammps", 2000.0, time_ps=0.02, interval_ps=0.02)
                            for engine in (NATIVE, ENGINE))  # fmt: skip
        assert external.frames[-1].positions == pytest.approx(native.frames[-1].positions, abs=1e-5)


class TestEnsemble:
    @pytest.mark.slow  # the default tests compare temperatures and volumes in cheaper systems
    def test_ase_and_lammps_agree_for_a_small_crystal(self):
        """Means of long runs agree within 0.0003 and 8 K; these runs are a tenth as long."""
        atoms = bulk("W", cubic=True).repeat((2, 2, 1))
        atoms.set_cell(atoms.cell * 0.9806 ** (1 / 3), scale_atoms=True)
        ase = np.mean([compute_means(atoms, ENGINE, "ase", 600.0, 100.0, 2.0, seed) for seed in (1, 2, 3)], axis=0)
        lammps = np.mean(
            [compute_means(atoms, NATIVE, "lammps", 600.0, 100.0, 20.0, seed) for seed in (1, 2, 3)], axis=0
        )
        assert ase[0] == pytest.approx(lammps[0], abs=60.0)
        assert ase[1] == pytest.approx(lammps[1], abs=0.003)  # 100 kbar are 0.03

    @pytest.mark.slow
    @pytest.mark.parametrize(("periodic", "tolerance"), [(0, 0.5), (2, 15.0), (3, 15.0)])
    def test_small_system_has_the_same_temperature_in_ase_and_lammps(self, periodic, tolerance):
        """Equal springs are not ergodic: the temperature follows from the first one, the chains and their masses.

        At constant volume it does so whatever the velocities are; with 3N degrees of freedom it would be 14 % off.
        """
        atoms = bulk("W", cubic=True).repeat((2, 2, 1))
        atoms.pbc = np.arange(3) < periodic
        temperatures = []
        for integrator in ("ase", "lammps"):
            run, settings = MdRun(0, atoms, 500.0, 0.0, 1), ExploreSettings(integrator=integrator)
            dynamics = create_dynamics(run, MdEngine((), ("W",), Spring), settings)
            dynamics.start()
            dynamics.start_sampling()
            temperatures.append([dynamics.advance(10).temperature for _ in range(150)])
            dynamics.close()
        ase, lammps = np.array(temperatures)
        assert ase.mean() == pytest.approx(lammps.mean(), abs=tolerance)
        if not periodic:
            assert ase == pytest.approx(lammps, abs=1.0)

    def test_total_momentum_is_zero(self):
        for atoms in make_start_structures().values():
            dynamics = create_dynamics(MdRun(0, atoms, 500.0, 0.0, 1), ENGINE, ExploreSettings())
            dynamics.start()
            dynamics.start_sampling()
            assert dynamics.advance(1).temperature == pytest.approx(500.0, rel=0.1)
            dynamics.advance(20)
            assert np.abs(dynamics._atoms.get_momenta().sum(axis=0)).max() < 1e-6
            dynamics.close()

    @pytest.mark.slow
    def test_barostat_compresses_a_skewed_crystal_isotropically(self):
        """A rhombohedral cell of a cubic crystal keeps its shape, and has the volume that LAMMPS gives a cube."""
        atoms = bulk("W").repeat(2)
        settings = {"time_ps": 1.2, "interval_ps": 0.02, "temperature": 50.0}
        volumes = {}
        for pressure in (0.0, 200.0):
            result = run_trajectory(atoms, ENGINE, "ase", pressure=pressure, **settings)
            assert result.reason == ""
            cells = np.mean([frame.cell.cellpar() for frame in result.frames[25:]], axis=0)
            assert cells[3:] == pytest.approx(atoms.cell.cellpar()[3:], abs=1.0)
            assert cells[:3] / cells[:3].mean() == pytest.approx(np.ones(3), abs=0.01)
            volumes[pressure] = np.mean([frame.get_volume() for frame in result.frames[25:]]) / len(atoms)
        assert volumes[200.0] < 0.96 * volumes[0.0]
        for pressure, volume in volumes.items():
            cube = bulk("W", cubic=True).repeat(2)
            result = run_trajectory(cube, NATIVE, "lammps", pressure=pressure, **settings)
            assert volume == pytest.approx(np.mean([f.get_volume() for f in result.frames[25:]]) / len(cube), rel=0.004)

    @pytest.mark.slow
    def test_only_periodic_cell_vectors_change(self):
        structures = make_start_structures()
        for kind, fixed in (("slab", [2]), ("turned", [0]), ("wire", [0, 1]), ("cluster", [0, 1, 2])):
            result = run_trajectory(structures[kind], ENGINE, "ase", 300.0, 5.0)
            assert len(result.frames) == 2
            for frame in result.frames:
                assert np.array_equal(frame.pbc, structures[kind].pbc)
                assert np.array_equal(frame.cell[fixed], structures[kind].cell[fixed])
                moving = [axis for axis in range(3) if axis not in fixed]
                for axis in moving:
                    assert 1e-6 < np.abs(frame.cell[axis] - structures[kind].cell[axis]).max() < 2.0

    def test_stress_times_volume_is_the_virial_of_the_box(self):
        """A calculator of a slab gets a box with vacuum, whose volume times its stress is the virial."""
        atoms = slab()
        box = MdBox.from_structure(atoms)
        boxed = atoms.copy()
        boxed.set_positions(box.positions)
        boxed.set_cell(box.cell)
        boxed.pbc = True
        boxed.calc = ENGINE.calculator_factory()
        strain = 1e-4
        energies = []
        for sign in (1, -1):
            strained = boxed.copy()
            strained.set_cell(boxed.cell @ np.diag([1 + sign * strain, 1, 1]), scale_atoms=True)
            strained.calc = boxed.calc
            energies.append(strained.get_potential_energy())
        virial = (energies[0] - energies[1]) / (2 * strain)
        assert boxed.get_stress()[0] * boxed.get_volume() == pytest.approx(virial, rel=1e-3)


class TestForces:
    def test_the_same_seed_gives_the_same_frames(self):
        atoms = bulk("W", cubic=True).repeat(2)
        for integrator in ("ase", "lammps"):
            first, repeated, other_seed = (run_trajectory(atoms, ENGINE, integrator, seed=seed) for seed in (3, 3, 4))
            assert (first.reason, first.times) == (repeated.reason, repeated.times)
            for a, b in zip(first.frames, repeated.frames, strict=True):
                np.testing.assert_array_equal(a.positions, b.positions)
            assert not np.allclose(first.frames[-1].positions, other_seed.frames[-1].positions)

    def test_default_engine_suits_the_potential(self):
        atoms = bulk("W", cubic=True).repeat(2)
        for engine, integrator in ((NATIVE, "lammps"), (ENGINE, "ase")):
            default, named = (run_trajectory(atoms, engine, kind).frames[-1] for kind in (None, integrator))
            assert np.array_equal(default.positions, named.positions)

    def test_ase_runs_lammps_commands(self):
        atoms = slab()
        lines, calculator = (run_trajectory(atoms, engine, "ase") for engine in (NATIVE, ENGINE))
        assert calculator.frames[-1].positions == pytest.approx(lines.frames[-1].positions, abs=1e-9)

    @pytest.mark.parametrize("kind", ["d2", "d3"])
    def test_dispersion_is_added(self, kind):
        """One step, from energies of both parts by themselves; tungsten has no D2, carbon has."""
        atoms = bulk("C", cubic=True)
        atoms.rattle(0.05, seed=1)
        lines = format_dispersion_commands(kind, ["C"])
        carbon = ("pair_style lj/cut 4.0", "pair_coeff * * 0.05 1.4")
        engine = MdEngine((), ("C",), partial(lammps_calculator, carbon, ("C",)))
        summed = add_dispersion(engine, kind)
        frames = {}
        for integrator in ("ase", "lammps"):
            frames[integrator] = run_trajectory(atoms, summed, integrator, time_ps=0.005, interval_ps=0.005).frames[-1]
            dynamics = create_dynamics(MdRun(0, atoms, 300.0, 0.0, 3), summed, ExploreSettings(integrator=integrator))
            dynamics.start()
            dynamics.start_sampling()
            snapshot = dynamics.advance(2)
            dynamics.close()
            parts = []
            for part in (carbon, lines):
                snapshot.atoms.calc = lammps_calculator(part, ("C",))
                parts.append(snapshot.atoms.get_potential_energy())
            assert snapshot.energy == pytest.approx(sum(parts), abs=1e-6)
            assert abs(parts[1]) > 0.1
        native = run_trajectory(atoms, add_dispersion(MdEngine(carbon, ("C",)), kind), "lammps",
                            time_ps=0.005, interval_ps=0.005).frames[-1]  # fmt: skip
        assert frames["lammps"].positions == pytest.approx(native.positions, abs=1e-6)
        assert frames["lammps"].cell[:] == pytest.approx(native.cell[:], abs=1e-6)

    def test_record_identifies_the_potential(self):
        assert _replace_paths_with_digests(NATIVE) == [word for line in EAM for word in line.split()]
        assert _replace_paths_with_digests(ENGINE) != _replace_paths_with_digests(replace(ENGINE, digest="other"))
        assert isinstance(ENGINE.calculator_factory(), Calculator)
        assert add_dispersion(ENGINE, "none") is ENGINE


class TestFailures:
    @pytest.mark.parametrize("integrator", ["ase", "lammps"])
    def test_exception_of_the_calculator_is_the_reason(self, integrator):
        engine = MdEngine((), ("W",), partial(Spring, fails_at=75))
        result = run_trajectory(bulk("W", cubic=True).repeat(2), engine, integrator)
        assert result.reason == "the machine is on fire"
        assert result.times == pytest.approx([0.05, 0.068], abs=0.012)  # and what came last before

    @pytest.mark.parametrize("integrator", ["ase", "lammps"])
    def test_exception_of_the_calculator_factory_is_the_reason(self, integrator):
        def broken():
            raise RuntimeError("no such model")

        result = run_trajectory(bulk("W", cubic=True), MdEngine((), ("W",), broken), integrator)
        assert (result.reason, result.frames) == ("no such model", [])

    @pytest.mark.parametrize("integrator", ["ase", "lammps"])
    def test_exploding_system_ends_early_with_its_frames(self, integrator):
        """Springs that push: distances grow without end."""
        atoms = bulk("W", cubic=True).repeat(2)
        engine = MdEngine((), ("W",), partial(Spring, stiffness=-30.0))
        result = run_trajectory(atoms, engine, integrator, time_ps=5.0)
        assert result.reason.startswith(("the temperature reached", "atoms came closer"))
        assert 1 <= len(result.frames) < 20
        assert all(np.isfinite(frame.positions).all() for frame in result.frames)

    @pytest.mark.parametrize("integrator", ["ase", "lammps"])
    def test_infinite_forces_stop_the_trajectory(self, integrator):
        atoms = bulk("W", cubic=True).repeat(2)
        result = run_trajectory(atoms, MdEngine((), ("W",), partial(Spring, stiffness=np.nan)), integrator)
        assert "not finite" in result.reason or "infs or NaNs" in result.reason
        assert result.frames == []

    @pytest.mark.parametrize("integrator", ["ase", "lammps"])
    def test_expanding_box_is_stopped(self, integrator):
        engine = MdEngine((), ("W",), partial(Spring, modulus=0.0))
        result = run_trajectory(bulk("W", cubic=True).repeat(2), engine, integrator, pressure=-500.0, time_ps=5.0)
        assert result.reason.startswith("the volume reached")

    @pytest.mark.slow
    def test_hot_start_structure_is_cooled(self):
        """At "0 K" the chains' masses are tiny, and the heat that is in a distorted start large."""
        atoms = bulk("W", cubic=True).repeat(3)
        atoms.rattle(0.2, seed=2)
        result = run_trajectory(atoms, ENGINE, "ase", temperature=0.0, time_ps=0.5, interval_ps=0.5)
        assert result.reason == ""
        calculator = SumCalculator([ENGINE.calculator_factory()])
        cooled = result.frames[-1]
        cooled.calc, atoms.calc = calculator, ENGINE.calculator_factory()
        assert cooled.get_potential_energy() < atoms.get_potential_energy() - 5
