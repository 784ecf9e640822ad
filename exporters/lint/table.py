"""The table of docs/lint.md, written from the rules themselves."""

from exporters.lint.checklist import CHECKLIST
from exporters.lint.finding import Rule
from exporters.lint.rules import DLA_RULES, RULES

BEGIN = "<!-- rules: written by exporters.lint.table, checked by a test -->"
END = "<!-- end of rules -->"
_PARTS = {
    "Q": "What TensorRT's parser accepts",
    "P": "Where Q/DQ must stand for speed",
    "C": "The export checklist's own rules",
    "D": "What a DLA takes (`--dla`)",
}


def tables() -> str:
    """Markdown: one table per part, then the checklist, between the two marks."""
    lines = [BEGIN, ""]
    for letter, title in _PARTS.items():
        rules = [rule for rule in (*RULES, *DLA_RULES) if rule.id[0] == letter]
        lines += [f"### {title}", "", "| id | rule | level | runtimes | known from |", "|---|---|---|---|---|"]
        lines += [_row(rule) for rule in rules]
        lines.append("")
    lines += ["### Checklist", "", "| id | held where | decided by |", "|---|---|---|"]
    for entry in CHECKLIST:
        lines.append(f"| {entry.id} | {entry.title} | {', '.join(entry.rules) or entry.elsewhere} |")
    return "\n".join([*lines, "", END])


def _row(rule: Rule) -> str:
    cells = (rule.id, rule.title, rule.level, ", ".join(sorted(rule.runtimes)), rule.source)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
