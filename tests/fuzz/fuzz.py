"""Coverage-guided fuzzing of the readers of files; not part of the test suite.

atheris calls a reader with files that reach more and more of its code. The reader must return or raise an InputError.
Any other error, and more than ten seconds or 4 GB, stop the search, and the file is stored as ``crash-*``,
``timeout-*`` or ``oom-*``. In a separate environment with paretofit and the extra `test`::

    pip install atheris
    python tests/fuzz/fuzz.py study -max_total_time=120
    python tests/fuzz/fuzz.py study crash-0123...        # repeats a single file

The kinds of files are those of ``tests/helpers/hostile.py``: study, levels, extxyz, vasprun, outcar, fitsnap_json,
fitsnap_input, ase_json, ase_db, traj, dataset, design, committee and csv. Each error gets a short test in
``tests/robustness/test_hostile.py``. A corrupt HDF5 file can also end in a signal inside the HDF5 library, which is not
an error of paretofit.
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
    """Fuzz the reader of one kind of file, starting from a valid file."""
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{kind}-"))
    (folder / "valid").mkdir()
    (folder / "valid" / "0").write_bytes(hostile.valid(kind))

    def read_content(content: bytes) -> None:
        with suppress(InputError):
            hostile.feed(kind, content, folder)

    files = [option for option in options if not option.startswith("-")]
    corpus = [] if files else [str(folder / "valid")]
    atheris.Setup([sys.argv[0], *LIMITS, *options, *corpus], read_content)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
