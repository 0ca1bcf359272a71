"""From configurations to rows: the SNAP basis, its LAMMPS adapter, and the design matrix."""

from paretofit.descriptors.basis import SnapBasis
from paretofit.descriptors.compute import compute_design
from paretofit.descriptors.design import DesignMatrix
from paretofit.descriptors.design_file import Block
from paretofit.descriptors.rows import configuration_rows
from paretofit.kinds import RowKind

__all__ = ["Block", "DesignMatrix", "RowKind", "SnapBasis", "compute_design", "configuration_rows"]
