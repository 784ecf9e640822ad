"""What was built, for what, whether it holds, and four figures."""

from compress.page import numbers
from compress.page.checks import gate_number
from compress.page.html import Markup, join, tag
from compress.page.reading import SHIPPED, Row, interval, metric_of, number, part, rows, shipped, word


def header(content: Row) -> Markup:
    """The top of the page."""
    target, task = part(content, "target"), part(content, "task")
    gates = rows(content, "verify", "gates")
    broken = [gate for gate in gates if gate.get("passed") is not True]
    device = word(target, "device", word(target, "name", "an unnamed device"))
    what = f"{_student(shipped(content))} for {device}"
    if not gates:
        verdict = tag("p", "No gate was checked.", cls="verdict failed")
    elif broken:
        verdict = tag("p", f"✗ {len(broken)} of {len(gates)} gates failed", cls="verdict failed")
    else:
        verdict = tag("p", f"✓ All {len(gates)} gates hold", cls="verdict passed")
    sentences = [tag("li", sentence) for sentence in _failures(content, broken)]
    return tag(
        "header",
        tag("p", f"{word(content, 'name', 'run')} · task {word(task, 'name', 'unnamed')}", cls="over"),
        tag("h1", what),
        verdict,
        tag("ul", *sentences, cls="failures") if sentences else "",
        tag("p", _delivered(content), cls="delivered"),
        tag("div", *_figures(content), cls="figures"),
        tag("p", *_legend(), cls="legend"),
    )


def _student(precision: str) -> str:
    """What was built, in words: "An int8 student"."""
    if not precision:
        return "A student"
    name = "mixed-precision" if precision == "mixed" else precision
    return f"{'An' if name[0] in 'fi' else 'A'} {name} student"


def _failures(content: Row, broken: list[dict[str, object]]) -> list[str]:
    given = content.get("failed")
    said = [str(sentence) for sentence in given] if isinstance(given, list) else []
    known = " ".join(said)
    _, unit = metric_of(content)
    for gate in broken:
        sentence = f"{word(gate, 'stage')}: {word(gate, 'name')} of {word(gate, 'artifact')}"
        if sentence not in known:
            said.append(
                f"{sentence} is {gate_number(gate, 'value', unit)} ({word(gate, 'origin')}), "
                f"the bound is {gate_number(gate, 'bound', unit)}"
            )
    return said


def _delivered(content: Row) -> str:
    artifacts = [row for row in rows(content, "verify", "artifacts") if word(row, "purpose") == "artifact"]
    if not artifacts:
        return "The target's own artifact was not built here; the result is the ONNX file."
    return "; ".join(f"{word(row, 'name')}: {word(row, 'run')}" for row in artifacts) + "."


def _figures(content: Row) -> list[Markup]:
    verify, costs = part(content, "verify"), part(content, "verify", "costs")
    accuracy = part(verify, "accuracy")
    teacher, final = part(costs, "teacher"), part(costs, SHIPPED)
    reached, reference = number(accuracy, word(verify, "final")), number(accuracy, "teacher")
    change = None if reached is None or reference is None else reached - reference
    ran = f"run as {word(verify, 'final')}" if reached is not None else ""
    around = numbers.span(interval(final))
    metric, unit = metric_of(content)

    def ratio(key: str, less: str, more: str) -> str:
        found = numbers.fewer(number(teacher, key), number(final, key), less, more)
        return f"{found} than the teacher" if found and found != "the same" else found

    return [
        card(
            f"test {metric}",
            numbers.score(reached, unit),
            ran if change is None else f"{numbers.gap(change, unit)} against the teacher; {ran}",
            "measured" if reached is not None else "",
        ),
        card(
            "latency at batch 1",
            numbers.milliseconds(number(final, "latency_ms")),
            around,
            word(final, "origin"),
        ),
        card("multiply-accumulates", numbers.count(number(final, "macs")), ratio("macs", "fewer", "more"), "counted"),
        card(
            "weights",
            numbers.size(number(final, "weight_bytes")),
            ratio("weight_bytes", "smaller", "larger"),
            "counted",
        ),
    ]


def card(name: str, value: str, below: str, origin: str) -> Markup:
    """One large number: what it is, what it is compared to, how it was obtained ("" for no mark)."""
    return tag(
        "div",
        tag("span", name, cls="name"),
        tag("strong", value),
        tag("span", below, cls="below") if below else "",
        numbers.origin(origin if value != numbers.NOTHING else ""),
        cls="figure",
    )


def _legend() -> list[object]:
    marks = [join((numbers.origin(name), f" {meaning}")) for name, meaning in numbers.ORIGINS.items()]
    return [tag("span", mark) for mark in marks]
