"""MACE networks next to quadratic SNAP on the shipped beryllium data: errors, costs and error estimates.

The study `studies/mace_beryllium.yaml`, whole: every network trains on the configurations of a linear model, less a
tenth, and is judged on the same test set.
"""

from __future__ import annotations

import importlib.util

import pandas as pd
from common import ROOT, Options, Skip, Table

from paretofit import run_study
from paretofit.potentials.mace import MaceSettings
from paretofit.study import load_study

KINDS = {"energy (meV/atom)": "energies, meV/atom", "force (meV/Å)": "forces, meV/Å"}


def run(options: Options) -> list[Table]:
    """Compute both tables."""
    if importlib.util.find_spec("mace") is None:
        raise Skip("the extra 'mace' is not installed")
    study = load_study(ROOT / "studies" / "mace_beryllium.yaml")
    if options.quick:
        short = {name: MaceSettings(preset=name, members=2, epochs=2) for name in ("tiny",)}
        study = study.model_copy(update={"mace": study.mace.model_copy(update={"models": short, "sizes": [100]})})
    run_result = run_study(study, out=options.work / "mace", jobs=options.cores, progress=True)
    networks = pd.read_csv(run_result.folder / "mace.csv", dtype={"level": str})
    return [_errors(networks, run_result.results), _committees(run_result.folder)]


def _errors(networks: pd.DataFrame, results: pd.DataFrame) -> Table:
    """A row for each network, with the linear model of the lowest force error on the same configurations."""
    table = Table(
        "Errors on the test set against level 5, and costs; in brackets the best linear model in forces, 5 draws",
        ["level", "n", "network", "energy, meV/atom", "forces, meV/Å", "MD, µs/atom/step", "training, min"],
    )
    linear = results.groupby(["level", "n_train", "twojmax", "w_energy"], as_index=False).median(numeric_only=True)
    for _, network in networks.iterrows():
        linear_fits = linear[
            (linear["level"].astype(str) == network["level"]) & (linear["n_train"] == network["n_train"])
        ]
        best = linear_fits.sort_values("ref_force").iloc[0]
        table.add(
            network["level"], network["n_train"], network["model"],
            f"{network['ref_energy']:.1f} ({best['ref_energy']:.1f})",
            f"{network['ref_force']:.1f} ({best['ref_force']:.1f})",
            f"{network['md_us_per_atom_step']:.0f} ({best['md_us_per_atom_step']:.0f}, 2Jmax {best['twojmax']:.0f})",
            f"{network['train_seconds'] / 60:.1f}",
        )  # fmt: skip
    return table


def _committees(folder: object) -> Table:
    """Correlation of disagreement with errors; each half of the test set calibrates the other."""
    table = Table(
        "Committees of two networks, and bootstrap committees of eight linear models, trained on level 5",
        ["n", "committee", "of", "RMSE", "spread", "rank correlation", "in 90 % intervals", "median half width"],
    )
    rows = pd.read_csv(f"{folder}/mace_calibration.csv", dtype={"level": str})
    for _, row in rows[(rows["level"] == "5") & rows["quantity"].isin(KINDS)].iterrows():
        table.add(
            row["n_train"], row["model"], KINDS[row["quantity"]], f"{row['rmse']:.1f}", f"{row['spread']:.1f}",
            f"{row['rank_correlation']:.2f}", f"{row['inside']:.3f}", f"{row['half_width']:.0f}",
        )  # fmt: skip
    return table
