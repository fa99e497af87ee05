"""Choosing between techniques by what was measured, by what is known, and by what is required.

``measured`` reads stored results, ``choose`` sets them against requirements, ``break_even`` says
from which volume on a GPU of one's own is cheaper than an API.
"""

from shared.choosing.break_even import BreakEven, Gpu, Tokens, break_even
from shared.choosing.charts import break_even_chart, pareto_chart
from shared.choosing.checklist import Checklist, Step, open_checklist
from shared.choosing.chooser import Choice, Judged, Relax, choose
from shared.choosing.facts import Fact, Technique, techniques
from shared.choosing.measured import Row, measured
from shared.choosing.requirements import Requirements
from shared.choosing.rules import RULES, Finding, Verdict
from shared.choosing.table import facts_table, to_console, to_markdown

__all__ = [
    "RULES",
    "BreakEven",
    "Checklist",
    "Choice",
    "Fact",
    "Finding",
    "Gpu",
    "Judged",
    "Relax",
    "Requirements",
    "Row",
    "Step",
    "Technique",
    "Tokens",
    "Verdict",
    "break_even",
    "break_even_chart",
    "choose",
    "facts_table",
    "measured",
    "open_checklist",
    "pareto_chart",
    "techniques",
    "to_console",
    "to_markdown",
]
