from .hdf_tables import import_published as import_published
from .result_tables import ALL_CONFIGURATIONS as ALL_CONFIGURATIONS
from .result_tables import ERRORS as ERRORS
from .result_tables import FIT as FIT
from .result_tables import SECONDS_PER_CONFIGURATION as SECONDS_PER_CONFIGURATION
from .result_tables import read_published as read_published
