"""What a lint says: findings, the compiler's verdict, the checklist; as text for a terminal and as JSON."""

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from exporters.lint.checklist import Item
from exporters.lint.dla import LOADABLES, OnDla, loadables
from exporters.lint.finding import LEVELS, Finding
from exporters.lint.verdict import FLOATS, Verdict

WIDTH = 110
SHOWN = 5  # findings of one rule that the text lists; JSON has them all


@dataclass(frozen=True)
class LintReport:
    """One model on one target.

    Attributes:
        model: the file's name.
        target: its name.
        findings: the gravest first.
        compiler: None where nothing was compiled, and then `not_compiled` says why.
        others: verdicts of further runtimes that the target may use.
        dla: each node's verdict; None where nobody asked.
        checklist: C1 to C12.
        facts: opset, nodes, products, quantised (products), device.
    """

    model: str
    target: str
    findings: tuple[Finding, ...]
    compiler: Verdict | None = None
    not_compiled: str = ""
    others: tuple[Verdict, ...] = ()
    dla: tuple[OnDla, ...] | None = None
    checklist: tuple[Item, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def refused(self) -> tuple[Finding, ...]:
        """Findings that the target's compiler refuses, by the rules."""
        return tuple(finding for finding in self.findings if finding.level == "refused")

    @property
    def int8_share(self) -> float | None:
        """Products that run in int8 / products, as compiled; None where nothing was compiled or it was refused."""
        return self.compiler.share() if self.compiler is not None and self.compiler.accepted else None

    def counts(self) -> dict[str, int]:
        """Level -> findings, every level."""
        return {level: sum(finding.level == level for finding in self.findings) for level in LEVELS}

    def in_words(self) -> str:
        """How many findings of which level, such as "1 slow, 2 note"; "nothing to say" where there are none."""
        return ", ".join(f"{count} {level}" for level, count in self.counts().items() if count) or "nothing to say"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "model": self.model,
            "target": self.target,
            "facts": dict(self.facts),
            "counts": self.counts(),
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "int8_share": self.int8_share,
            "compiler": None if self.compiler is None else _plain(self.compiler),
            "others": [_plain(verdict) for verdict in self.others],
            "not_compiled": self.not_compiled,
            "dla": None if self.dla is None else [dataclasses.asdict(row) for row in self.dla],
            "checklist": [dataclasses.asdict(item) for item in self.checklist],
        }

    def text(self) -> str:
        """For a terminal."""
        facts = self.facts
        head = (
            f"{self.model} for {self.target} ({facts.get('device', '')}): opset {facts.get('opset')}, "
            f"{facts.get('nodes')} nodes, {facts.get('products')} products, {facts.get('quantised')} of them quantised"
            + (f", {facts['weights_only']} in their weights alone" if facts.get("weights_only") else "")
        )
        parts = [head, "\n".join(self._findings())]
        parts += ["\n".join(_answer(verdict)) for verdict in (self.compiler, *self.others) if verdict is not None]
        if self.compiler is None:
            parts.append(f"not compiled: {self.not_compiled}")
        if self.dla is not None:
            parts.append("\n".join(self._dla()))
        parts.append(self._checklist())
        return "\n\n".join(part for part in parts if part)

    def _findings(self) -> Iterator[str]:
        if not self.findings:
            yield "no rule is broken"
        groups: dict[tuple[str, str], list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.level, finding.rule), []).append(finding)
        for (level, rule), found in groups.items():
            for index, finding in enumerate(found[:SHOWN]):
                first = f"{level:<8}{rule:<5}" if index == 0 else " " * 13
                where = finding.where()
                yield from _wrapped(first, f"{where}: {finding.what}" if where else finding.what)
            if len(found) > SHOWN:
                yield f"{'':13}and {len(found) - SHOWN} more"
            for fix in dict.fromkeys(finding.fix for finding in found):
                yield from _wrapped(f"{'':13}fix: ", fix)

    def _dla(self) -> Iterator[str]:
        rows = self.dla or ()
        runs = sum(row.runs for row in rows)
        yield from _wrapped(
            "",
            f"DLA by NVIDIA's table, nothing was run on one: {runs} of {len(rows)} nodes run there in "
            f"{loadables(rows)} loadables (at most {LOADABLES} a core), {len(rows) - runs} fall back to the GPU",
        )
        whole = [finding.rule for finding in self.findings if finding.rule.startswith("D") and not finding.node]
        if whole:
            yield f"  none runs there before {' and '.join(dict.fromkeys(whole))} above is mended"
        for row in rows:
            if not row.runs:
                where = f"{row.node} (module {row.module})" if row.module else row.node
                yield from _wrapped(f"  {' '.join(row.rules):<8}", f"{row.operator} {where}: {row.why}")

    def _checklist(self) -> str:
        if not self.checklist:
            return ""
        states: dict[str, list[str]] = {}
        for item in self.checklist:
            said = f"{item.id} ({item.why})" if item.state == "broken" and item.why else item.id
            states.setdefault(item.state, []).append(said)
        lines = [f"{state} {', '.join(ids)}" for state, ids in states.items()]
        return "\n".join(_wrapped("checklist: ", "; ".join(lines)))


def _answer(verdict: Verdict) -> Iterator[str]:
    if not verdict.accepted:
        at = f" at {verdict.refused_node}" if verdict.refused_node else ""
        at += f" (module {verdict.refused_module})" if verdict.refused_module else ""
        yield from _wrapped("", f"{verdict.compiler} for {verdict.built_for}: refused{at}: {verdict.refusal}")
    else:
        yield f"{verdict.compiler} for {verdict.built_for}: accepted"
        kinds = ", ".join(f"{count} {kind}" for kind, count in verdict.types.items()) or "none"
        coded = next((kind for kind in verdict.types if kind not in FLOATS), "int8")
        kind = coded if verdict.intended else next(iter(verdict.types), "")
        share = f"{kind} share {verdict.share(kind):.0%}" if verdict.runs else "no products"
        yield f"  {share}: of {len(verdict.runs)} products run {kinds}; the graph quantises {verdict.intended}"
        for run in verdict.runs:
            if run.type in FLOATS and (run.intended or run.rule):
                module = f" (module {run.module})" if run.module else ""
                rule = f"{run.rule}: " if run.rule else ""
                yield from _wrapped(f"  {run.type:<8}", f"{run.node}{module}: {rule}{run.why}")
        for row in verdict.padded[:SHOWN]:
            yield f"  padded  {row.node}: {row.channels} -> {row.padded} channels"
        if len(verdict.padded) > SHOWN:
            yield f"  padded  and {len(verdict.padded) - SHOWN} more"
        if verdict.requantise:
            yield f"  {len(verdict.requantise)} kernels only requantise: {', '.join(verdict.requantise[:3])}"
    for note in verdict.notes:
        yield from _wrapped("  - ", note)


def _plain(verdict: Verdict) -> dict[str, Any]:
    return dataclasses.asdict(verdict) | {
        "types": verdict.types,
        "shares": {kind: verdict.share(kind) for kind in verdict.types},
        "int8_share": verdict.share(),
        "intended": verdict.intended,
        "silently_float": [run.node for run in verdict.silent],
    }


def _wrapped(first: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
