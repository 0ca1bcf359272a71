from .catalogue import all_findings as all_findings
from .finding import Finding as Finding
from .finding import Verdict as Verdict
from .front_finding import levels_on_front as levels_on_front
from .level_finding import errors_fall as errors_fall
from .sampling_finding import leverage_beats_random as leverage_beats_random
from .weight_finding import force_weight_helps as force_weight_helps
