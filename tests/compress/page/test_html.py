import json
from html.parser import HTMLParser

import pytest

from compress.page.html import Markup, details, facts, join, json_text, table, tag, text

EVIL = '</script><script>alert("1")</script><!-- & \u2028'


def test_text_is_escaped_once() -> None:
    assert text('<a href="x">&') == "&lt;a href=&quot;x&quot;&gt;&amp;"
    assert text(text("<b>")) == "&lt;b&gt;"


def test_children_and_attributes_are_escaped() -> None:
    assert tag("p", "<b>", tag("i", "&"), cls='a"b') == '<p class="a&quot;b">&lt;b&gt;<i>&amp;</i></p>'
    assert tag("p", attributes={"title": '"><script>'}) == '<p title="&quot;&gt;&lt;script&gt;"></p>'


def test_void_elements_have_no_end() -> None:
    assert tag("meta", attributes={"charset": "utf-8"}) == '<meta charset="utf-8">'


def test_join_escapes_what_is_between() -> None:
    assert join(["a", Markup("<i>"), 3], "<") == "a&lt;<i>&lt;3"


def test_json_cannot_leave_its_script() -> None:
    made = json_text({EVIL: [EVIL]})
    assert not set("<>&\u2028") & set(made)
    assert json.loads(made) == {EVIL: [EVIL]}


def test_json_refuses_what_it_has_no_word_for() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text([float("nan")])


@pytest.mark.parametrize(
    "made",
    [
        table((("<h>", ""),), [(EVIL,)], label=EVIL),
        facts([(EVIL, EVIL)]),
        details(EVIL, EVIL, opened=True),
        table((("h", "number"),), [("1",)], label="x", row_classes=['"><script>']),
    ],
)
def test_no_element_comes_from_the_content(made: str) -> None:
    seen: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append(tag)

    Reader().feed(made)
    assert "script" not in seen
