"""The digest of properties, by which a resumed sweep recognises its finished fits."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paretofit.properties import LinearProperty, PropertyRows
from paretofit.properties.linear_property import return_numbers
from paretofit.properties.property_kinds import EquationOfState, RelaxedConstant

FORMULAS = {
    "linear": return_numbers,
    "volume": EquationOfState("V0", 0.2, 0.01),
    "modulus": EquationOfState("B", 0.2, 0.01),
    "other range": EquationOfState("B", 0.2, 0.02),
    "relaxed": RelaxedConstant(3, 16.0),
}


def build_rows(formula=return_numbers, reference=1.0, rows=((1.0, 2.0),)):
    items = [LinearProperty("d", "eV", [], formula), LinearProperty("e", "eV", [], FORMULAS["volume"])]
    return PropertyRows([item.with_reference(reference) for item in items], np.array(rows))


def test_the_digest_is_the_same_in_every_process():
    code = f"import {Path(__file__).stem} as test; print(test.build_rows().compute_digest())"
    command, folder = [sys.executable, "-c", code], Path(__file__).parent
    outputs = [subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True) for _ in range(2)]
    assert {item.stdout.strip() for item in outputs} == {build_rows().compute_digest()}


def test_the_digest_depends_on_rows_references_and_formulas():
    variants = [build_rows(formula) for formula in FORMULAS.values()]
    variants += [build_rows(reference=2.0), build_rows(rows=[[1.0, 3.0]]), build_rows(rows=[[1.0], [2.0]])]
    variants.append(PropertyRows([replace(item, reference=None) for item in variants[0].properties], variants[0].rows))
    assert len({variant.compute_digest() for variant in variants}) == len(variants)


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
def test_equal_formulas_have_equal_digests(formula):
    copy = formula if formula is return_numbers else replace(formula)
    assert build_rows(copy).compute_digest() == build_rows(formula).compute_digest()
