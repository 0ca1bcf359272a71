"""Trust in networks: nothing is unpickled that was not trained here, unless the user permits it."""

import json
import os
import pickle
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk

from paretofit.commands import evaluate_dataset, evaluate_md_speed, validate_potential
from paretofit.core import InputError, hash_file, import_calculator, write_json_with_digest
from paretofit.potentials import MacePotential, read_potential
from paretofit.potentials.mace import MaceSettings, model_trust
from paretofit.potentials.mace.training_member import MemberTraining


class Payload:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch '{self.path}'",)


@pytest.fixture
def stranger(tmp_path):
    """A folder whose network runs a program when it is loaded, with correct digests."""
    folder = tmp_path / "potential"
    folder.mkdir()
    (folder / "member_0.model").write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    record = {"version": 1, "models": ["member_0.model"], "elements": ["Cu"], "device": "cpu", "dtype": "float32",
              "sha256": [hash_file(folder / "member_0.model")]}  # fmt: skip
    (folder / "mace.json").write_text(json.dumps(record))
    bulk("Cu", cubic=True).write(tmp_path / "cu.extxyz")
    return folder


def edit_record(folder: Path, **changes: object) -> None:
    record = json.loads((folder / "mace.json").read_text())
    (folder / "mace.json").write_text(json.dumps({**record, **changes}))


def list_readers(folder: Path) -> list[object]:
    cu = folder.parent / "cu.extxyz"
    return [
        lambda **options: MacePotential.read(folder, **options),
        lambda **options: MacePotential.read(folder / "mace.json", **options),
        lambda **options: read_potential(folder, **options),
        lambda **options: evaluate_dataset(folder, cu, **options),
        lambda **options: evaluate_md_speed(folder, cu, **options),
        lambda **options: validate_potential(folder, folder.parent / "v", structures=[cu], **options),
        lambda **options: validate_potential(
            "ase.calculators.emt.EMT", folder.parent / "v", against=folder, structures=[cu], **options
        ),
    ]


@pytest.mark.parametrize("k", range(7))
@pytest.mark.parametrize("signature", [None, "", "0" * 64, 7, []])
def test_networks_of_others_are_refused_by_every_reader(k, signature, stranger):
    edit_record(stranger, signature=signature)
    with pytest.raises(InputError, match="allow-pickle"):
        list_readers(stranger)[k]()
    assert not (stranger.parent / "executed").exists()


@pytest.mark.parametrize("k", range(7))
def test_networks_of_others_are_loaded_with_permission(k, stranger):
    reader = list_readers(stranger)[k]
    if k < 3:
        assert reader(allow_pickle=True).elements == ("Cu",)
    else:
        with pytest.raises(InputError, match=r"cannot be loaded as a MACE model|not installed"):
            reader(allow_pickle=True)


def test_signed_networks_are_read_until_they_change(stranger, monkeypatch, tmp_path):
    MacePotential.read(stranger, allow_pickle=True).write(stranger)  # signs them
    assert read_potential(stranger).models == (stranger / "member_0.model",)
    moved = stranger.rename(stranger.with_name("moved"))
    read_potential(moved)
    with monkeypatch.context() as context:
        context.setenv("XDG_DATA_HOME", str(tmp_path / "another user"))
        with pytest.raises(InputError, match="not trained by this user"):
            read_potential(moved)
    (moved / "member_0.model").write_bytes(b"another")
    with pytest.raises(InputError, match="other digests than its networks"):
        read_potential(moved)
    edit_record(moved, sha256=[hash_file(moved / "member_0.model")])
    with pytest.raises(InputError, match="not trained by this user"):
        read_potential(moved)


