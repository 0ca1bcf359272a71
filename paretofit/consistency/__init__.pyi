from .consistency_checks import check_labels as check_labels
from .level_checks import compare_labels as compare_labels
