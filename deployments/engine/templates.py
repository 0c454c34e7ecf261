"""`request_format`: how chat messages become a prompt."""

import contextlib
from pathlib import Path

from jinja2 import TemplateSyntaxError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from config.models import PROJECT_ROOT
from deployments.errors import InvalidRequestError

ALLOWED_FORMS = (
    "request_format must be `default-template` (the model's own chat template), `plain` (message contents joined by "
    "one space), the path of a Jinja file, or Jinja text with `{{ ... }}` or `{% ... %}`"
)
PLAIN_TEMPLATE = "{%- for message in messages %}{{ ' ' if not loop.first }}{{ message.content }}{%- endfor %}"
PLAIN_TEMPLATE_WITH_BOS = "{{- bos_token }}" + PLAIN_TEMPLATE

SET_BY_VLLM = frozenset(
    """messages tools documents add_generation_prompt continue_final_message raise_exception strftime_now
    bos_token eos_token unk_token pad_token sep_token cls_token mask_token additional_special_tokens""".split()
)


def to_chat_template(request_format: str) -> str | None:
    """Return the Jinja text that `request_format` names; None leaves the model's own template in place.

    For a tokenizer that begins every prompt with a special token use PLAIN_TEMPLATE_WITH_BOS in place of the plain one,
    so that its prompts equal those of `/v1/completions`. Raises InvalidRequestError naming the allowed forms.
    """
    if request_format == "default-template":
        return None
    if request_format == "plain":
        return PLAIN_TEMPLATE
    text = request_format if "{{" in request_format or "{%" in request_format else _read(request_format)
    try:
        # The tags of transformers' own environment, so that nothing is refused here that would render there.
        ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(_without_generation_tags(text))
    except TemplateSyntaxError as error:
        raise InvalidRequestError(f"{ALLOWED_FORMS}. This template does not parse: {error}") from error
    return text


def template_variables(template: str) -> frozenset[str]:
    """Return the names that a chat template reads and a request may set; those that vLLM sets itself are left out."""
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    try:
        variables = find_undeclared_variables(environment.parse(_without_generation_tags(template)))
    except TemplateSyntaxError:
        return frozenset()
    return frozenset(variables) - SET_BY_VLLM


def _read(name: str) -> str:
    for path in (Path(name), PROJECT_ROOT / name):
        # OSError: a text that is too long for a file name; UnicodeDecodeError: a file that is no text.
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if path.is_file():
                return path.read_text(encoding="utf-8")
    raise InvalidRequestError(f"{ALLOWED_FORMS}. There is no file `{name}`")


def _without_generation_tags(text: str) -> str:
    for dash_left in ("", "-"):
        for dash_right in ("", "-"):
            for word in ("generation", "endgeneration"):
                text = text.replace(f"{{%{dash_left} {word} {dash_right}%}}", "")
    return text
