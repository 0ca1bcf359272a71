from .error_tables import error_sheets as error_sheets
from .error_tables import model_sheet as model_sheet
from .summaries import OBJECTIVES as OBJECTIVES
from .summaries import RESULT_COLUMNS as RESULT_COLUMNS
from .summaries import fronts_by_twojmax as fronts_by_twojmax
from .summaries import medians as medians
from .table_text import write_table as write_table
