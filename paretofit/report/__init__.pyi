from .findings.catalogue import all_findings as all_findings
from .findings.finding import Finding as Finding
from .page.report_writer import write_report as write_report
from .wording import counted as counted
from .wording import duration as duration
from .wording import listed as listed
from .wording import number as number
from .wording import ratio_text as ratio_text
