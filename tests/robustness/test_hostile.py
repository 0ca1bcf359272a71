"""What people hand in, broken in every way: readers come back, or refuse it in one sentence; nothing else.

Longer searches are in `tests/fuzz`; what they found is below, as a file of a few lines each.
"""

import json

import numpy as np
import pytest
from ase import Atoms
from helpers import hostile
from helpers.hostile import HDF5, READERS, feed, refused, study_content, valid, yaml_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paretofit import InputError
from paretofit.core import import_calculator, read_yaml
from paretofit.dataset import LevelData, import_dataset, write_dataset
from paretofit.dataset.io import read_frames
from paretofit.dataset.quality import has_close_atoms
from paretofit.pareto import read_table
from paretofit.study import load_study

FEW = settings(
    max_examples=40, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
TOKENS = [
    *(
        b"NaN",
        b"inf",
        b"-1",
        b"99999999999",
        b"1e400",
        b"9" * 5000,
        b"0x" + b"f" * 9000,
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
    ),
    *(
        b"../",
        b"null",
        b"{}",
        b"[]",
        b'"',
        b"[",
        b"{",
        b"\n",
        b"%",
        b": ",
        b"&a ",
        b"*a ",
        b"!!python/object:os.system ",
    ),
    *(b"<!DOCTYPE a>", b"<", b"=", b"true", b"2001-01-01", b":R:99999999999"),
]
EDITS = ["flip", "insert", "replace", "delete", "copy", "cut"]
EDIT = st.tuples(st.sampled_from(EDITS), st.floats(0, 1), st.floats(0, 1), st.sampled_from(TOKENS), st.integers(0, 255))


def accepts_or_refuses(kind, content, folder):
    message = ""
    try:
        feed(kind, content, folder)
    except InputError as error:
        message = str(error)
    assert "\n" not in message


def edited(content, edits):
    changed = bytearray(content)
    for case, first, second, token, byte in edits:
        at, length = int(first * max(len(changed) - 1, 0)), 1 + int(second * 40)
        if case == "flip" and changed:
            changed[at] = byte
        elif case == "cut":
            del changed[at:]
        elif case == "copy":
            changed[at:at] = changed[int(second * len(changed)) :][:length]
        elif case != "flip":
            changed[at : at + (0 if case == "insert" else length)] = b"" if case == "delete" else token
    return bytes(changed)


@pytest.mark.parametrize("kind", sorted(READERS))
def test_every_reader_takes_a_valid_file(kind, tmp_path):
    feed(kind, valid(kind), tmp_path)


@pytest.mark.parametrize("kind", sorted(set(READERS) - set(HDF5)))
@given(edits=st.lists(EDIT, min_size=1, max_size=4))
@FEW
def test_damaged_text_is_read_or_refused(kind, edits, tmp_path):
    accepts_or_refuses(kind, edited(valid(kind), edits), tmp_path)


@pytest.mark.parametrize("kind", sorted(READERS))
@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\n", b"\0" * 64, b"\xff\xfe\x00", b"[" * 5000),
        *(pytest.param(content, marks=pytest.mark.slow) for content in (b"{" * 5000, b"- " * 3000)),
    ],
)
def test_what_is_no_such_file_at_all_is_refused(kind, content, tmp_path):
    accepts_or_refuses(kind, content, tmp_path)


