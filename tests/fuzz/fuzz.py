"""Coverage-guided fuzzing of whatever reads a file; no part of the tests.

atheris feeds a reader with files that reach ever more of its code. The reader must come back or raise an InputError;
anything else, more than ten seconds and more than 4 GB stop the search, and the file is kept as ``crash-*``,
``timeout-*`` or ``oom-*``. In an environment of its own, with paretofit and its tests' packages::

    pip install atheris
    python tests/fuzz/fuzz.py study -max_total_time=120
    python tests/fuzz/fuzz.py study crash-0123...        # that one file again

The kinds are those of ``tests/hostile.py``: study, levels, extxyz, vasprun, outcar, fitsnap_json, fitsnap_input,
ase_json, ase_db, traj, dataset, design, committee and csv. What is found gets a test of a few lines in
``tests/test_hostile.py``. Damaged HDF5 also ends in HDF5 itself, with a signal: that is not ours.
"""

import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["paretofit", "ase.io", "ase.db", "ruamel.yaml", "configparser"]):
    from helpers import hostile

from paretofit import InputError

LIMITS = ["-timeout=10", "-rss_limit_mb=4096", "-close_fd_mask=0"]


def main(kind: str, *options: str) -> None:
    """Fuzz the reader of one kind, beginning with a valid file."""
    warnings.simplefilter("ignore")
    place = Path(tempfile.mkdtemp(prefix=f"fuzz-{kind}-"))
    (place / "valid").mkdir()
    (place / "valid" / "0").write_bytes(hostile.valid(kind))

    def one(content: bytes) -> None:
        with suppress(InputError):
            hostile.feed(kind, content, place)

    files = [option for option in options if not option.startswith("-")]
    atheris.Setup([sys.argv[0], *LIMITS, *options, *([] if files else [str(place / "valid")])], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
