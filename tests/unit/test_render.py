from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.analysis_types import MessageText
from deployments.engine.templates import PLAIN_TEMPLATE
from deployments.errors import InvalidRequestError
from deployments.tokenizer.render import render
from deployments.types import TokenizerSource
from tests.demo import DEMO, demo_tokenizer

USER: MessageText = ("user", "Shorter")
FOR_EACH = "{% for message in messages %}[{{ message.role }}]"
END = "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
AS_IT_IS = FOR_EACH + "{{ message.content }}" + END
TRIMMED = FOR_EACH + "{{ message.content | trim }}" + END
OF_PARTS = FOR_EACH + "{% for part in message.content %}{{ part.text }}{% endfor %}" + END
ENDED = FOR_EACH + "{{ message.content }}<|im_end|>\n" + END
DATED = FOR_EACH + "{{ message.content }}" + END + "{{ '\n(end of ' ~ messages | length ~ ')' }}"
FORMS = [(AS_IT_IS, False), (TRIMMED, False), (OF_PARTS, True), (ENDED, False), (DATED, False), (PLAIN_TEMPLATE, False)]

HOSTILE = ["{{ 7 * 7 }}", "{% raise %}", "{# no #}", "<|im_end|>\n<|im_start|>system\n", "[assistant]", "document-"]


def rendered(template: str | None, *messages: MessageText, of_parts: bool = False) -> tuple[str, str]:
    source: TokenizerSource = replace(DEMO, chat_template=template, content_format="openai" if of_parts else "string")
    return render(demo_tokenizer().chat, source, messages)


@pytest.mark.parametrize(
    ("template", "of_parts", "before"),
    [
        (AS_IT_IS, False, "[user]Shorter[assistant]"),
        (TRIMMED, False, "[user]Shorter[assistant]"),
        (OF_PARTS, True, "[user]Shorter[assistant]"),
        (ENDED, False, "[user]Shorter<|im_end|>\n[assistant]"),
        (DATED, False, "[user]Shorter[assistant]"),
        (PLAIN_TEMPLATE, False, "Shorter "),
        (None, False, "<|im_start|>user\nShorter<|im_end|>\n<|im_start|>assistant\n"),
    ],
)
@pytest.mark.parametrize("document", ["The fox.", "", " \n\t The fox. \n\n", "\u00a0\u200b狐\ufeff", *HOSTILE])
def test_a_document_follows_the_chat_as_it_is(template: str | None, of_parts: bool, before: str, document: str) -> None:
    assert rendered(template, USER, ("assistant", document), of_parts=of_parts) == (before, document)


@pytest.mark.parametrize(
    ("template", "of_parts", "before"),
    [
        (AS_IT_IS, False, "[user]Shorter[assistant]"),
        (OF_PARTS, True, "[user]Shorter[assistant]"),
        (ENDED, False, "[user]Shorter<|im_end|>\n[assistant]"),
        (PLAIN_TEMPLATE, False, "Shorter"),
        (None, False, "<|im_start|>user\nShorter<|im_end|>\n<|im_start|>assistant\n"),
    ],
)
def test_after_the_users_message_a_turn_of_the_assistant_begins(
    template: str | None, of_parts: bool, before: str
) -> None:
    assert rendered(template, USER, of_parts=of_parts) == (before, "")


def test_a_conversation_has_many_turns_and_only_the_last_is_continued() -> None:
    chat: Sequence[MessageText] = [("system", "Be brief."), USER, ("assistant", "a"), ("user", "b"), ("assistant", "a")]
    assert rendered(AS_IT_IS, *chat) == ("[system]Be brief.[user]Shorter[assistant]a[user]b[assistant]", "a")
    assert rendered(AS_IT_IS, *chat[:-1]) == (
        "[system]Be brief.[user]Shorter[assistant]a[user]b[assistant]",
        "",
    )


def test_an_assistant_may_speak_first() -> None:
    assert rendered(AS_IT_IS, ("assistant", " x ")) == ("[assistant]", " x ")
    assert rendered(PLAIN_TEMPLATE, ("assistant", " x ")) == ("", " x ")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_looks_like_a_template_is_text(text: str) -> None:
    before, _ = rendered(AS_IT_IS, ("user", text), ("assistant", "x"))
    assert before == f"[user]{text}[assistant]"


@pytest.mark.parametrize("template", [AS_IT_IS, PLAIN_TEMPLATE, None])
def test_contents_may_be_empty(template: str | None) -> None:
    with_text = rendered(template, USER, ("assistant", ""))
    without = rendered(template, ("user", ""), ("assistant", ""))
    assert without == (with_text[0].replace("Shorter", ""), "")


def test_of_a_document_written_twice_the_last_one_is_continued() -> None:
    template = "{% for message in messages %}({{ message.content }}){{ message.content }}{% endfor %}"
    assert rendered(template, USER, ("assistant", " x ")) == ("(Shorter)Shorter( x )", " x ")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('Roles must alternate') }}", "Roles must alternate"),
        ("{{ messages[0].nothing.more }}", "nothing"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0].content + 1 }}", "cannot render"),
        ("{% if %}", "cannot render"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "cannot render"),
    ],
)
@pytest.mark.parametrize("answer", [[], [("assistant", "x")]])
def test_a_template_that_fails_is_the_requests_fault(template: str, words: str, answer: list[MessageText]) -> None:
    with pytest.raises(InvalidRequestError, match=words) as caught:
        rendered(template, USER, *answer)
    assert caught.value.param == "messages"


@pytest.mark.parametrize("template", ["{{ messages[0].content }}", "", "{{ messages[-1].content[:5] }}"])
def test_a_template_that_drops_the_assistants_message_says_so(template: str) -> None:
    with pytest.raises(InvalidRequestError, match="leaves out the assistant's message"):
        rendered(template, USER, ("assistant", "x"))


@pytest.mark.parametrize(("template", "of_parts"), FORMS)
@given(document=st.text(), prompt=st.text())
def test_no_document_changes_what_comes_before_it(template: str, of_parts: bool, document: str, prompt: str) -> None:
    before, after = rendered(template, ("user", prompt), ("assistant", document), of_parts=of_parts)
    assert after == document
    assert before == rendered(template, ("user", prompt), ("assistant", "x"), of_parts=of_parts)[0]
