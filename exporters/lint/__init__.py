"""Will this model run on that target as it was meant to? Rules that need no GPU, then the target's own compiler.

`lint(model, target)` does both; docs/lint.md has the table of rules. A rule is a pure function of the graph and the
target, in a file with its kin; `rules.RULES` holds them all, and builders check the ones that compilers refuse.
"""

from exporters.lint.finding import Finding, Rule
from exporters.lint.report import LintReport
from exporters.lint.run import lint

__all__ = ["Finding", "LintReport", "Rule", "lint"]
