from .close_atoms import has_close_atoms as has_close_atoms
from .level_comparison import MIN_FORCE_RMSD_MEV_PER_ANGSTROM as MIN_FORCE_RMSD_MEV_PER_ANGSTROM
from .level_comparison import LevelErrors as LevelErrors
from .level_comparison import compute_level_errors as compute_level_errors
from .pairs import compute_neighbour_distance as compute_neighbour_distance
from .pairs import find_pairs as find_pairs
from .pairs import find_shell_gaps as find_shell_gaps
from .summary import fingerprint_geometry as fingerprint_geometry
