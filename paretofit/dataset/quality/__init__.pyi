from .level_comparison import NO_FORCE as NO_FORCE
from .level_comparison import LevelErrors as LevelErrors
from .level_comparison import level_errors as level_errors
from .summary import geometry_fingerprint as geometry_fingerprint
from .summary import too_close as too_close
from .unit_checks import unit_warnings as unit_warnings
