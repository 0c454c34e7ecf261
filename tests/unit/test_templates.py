from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from config.models import PROJECT_ROOT
from deployments.engine.templates import PLAIN_TEMPLATE_WITH_BOS, template_variables, to_chat_template
from deployments.errors import InvalidRequestError

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi  <there>\n"}]


def render(template: str | None) -> str:
    assert template is not None
    # As transformers renders chat templates.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(messages=MESSAGES, bos_token="<s>", add_generation_prompt=True)


def test_the_models_own_template_is_left_alone() -> None:
    assert to_chat_template("default-template") is None


def test_plain_joins_contents_by_one_space() -> None:
    assert render(to_chat_template("plain")) == "Be brief. Hi  <there>\n"
    assert render(PLAIN_TEMPLATE_WITH_BOS) == "<s>Be brief. Hi  <there>\n"


def test_jinja_text() -> None:
    text = "{% for m in messages %}[{{ m.role }}]{% endfor %}"
    assert to_chat_template(text) == text
    assert render(text) == "[system][user]"


def test_a_file_anywhere_or_in_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "é.jinja").write_text("plain words é", encoding="utf-8")
    assert to_chat_template(str(tmp_path / "é.jinja")) == "plain words é"
    monkeypatch.chdir(tmp_path)
    inside = "config/demo_model/chat_template.jinja"
    assert to_chat_template(inside) == (PROJECT_ROOT / inside).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{% endfor %}",
        "{% generation %}{{ messages[0].content }}{% endgeneration %}",
        "{%- generation -%}{{ messages[0].content }}{%- endgeneration %}",
    ],
)
def test_what_transformers_understands_is_not_refused(text: str) -> None:
    assert to_chat_template(text) == text


@pytest.mark.parametrize("text", ["{{ messages", "{% if %}x", "{% for m in messages %}", "{% include_all %}"])
def test_a_template_that_does_not_parse_is_refused_with_the_allowed_forms(text: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"`plain`.*does not parse"):
        to_chat_template(text)


@pytest.mark.parametrize("name", ["no/such/file.jinja", "Plain", "", "config/demo_model", "default"])
def test_what_is_neither_a_form_nor_a_file_is_refused_with_the_allowed_forms(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=rf"`default-template`.*no file `{name}`"):
        to_chat_template(name)


def test_a_long_text_and_a_file_that_is_no_text_are_refused_with_the_allowed_forms(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff")
    for request_format in ("You are a helpful assistant. " * 20, str(tmp_path / "x")):
        with pytest.raises(InvalidRequestError, match="default-template"):
            to_chat_template(request_format)


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{{ messages }}{{ tools }}{{ add_generation_prompt }}{{ bos_token }}{{ documents }}", set()),
        ("{% if enable_thinking is defined and not enable_thinking %}x{% endif %}", {"enable_thinking"}),
        ("{% if not date is defined %}{% set date = strftime_now('%d') %}{% endif %}{{ date }}", {"date"}),
        ("{% set ns = namespace(a=1) %}{% for i in range(2) %}{{ loop.index + ns.a + i }}{% endfor %}", set()),
        ("{% macro f(a) %}{{ a }}{{ effort }}{% endmacro %}{{ f(1) }}{{ raise_exception('x') }}", {"effort"}),
        ("{% generation %}{{ style }}{% endgeneration %}{% for m in messages %}{% break %}{% endfor %}", {"style"}),
        ("{% this is no template", set()),
        ("", set()),
    ],
)
def test_names_that_a_request_may_set(template: str, names: set[str]) -> None:
    assert template_variables(template) == names
