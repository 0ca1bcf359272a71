from .findings.catalogue import collect_findings as collect_findings
from .findings.finding import Finding as Finding
from .page.report_writer import write_report as write_report
from .wording import format_count as format_count
from .wording import format_duration as format_duration
from .wording import format_number as format_number
from .wording import format_ratio as format_ratio
from .wording import join_items as join_items
