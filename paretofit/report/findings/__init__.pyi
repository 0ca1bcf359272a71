from .catalogue import collect_findings as collect_findings
from .finding import Finding as Finding
from .finding import FindingStatus as FindingStatus
from .front_finding import assess_levels_on_front as assess_levels_on_front
from .level_finding import assess_error_decrease as assess_error_decrease
from .paired_errors import PairedErrors as PairedErrors
from .sampling_finding import assess_leverage_sampling as assess_leverage_sampling
from .weight_finding import assess_force_weight as assess_force_weight
