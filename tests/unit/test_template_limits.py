"""A chat template is a program of someone else's: it reaches nothing, it ends, and what fails in it has a line."""

import resource
import signal
import time

import pytest
from data_stand_in import assistant, byte_tokenizer, conversation, user

from ftk.core.errors import DataError
from ftk.data import template_limits
from ftk.data.render import Renderer, renderer_for
from ftk.data.template_text import SHIPPED_FOLDER

CHATML = (SHIPPED_FOLDER / "chatml.jinja").read_text()
ROW = conversation(user("a"), assistant("b"), row=4)


def hostile(statement: str) -> Renderer:
    return Renderer(byte_tokenizer(), f"\n{statement}{CHATML}")


@pytest.mark.parametrize(
    "statement",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ messages[0]['role'].__init__.__globals__ }}",
        "{{ ''['__class__'].mro() }}",
        "{{ messages | map(attribute='__class__.__mro__') | list }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
        "{{ raise_exception.__globals__['os'].system('true') }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ messages.append({'role': 'user', 'content': 'x'}) }}",
        "{{ messages[0].update({'content': 'x'}) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.system('true') }}",
        "{% extends '/etc/passwd' %}",
    ],
)
def test_a_template_reaches_neither_files_nor_python(statement: str) -> None:
    """Each is refused, by the sandbox or because there is nothing of that name, and the error has its line."""
    with pytest.raises(DataError, match=r"the chat template fails .*line 2 of the template"):
        hostile(statement).render(ROW)


@pytest.mark.parametrize("name", ["__subclasses__", "__globals__", "__builtins__"])
def test_what_the_sandbox_hides_reads_as_nothing(name: str) -> None:
    rendered = hostile(f"{{{{ messages | attr('{name}') }}}}{{{{ lipsum | attr('{name}') }}}}").render(ROW)
    # The line break before what is tried, and not a character more.
    assert len(rendered.token_ids_L) == 1 + len(Renderer(byte_tokenizer(), CHATML).render(ROW).token_ids_L)


@pytest.mark.parametrize(
    "statement",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
    ],
)
def test_a_template_without_an_end_is_stopped(statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "SECONDS", 0.3)
    handler = signal.getsignal(signal.SIGVTALRM)
    start = time.process_time()
    with pytest.raises(DataError, match=r"it runs for more than 0.3 s, as a loop without end does"):
        hostile(statement).render(ROW)
    assert time.process_time() - start < 5
    assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0
    assert signal.getsignal(signal.SIGVTALRM) == handler


@pytest.mark.parametrize(
    "statement",
    [
        "{{ 'x' * 10**10 }}",
        "{{ 'x'.ljust(10**10) }}",
        "{{ '%9999999999d' | format(1) }}",
        "{% set n = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    ],
)
def test_a_template_does_not_take_all_memory(statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "MORE_BYTES", 1 << 28)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(DataError, match="it takes more memory than any conversation needs"):
        hostile(statement).render(ROW)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_template_that_calls_itself_is_stopped() -> None:
    with pytest.raises(DataError, match=r"it calls itself without end \(line 2 of the template\)"):
        hostile("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").render(ROW)


def test_errors_name_the_line_of_the_template() -> None:
    with pytest.raises(DataError, match=r"Expected an expression.* \(line 2 of the template\)"):
        hostile("{% if %}").render(ROW)
    late = CHATML + "\n\n{% if messages | length == 2 %}{{ raise_exception('no') }}{% endif %}"
    with pytest.raises(DataError, match=rf"no \(line {CHATML.count(chr(10)) + 3} of the template\)"):
        Renderer(byte_tokenizer(), late).render(ROW)


def test_arguments_reach_the_template_and_those_it_does_not_read_are_errors() -> None:
    template = "{%- if enable_thinking is false %}{{- 'quick: ' }}{%- endif %}" + CHATML
    tokenizer = byte_tokenizer(chat_template=template)
    plain = renderer_for(tokenizer, chat_template=None)
    quick = renderer_for(tokenizer, chat_template=None, arguments={"enable_thinking": False})
    texts = [str(tokenizer.decode(one.render(ROW).token_ids_L)) for one in (plain, quick)]
    assert texts[1] == f"quick: {texts[0]}"
    assert str(tokenizer.decode(quick.render_prompt(ROW))).startswith("quick: ")
    assert plain.template.key != quick.template.key
    with pytest.raises(DataError, match=r"does not read enable_thinkin; it reads enable_thinking. Did you mean"):
        renderer_for(tokenizer, chat_template=None, arguments={"enable_thinkin": False})
    with pytest.raises(DataError, match=r"does not read depth; it reads none. Leave it out"):
        renderer_for(byte_tokenizer(chat_template=CHATML), chat_template=None, arguments={"depth": 1})


def test_a_model_brings_the_arguments_of_its_own_template_alone() -> None:
    template = "{%- if quick %}{{- 'quick: ' }}{%- endif %}" + CHATML
    tokenizer = byte_tokenizer(chat_template=template)
    tokenizer.init_kwargs["chat_template_arguments"] = {"quick": True}
    assert renderer_for(tokenizer, chat_template=None).template.arguments == {"quick": True}
    assert renderer_for(tokenizer, chat_template=None, arguments={"quick": False}).template.arguments == {
        "quick": False
    }
    assert renderer_for(tokenizer, chat_template="chatml").template.arguments == {}