# The study.

ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from([2**70, "../x", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


def places(content, path=()):
    """Keys and indices that lead to everything in nested lists and mappings."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


@pytest.mark.slow
@given(data=st.data())
@settings(FEW, max_examples=250)
def test_any_change_of_a_study_is_read_or_refused(data, tmp_path):
    content = study_content()
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(list(places(content))))
        where = content
        for key in way:
            where = where[key]
        case = data.draw(st.sampled_from(["value", "value", "remove", "nest", "rename"]))
        value = where[last]
        if case == "remove":
            del where[last]
        elif case == "rename" and isinstance(where, dict):
            where[data.draw(st.text(max_size=8))] = where.pop(last)
        else:
            where[last] = [value] if case == "nest" else data.draw(ODD)
    accepts_or_refuses("study", yaml_text(content).encode("utf-8", "surrogatepass"), tmp_path)


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 60))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS + "dataset: d.h5\nweights: *a59\n", "aliases"),
        ("dataset: d.h5\nweights: &a [*a]\n", "aliases"),
        ("dataset: a\ndataset: b\n", "duplicate key"),
        ("dataset: !!python/object/apply:os.system [exit]\n", "tag"),
        ("dataset: d.h5\ntwojmax: [0x" + "f" * 9000 + "]\n", "too long"),
        ("dataset: d.h5\ntwojmax: [" + "9" * 9000 + "]\n", "4300 digits"),
        ("? [a, b]\n: 1\n", "'dataset' is missing"),
        ("2001-13-45: 1\n", "month"),
        ("- 1\n", "keys and values"),
        ("\tdataset: d.h5\n", "not valid YAML"),
        ("dataset: d.h5\nbasis: {elements: [Be]}\nsplit: {seed: .nan}\n", "split.seed"),
        ("dataset: d.h5\nbasis: {elements: [Be]}\nweights: [.inf]\n", "weights"),
    ],
)
def test_yaml_that_is_meant_to_hurt(text, message, tmp_path):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_study(tmp_path / "s.yaml")
    assert len(str(caught.value)) < 600


def test_a_byte_order_mark_is_not_part_of_a_study(tmp_path):
    (tmp_path / "s.yaml").write_text(yaml_text(study_content()), encoding="utf-8-sig")
    assert load_study(tmp_path / "s.yaml").name == study_content()["name"]


# What fuzzing found in structures.


@pytest.mark.parametrize("bad", ["nan", "inf", "1e300"])
def test_structures_of_no_finite_size_are_refused_before_they_are_compared(bad, tmp_path):
    """LAPACK does not return from a pseudo-inverse of such a cell."""
    path = tmp_path / "a.extxyz"
    path.write_text(hostile.XYZ.replace("3.3 0 0 0 3.5", f"{bad} 0 0 0 3.5"))
    assert "structure 0" in refused(import_dataset, tmp_path / "o.h5", {"a": path})
    content = json.loads(valid("fitsnap_json").decode().partition("\n")[2])
    content["Dataset"]["Data"][0]["Lattice"][1][1] = float(bad)
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert "structure 0" in refused(import_dataset, tmp_path / "o.h5", {"a": tmp_path / "a.json"})


def test_a_number_too_large_for_a_float_is_refused(tmp_path):
    text = valid("fitsnap_json").decode().replace("-10.0", "1" + "0" * 400)
    (tmp_path / "a.json").write_text(text)
    assert "'Energy'" in refused(import_dataset, tmp_path / "o.h5", {"a": tmp_path / "a.json"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("2\nLattice", "299999999999\nLattice"), "middle of a structure"),
        (("2\nLattice", "+299999999999\nLattice"), "middle of a structure"),
        (("forces:R:3", "forces:R:399999999999"), "columns"),
    ],
)
def test_claims_of_an_xyz_file_are_not_believed(change, message, tmp_path):
    """ASE would read on behind the end of the file, or make as many columns."""
    (tmp_path / "a.extxyz").write_text(hostile.XYZ.replace(*change))
    assert message in refused(import_dataset, tmp_path / "o.h5", {"a": tmp_path / "a.extxyz"})


def test_a_cell_far_too_small_is_seen_without_a_list_of_all_its_neighbours():
    assert has_close_atoms(Atoms("Be2", positions=np.zeros((2, 3)), cell=[2, 2, 1e-5], pbc=True))
    assert has_close_atoms(Atoms("Be", cell=[[1000, 0, 0], [1000, 1e-3, 0], [0, 0, 9]], pbc=True))
    assert has_close_atoms(Atoms("Be20000", positions=np.zeros((20000, 3))))
    assert not has_close_atoms(Atoms("Be", cell=[[90, 0, 0], [90, 3, 0], [0, 0, 3]], pbc=[True, True, False]))
    assert not has_close_atoms(Atoms("Be"))


def test_atomic_numbers_are_those_of_elements(tmp_path):
    strange = Atoms([4, 1000], positions=np.eye(3)[:2])
    strange.write(tmp_path / "a.traj")
    assert "invalid atomic numbers" in refused(read_frames, tmp_path / "a.traj", None)
    assert "invalid atomic numbers" in refused(write_dataset, tmp_path / "o.h5", [strange], {})
    placeholder = Atoms("BeX", positions=np.eye(3)[:2])  # ASE gives "X" the number 0
    assert "they must be 1 to 118" in refused(write_dataset, tmp_path / "o.h5", [placeholder], {})


def test_a_file_is_read_under_its_own_name(tmp_path):
    """ASE takes what follows an @ for the structures that are wanted of another file."""
    (tmp_path / "a").write_text("no structure")
    (tmp_path / "a@0.extxyz").write_text(hostile.XYZ)
    (tmp_path / "OUTCAR").write_text("no structure")
    (tmp_path / "OUTCAR@1").write_bytes(valid("outcar"))
    assert len(read_frames(tmp_path / "a@0.extxyz", None).atoms) == 1
    assert len(read_frames(tmp_path / "OUTCAR@1", None).atoms) == 1


ENTITIES = '<!DOCTYPE m [<!ENTITY x "ha">' + "".join(
    f'<!ENTITY x{k} "{f"&x{k - 1 or str()};" * 10}">' for k in range(1, 30)
)


@pytest.mark.parametrize("head", [ENTITIES + "]>", '<!DOCTYPE m [<!ENTITY x29 SYSTEM "file:///etc/passwd">]>'])
def test_entities_of_xml_are_not_expanded(head, tmp_path):
    text = hostile.VASPRUN.replace("<modeling>", f"{head}<modeling><incar>&x29;</incar>")
    (tmp_path / "vasprun.xml").write_text(text)
    assert "vasprun.xml" in refused(import_dataset, tmp_path / "o.h5", {"a": tmp_path / "vasprun.xml"})


@pytest.mark.parametrize("value", ["a\0b", "\ud800", 2**70])
def test_settings_that_hdf5_cannot_keep_are_refused(value, tmp_path):
    levels = {"a": LevelData([None], {"functional": value})}
    assert "functional" in refused(write_dataset, tmp_path / "o.h5", [hostile.structure()], levels)
    assert not list(tmp_path.iterdir()), "no half-written file is left"


@pytest.mark.parametrize("path", [".x", "x.", "..x.y", "no.such.Thing", "json.nothing", "os.path.join.x", "a\0b.c"])
def test_calculators_that_cannot_be_imported_are_refused(path):
    assert "calculator" in refused(import_calculator, path, "{}")


def test_yaml_that_is_only_large_is_read(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a [1, 2]\nb: [*a, *a]\nc: " + str(list(range(2000))))
    assert read_yaml(tmp_path / "a.yaml")["b"] == [[1, 2], [1, 2]]


def test_carriage_returns_do_not_become_millions_of_rows(tmp_path):
    """Found by fuzzing: 95 bytes that pandas takes for 15 million rows."""
    (tmp_path / "a.csv").write_bytes(b"lev;l," + b"\r" * 61 + b"\t+" + b"\r" * 14 + b"energy,force")
    with pytest.raises(InputError, match="has 1 fields, but the header has 2"):
        read_table(tmp_path / "a.csv")
    (tmp_path / "mac.csv").write_bytes(b"level,energy\r01,2.5\r02,3\r")
    assert read_table(tmp_path / "mac.csv").to_dict("list") == {"level": ["01", "02"], "energy": [2.5, 3.0]}
