"""From a results table to pictures, words and a page; nothing here fits, and nothing needs LAMMPS."""

from paretofit.report.findings import Finding, all_findings
from paretofit.report.write import write_report

__all__ = ["Finding", "all_findings", "write_report"]
