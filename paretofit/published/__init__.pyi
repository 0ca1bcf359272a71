from .hdf_tables import import_published as import_published
from .result_tables import ERROR_COLUMNS as ERROR_COLUMNS
from .result_tables import FIT_COLUMNS as FIT_COLUMNS
from .result_tables import N_CONFIGURATIONS as N_CONFIGURATIONS
from .result_tables import SECONDS_PER_CONFIGURATION as SECONDS_PER_CONFIGURATION
from .result_tables import read_published as read_published
