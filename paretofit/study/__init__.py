"""The study: a YAML file that says what to do, and the stages that do it."""

from paretofit.study.schema import Study, load_study
from paretofit.study.stages import RunResult, describe, run_study
from paretofit.study.template import write_template

__all__ = ["RunResult", "Study", "describe", "load_study", "run_study", "write_template"]