def test_key_is_private_and_replaced_by_a_temporary_one_where_it_cannot_be_stored(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    signature = model_trust.sign_digests(["a"])
    path = tmp_path / "data" / "paretofit" / "signing_key"
    assert path.stat().st_mode & 0o077 == 0
    assert [file.name for file in path.parent.iterdir()] == ["signing_key"]
    assert model_trust.is_signed(["a"], signature)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert not model_trust.is_signed(["a"], signature)
    assert model_trust.is_signed(["a"], model_trust.sign_digests(["a"]))


@pytest.mark.parametrize(
    "changes",
    [{"models": []}, {"models": "member_0.model"}, {"models": None}, {"models": [7]}, {"models": [""]},
     {"models": ["member_0.model"] * 2}, {"elements": []}, {"elements": ["Xx"]}, {"elements": ["X"]},
     {"elements": "Cu"}, {"elements": [29]}, {"elements": ["Cu", "Cu"]}, {"device": "tpu"}, {"dtype": "float16"},
     {"dtype": None}, {"version": 2}, {"version": "1"}],
)  # fmt: skip
def test_records_that_no_committee_has_are_refused(changes, stranger):
    edit_record(stranger, **changes)
    for allow_pickle in (False, True):
        with pytest.raises(InputError, match=r"mace\.json is not a complete MACE committee"):
            read_potential(stranger, allow_pickle=allow_pickle)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '"text"', "{}"])
def test_files_that_are_no_record_are_refused(text, stranger):
    (stranger / "mace.json").write_text(text)
    with pytest.raises(InputError, match=r"mace\.json is not a complete MACE committee"):
        read_potential(stranger)


def make_member(folder: Path, *, allow_pickle: bool = False) -> MemberTraining:
    return MemberTraining(MaceSettings(), folder / "member_0", ["1"], {}, None, ["0"], [], allow_pickle)


@pytest.mark.parametrize("is_earlier_version", [False, True])
def test_trained_members_of_others_are_refused_and_not_lost(is_earlier_version, monkeypatch, tmp_path):
    folder = tmp_path / "training"
    assert not make_member(folder).check_finished()
    (folder / "member_0.model").write_bytes(b"network")
    digest = hash_file(folder / "member_0.model")
    write_json_with_digest(
        folder / "member_0.json", {"sha256": digest, "signature": model_trust.sign_digests([digest])}
    )
    assert make_member(folder).check_finished()
    if is_earlier_version:
        inputs = json.loads((folder / "member_0" / "inputs.json").read_text())
        (folder / "member_0" / "inputs.json").write_text(json.dumps(inputs["digest"]))
    else:
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another user"))
    with pytest.raises(InputError, match="allow-pickle"):
        make_member(folder).check_finished()
    assert (folder / "member_0.model").read_bytes() == b"network"
    assert make_member(folder, allow_pickle=True).check_finished()


@pytest.mark.parametrize(
    ("name", "options"),
    [("os.system", {"command": "touch executed"}), ("subprocess.Popen", {"args": ["touch", "executed"]}),
     ("subprocess.run", {"args": ["touch", "executed"]}), ("builtins.open", {"file": "executed", "mode": "w"}),
     ("pathlib.Path", {}), ("os.environ", {}), ("os.path", {}), ("ase.build.bulk", {"name": "Cu"}),
     ("ase.Atoms", {}), ("ase.calculators.emt.parameters", {}), ("paretofit.potentials.read_potential", {})],
)  # fmt: skip
def test_names_that_are_no_calculators_are_not_called(name, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"'{name}' is not a calculator, so it is not called"):
        import_calculator(name, json.dumps(options))
    with pytest.raises(InputError, match="is not a calculator"):
        validate_potential(f"{name}:{json.dumps(options)}", tmp_path / "v", structures=["none.xyz"])
    assert not list(tmp_path.iterdir())


def test_functions_that_are_annotated_to_return_a_calculator_are_called(tmp_path, monkeypatch):
    (tmp_path / "factories_of_test.py").write_text(
        "from ase.calculators.calculator import Calculator\nfrom ase.calculators.emt import EMT\n"
        "def make() -> EMT:\n    return EMT()\n"
        "def make_named() -> 'Calculator':\n    return EMT()\n"
        "def make_untold():\n    return EMT()\n"
        "def make_broken() -> 'Missing':\n    return EMT()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("make", "make_named"):
        atoms: Atoms = bulk("Cu")
        atoms.calc = import_calculator(f"factories_of_test.{name}", "{}")
        assert atoms.get_potential_energy() < 1
    for name in ("make_untold", "make_broken"):
        with pytest.raises(InputError, match="is not a calculator"):
            import_calculator(f"factories_of_test.{name}", "{}")
    commands = {"commands": ["pair_style zero 5.0", "pair_coeff * *"], "elements": ["Cu"]}
    assert import_calculator("paretofit.lammps_calculator", json.dumps(commands)) is not None
