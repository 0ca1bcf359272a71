from .commands import augment_study as augment_study
from .commands import evaluate_dataset as evaluate_dataset
from .commands import fit_dataset as fit_dataset
from .commands import learn as learn
from .commands import plan as plan
from .commands import select_structures as select_structures
from .core import InputError as InputError
from .core import lammps_calculator as lammps_calculator
from .dataset import Dataset as Dataset
from .descriptors import DesignMatrix as DesignMatrix
from .descriptors import SnapBasis as SnapBasis
from .descriptors import compute_design as compute_design
from .linear import Reduction as Reduction
from .linear import fit_wls as fit_wls
from .linear import leverage_scores as leverage_scores
from .linear import sample_configurations as sample_configurations
from .pareto import pareto_front as pareto_front
from .study import Study as Study
from .study import run_study as run_study

__version__: str
