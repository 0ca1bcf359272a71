from .consistency_checks import check_labels as check_labels
