"""The examples in docstrings are true."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["descriptors.basis", "linear.wls", "linear.sampling", "dataset.dataset"])
def test_examples(name):
    result = doctest.testmod(import_module(f"paretofit.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
