"""A journal of arrays gives back what was finished, and nothing that is incomplete, changed or of other inputs."""

import numpy as np
import pytest

from paretofit import InputError
from paretofit.core import ArrayJournal


def stored(path, digest="a"):
    with ArrayJournal(path, digest) as journal:
        return list(journal.read())


@pytest.fixture
def journal_path(tmp_path):
    path = tmp_path / "x.partial"
    with ArrayJournal(path, "a") as journal:
        for k in range(3):
            journal.append([np.full((2, 3), k), np.array([k], dtype=np.int8)])
    return path


def test_results_are_read_back(journal_path):
    results = stored(journal_path)
    assert [int(result[1][0]) for result in results] == [0, 1, 2]
    assert results[2][0].tolist() == [[2] * 3] * 2
    assert results[0][1].dtype == np.int8


@pytest.mark.parametrize("n_removed", [1, 100, 700])
def test_an_incomplete_end_is_removed(journal_path, n_removed):
    content = journal_path.read_bytes()
    journal_path.write_bytes(content[:-n_removed])
    n_read = len(stored(journal_path))
    assert n_read < 3
    with ArrayJournal(journal_path, "a") as journal:
        assert len(list(journal.read())) == n_read
        for k in range(n_read, 3):
            journal.append([np.full((2, 3), k), np.array([k], dtype=np.int8)])
    assert journal_path.read_bytes() == content


def test_changed_bytes_end_the_readable_part(journal_path):
    content = bytearray(journal_path.read_bytes())
    content[len(content) // 2] ^= 1
    journal_path.write_bytes(content)
    assert len(stored(journal_path)) == 1


def test_other_inputs_start_again(journal_path):
    assert stored(journal_path, "b") == []
    assert stored(journal_path, "a") == []


def test_a_second_process_is_refused(journal_path):
    with ArrayJournal(journal_path, "a"), pytest.raises(InputError, match="another run is using"):
        ArrayJournal(journal_path, "a")
