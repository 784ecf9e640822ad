"""docs/lint.md has the rules as they are."""

from pathlib import Path

from exporters.lint import table
from exporters.lint.checklist import CHECKLIST
from exporters.lint.rules import DLA_RULES, RULES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "lint.md"


def test_the_page_is_in_step_with_the_rules() -> None:
    """Written again with: python -c "from exporters.lint import table; print(table.tables())"."""
    text = PAGE.read_text("utf-8")
    found = text[text.index(table.BEGIN) : text.index(table.END) + len(table.END)]
    assert found == table.tables()


def test_ids_are_those_of_the_published_rules() -> None:
    """Q1 to Q14, P1 to P16, D1 to D12 without a gap; the checklist has its twelve items."""
    ids = [rule.id for rule in (*RULES, *DLA_RULES)]
    assert len(set(ids)) == len(ids)
    for letter, last in (("Q", 14), ("P", 16), ("D", 12)):
        assert sorted(int(name[1:]) for name in ids if name[0] == letter) == list(range(1, last + 1))
    assert [entry.id for entry in CHECKLIST] == [f"C{number}" for number in range(1, 13)]


def test_every_rule_says_how_it_is_known() -> None:
    assert all(rule.source and rule.title and rule.runtimes for rule in (*RULES, *DLA_RULES))
