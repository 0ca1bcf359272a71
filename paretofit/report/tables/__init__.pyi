from .error_tables import build_error_tables as build_error_tables
from .error_tables import build_model_table as build_model_table
from .summaries import OBJECTIVES as OBJECTIVES
from .summaries import RESULT_COLUMNS as RESULT_COLUMNS
from .summaries import compute_fronts_by_twojmax as compute_fronts_by_twojmax
from .summaries import compute_medians as compute_medians
from .table_text import write_table as write_table
