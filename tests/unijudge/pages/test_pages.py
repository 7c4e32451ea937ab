"""Pages: a text is never interpreted as HTML, and a page loads nothing from other places."""

import base64
import hashlib
import re

import jinja2
import pytest

from tests.pictures import png
from unijudge.pages.pages import Script, data, page, picture


def rendered(tmp_path, body, **values):
    template = tmp_path / "t.html.jinja"
    template.write_text(
        '{% extends "page.html.jinja" %}{% set title = "T" %}{% block body %}'
        + body
        + "{% endblock %}"
    )
    return page(template, **values)


def test_a_page_needs_no_other_file_and_escapes_texts(tmp_path):
    html = rendered(
        tmp_path,
        "{{ said }}{{ image }}",
        said="<script>x</script>",
        image=picture(png(), alt='a "b"'),
    )
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert 'alt="a &#34;b&#34;"' in html
    assert "prefers-color-scheme: dark" in html
    assert not re.search(r'(?:src|href)="(?!data:)', html), "nothing is fetched"


def test_a_page_contains_its_script_and_data(tmp_path):
    script = Script("const said = 1 < 2 && '&';")
    html = rendered(
        tmp_path,
        "{{ script.element }}{{ rows }}",
        script=script,
        rows=data("rows", {"a": "</script><b>&"}),
    )
    assert "<script>const said = 1 < 2 && '&';</script>" in html
    assert '{"a":"\\u003c/script>\\u003cb>&"}' in html
    assert html.count("</script>") == 2
    digest = base64.b64encode(hashlib.sha256(script.source.encode()).digest()).decode()
    assert script.policy.endswith(f"script-src 'sha256-{digest}'")
    with pytest.raises(ValueError, match="not JSON compliant"):
        data("rows", [float("nan")])


def test_a_name_that_was_not_given_is_an_error(tmp_path):
    with pytest.raises(jinja2.UndefinedError, match="'numbers' is undefined"):
        rendered(tmp_path, "{{ numbers }}")
