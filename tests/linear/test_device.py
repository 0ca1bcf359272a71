"""The reduction and the sweep by PyTorch in double precision: the numbers of NumPy and LAPACK to 1e-8 on any device.

The code is the same on a GPU and on the processor but for the device's name, so that it can be tested without a GPU.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import first_configurations
from helpers.faults import STUDY

from paretofit import DesignMatrix, InputError, SnapBasis, compute_design, run_study
from paretofit.dataset import split_configurations
from paretofit.linear.reduction import CPU, RowFactor, get_device, solve_rows, to_numpy
from paretofit.linear.reduction.linalg import (
    TorchDevice,
    add_gram,
    factorise_cholesky,
    update_qr,
)
from paretofit.study import load_study
from paretofit.sweep import FastEngine, SweepGrid, SweepInput, run_sweep

torch = pytest.importorskip("torch", reason="needs the extra gpu")
NUMBERS = ["train_energy", "train_force", "test_energy", "test_force", "ref_energy", "ref_force", "ref_energy_shifted"]
NAMES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture(scope="module")
def real(beryllium, tmp_path_factory):
    path = tmp_path_factory.mktemp("device") / "design.h5"
    design = compute_design(beryllium, SnapBasis(elements=["Be"], twojmax=6), path)
    split = split_configurations(np.arange(len(beryllium)), 0.7, 1)
    return SweepInput(design.with_labels(beryllium, beryllium.levels), split.train, split.test)


@pytest.mark.parametrize("name", NAMES)
def test_operations_are_those_of_lapack(name):
    rng, device = np.random.default_rng(0), TorchDevice(name)
    A = rng.normal(size=(50, 12))
    for hardware in (CPU, device):
        G = hardware.zeros(12, 12)
        add_gram(G, hardware.put(A))
        assert np.triu(to_numpy(G)) == pytest.approx(np.triu(A.T @ A), rel=1e-12)
        R, valid = factorise_cholesky(G)
        assert valid == 12
        assert np.abs(np.triu(to_numpy(R))) == pytest.approx(np.abs(np.triu(np.linalg.qr(A)[1])), abs=1e-12)
        U = to_numpy(solve_rows(R, hardware.put(A)))
        assert pytest.approx(np.eye(12), abs=1e-12) == U.T @ U
        T = np.triu(to_numpy(update_qr(hardware.zeros(12, 12), hardware.put(A[:5]))))
        assert pytest.approx(A[:5].T @ A[:5], abs=1e-12) == T.T @ T
        T = np.triu(to_numpy(update_qr(hardware.put(np.asfortranarray(T)), hardware.put(A[5:]))))
        assert pytest.approx(A.T @ A, abs=1e-12) == T.T @ T


@pytest.mark.parametrize("name", NAMES)
def test_factors_grow_by_gram_matrices(name):
    rows = np.random.default_rng(0).normal(size=(200, 12))
    rows[:, 0] = 0.0  # as a constant in force rows
    for device in (CPU, TorchDevice(name)):
        factor = RowFactor(12, device, n_targets=2)
        factor.grow(device.put(rows[:60]))
        factor.convert_to_gram()
        assert factor.is_gram
        factor.grow(device.put(rows[60:]))
        assert factor.is_accurate()
        triangle = np.triu(to_numpy(factor.get_triangle()))
        assert triangle.T @ triangle == pytest.approx(rows.T @ rows, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_a_singular_leading_block_is_found(name):
    A = np.random.default_rng(0).normal(size=(30, 5))
    A[:, 3] = 0
    for hardware in (CPU, TorchDevice(name)):
        G = hardware.zeros(5, 5)
        add_gram(G, hardware.put(A))
        assert factorise_cholesky(G)[1] == 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factors", [{}, {"ridge": [0.0, 1e-3], "leave_one_out": True}])
def test_a_sweep_has_the_same_errors(real, name, factors, monkeypatch):
    """Also where the rank is deficient, and where rows come from the file a few at a time."""
    grid = SweepGrid(
        ["2", "5"], [2, 4, 6], [(1.0, 1.0), (150.0, 1.0)], [12, 60, 138], ["random", "leverage"], 2, **factors
    )
    expected = run_sweep(real, grid)
    monkeypatch.setattr(DesignMatrix, "load_into_memory", lambda self, *_: self)
    monkeypatch.setattr("paretofit.sweep.row_stream.BLOCK_BYTES", 1 << 18)
    table = run_sweep(real, grid, engine=FastEngine(real, grid, device=TorchDevice(name)))
    assert table["solver"].equals(expected["solver"])
    assert set(table["solver"]) == {"factor", "rank-revealing"}
    # Fits of minimum norm to a few configurations are sensitive to rounding.
    sensitivity = np.where(expected["solver"] == "factor", 0.0, 1e-15 * expected["condition"])
    for column in NUMBERS:
        ours, theirs = table[column].to_numpy(), expected[column].to_numpy()
        assert (np.abs(ours - theirs) <= np.maximum(1e-8, sensitivity) * theirs + 1e-9).all(), column
    # Leave-one-out residuals of small subsets are hardly determined.
    determined = ((expected["solver"] == "factor") & (expected["n_train"] >= 60)).to_numpy()
    for column in ["loo_energy", "loo_ref_force"] if factors else []:
        ours, theirs = table[column].to_numpy()[determined], expected[column].to_numpy()[determined]
        assert ours == pytest.approx(theirs, rel=1e-8, nan_ok=True), column


@pytest.mark.parametrize("name", NAMES)
def test_scores_and_dropped_columns_are_the_same(real, name):
    rows = real.design.read_all_rows()
    doubled = DesignMatrix.from_arrays(
        np.column_stack([rows, rows[:, 5] - 2 * rows[:, 9]]),
        real.design.kind,
        real.design.ids[real.design.configuration],
        targets=real.design.targets,
        column_levels=[*real.design.column_levels, 6],
    )
    data, grid = replace(real, design=doubled), SweepGrid(["5"], [6], [(12.0, 1.0)], [100])
    ours, reference = (FastEngine(data, grid, device=device) for device in (TorchDevice(name), CPU))
    assert ours.dropped_columns == reference.dropped_columns != []
    assert ours.scores.block == pytest.approx(reference.scores.block, rel=1e-8)
    assert ours.scores.regular == pytest.approx(reference.scores.regular, rel=1e-8)


def test_fits_of_another_device_are_not_reused(real, tmp_path):
    """They differ from the ninth digit on, and a file of results has those of one device."""
    grid = SweepGrid(["5"], [4], [(12.0, 1.0)], [60])
    numpy_engine, torch_engine = FastEngine(real, grid), FastEngine(real, grid, device=TorchDevice("cpu"))
    expected = run_sweep(real, grid, engine=torch_engine)
    run_sweep(real, grid, journal=tmp_path, engine=numpy_engine)
    run_sweep(real, grid, journal=tmp_path, engine=torch_engine)
    assert len(list(tmp_path.glob("sweep-*.jsonl"))) == 2
    pd.testing.assert_frame_equal(
        run_sweep(real, grid, journal=tmp_path, engine=torch_engine), expected, check_exact=True
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_study_on_a_gpu(tmp_path):
    text = STUDY.format(dataset=first_configurations(), repetitions=2)
    tables = []
    for name in ("cpu", "cuda"):
        (tmp_path / f"{name}.yaml").write_text(text + f"device: {name}\n")
        tables.append(run_study(tmp_path / f"{name}.yaml", out=tmp_path / name).results)
    assert tables[1]["test_force"].to_numpy() == pytest.approx(tables[0]["test_force"].to_numpy(), rel=1e-8)


class TestErrors:
    def write_study(self, folder, **changes):
        content = {**yaml.safe_load(STUDY.format(dataset=first_configurations(), repetitions=1)), **changes}
        (folder / "s.yaml").write_text(yaml.safe_dump(content))
        return folder / "s.yaml"

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_without_a_gpu(self, tmp_path):
        with pytest.raises(InputError, match="'device: cuda' requires a GPU, and .*; set 'device: cpu'"):
            run_study(self.write_study(tmp_path, device="cuda"), out=tmp_path / "run")
        assert not (tmp_path / "run").exists(), "before anything is spent"

    def test_without_torch(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        with pytest.raises(InputError, match=r"pip install 'paretofit\[gpu\]'"):
            get_device("cuda")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"device": "gpu"}, "'device'"),
            ({"device": "cuda", "cluster": "local"}, "remove 'cluster'"),
            ({"device": "cuda", "engine": "plain"}, "'plain' fits on the CPU"),
        ],
    )
    def test_conflicting_settings_are_refused(self, tmp_path, changes, message):
        with pytest.raises(InputError) as error:
            load_study(self.write_study(tmp_path, **changes))
        assert message in str(error.value)

    def test_a_gpu_that_is_too_small(self, real, monkeypatch):
        monkeypatch.setattr("paretofit.core.memory.MIN_CHECKED_BYTES", 0)
        monkeypatch.setattr(TorchDevice, "get_available_memory", lambda _: 1000)
        grid = SweepGrid(["5"], [6], [(1.0, 1.0)], [100])
        with pytest.raises(InputError, match="factors of 496 columns need about .* of the GPU's memory, and 1e-06 GB"):
            FastEngine(real, grid, device=TorchDevice("cpu"))
