"""Delivery to real HTTP receivers: accepted, refused, too late, cut off; and a token that never shows."""

from __future__ import annotations

import logging
import pickle
import socket
import subprocess
import sys
import time
import traceback

import pytest

from gs_backup_assets.alerts.message import Kind, Message
from gs_backup_assets.alerts.notify import NotAccepted, Notifier
from gs_backup_assets.errors import ConfigError, ExitStatus

from .conftest import Start
from .receiver import Behaviour

ENV = "GS_BACKUP_ALERT_URLS"
TOKEN = "s3cr3tTokenNobodyMaySee"
SLACK = f"https://hooks.slack.com/services/T0AAAAAAA/B0BBBBBBB/{TOKEN}x"


def _message(title: str = "Backup is stale", kind: Kind = "problem") -> Message:
    return Message(kind=kind, title=title, body="Old.\nWhat to do: run it & look at <this>.")


def _notifier(*urls: str, separator: str = " ", timeout_seconds: float = 5.0) -> Notifier:
    return Notifier(ENV, environment={ENV: separator.join(urls)}, timeout_seconds=timeout_seconds)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_an_accepted_message_arrives_word_for_word(start: Start) -> None:
    receiver = start()
    assert _notifier(receiver.url()).send(_message()) is True
    assert [(post["title"], post["message"]) for post in receiver.received] == [
        ("Backup is stale", "Old.\nWhat to do: run it & look at <this>.")
    ]


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("problem", "failure"),
        ("reminder", "warning"),
        ("event", "warning"),
        ("recovered", "success"),
        ("success", "success"),
        ("failure", "failure"),
    ],
)
def test_the_kind_decides_how_a_receiver_shows_it(start: Start, kind: Kind, shown: str) -> None:
    receiver = start()
    _notifier(receiver.url()).send(_message(kind=kind))
    assert [post["type"] for post in receiver.received] == [shown]


@pytest.mark.parametrize("body", ["", " \n"])
def test_a_message_without_body_is_delivered_all_the_same(start: Start, body: str) -> None:
    receiver = start()
    assert _notifier(receiver.url()).send(Message(kind="event", title="Run was cancelled", body=body))
    assert receiver.received[0]["message"] == "Run was cancelled"


def test_a_slack_webhook_as_slack_gives_it_is_posted_to_as_plain_text(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apprise.plugins.slack import NotifySlack

    receiver = start()
    # Only where the plugin finds Slack is changed; the request is a real one.
    monkeypatch.setattr(NotifySlack, "webhook_url", f"http://127.0.0.1:{receiver.port}/services")
    assert _notifier(SLACK).send(_message())
    attachment = receiver.received[0]["attachments"][0]
    assert receiver.paths == [f"/services/T0AAAAAAA/B0BBBBBBB/{TOKEN}x"]
    assert attachment["title"] == "Backup is stale"
    assert attachment["text"] == "Old.\nWhat to do: run it &amp; look at &lt;this&gt;."


def test_a_receiver_that_wants_html_gets_the_text_escaped(start: Start) -> None:
    receiver = start()
    _notifier(receiver.url(query="?format=html")).send(_message())
    assert "&lt;this&gt;." in receiver.received[0]["message"]


@pytest.mark.parametrize("separator", [" ", ",", ", ", "\n", " ,\n\t"])
def test_urls_are_parted_by_space_or_comma_and_each_receives_once(start: Start, separator: str) -> None:
    first, second = start(), start()
    notifier = _notifier(first.url("a,b/c"), second.url(), first.url("a,b/c"), "", separator=separator)
    notifier.send(_message())
    assert (first.attempts, second.attempts) == (1, 1)
    assert len(notifier.receivers()) == 2


def test_the_variable_is_read_at_every_call(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = start()
    monkeypatch.delenv(ENV, raising=False)
    notifier = Notifier(ENV)
    assert not notifier.configured
    monkeypatch.setenv(ENV, receiver.url())
    assert notifier.configured
    assert notifier.send(_message())
    assert receiver.titles == ["Backup is stale"]


@pytest.mark.parametrize("value", [None, "", "  \n", " , "])
def test_without_a_receiver_sending_returns_false(value: str | None) -> None:
    notifier = Notifier(ENV, environment={} if value is None else {ENV: value})
    assert not notifier.configured
    assert notifier.send(_message()) is False
    assert notifier.send_all([]) is False
    assert notifier.receivers() == ()


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        ("refuse", "it answered with status 500"),
        ("hang_up", "not reached, or no answer, after 0"),
        ("redirect", "it answered with status 302"),
        ("delay", "no answer within 1 s"),
    ],
)
def test_a_refusal_raises_and_names_the_receiver_and_why(start: Start, behaviour: Behaviour, why: str) -> None:
    receiver = start(behaviour)
    with pytest.raises(NotAccepted) as caught:
        _notifier(receiver.url(path=TOKEN), timeout_seconds=1.0).send(_message())
    assert (caught.value.code, caught.value.exit_status) == ("ALERT_NOT_ACCEPTED", ExitStatus.PROGRAM)
    assert f"json://127.0.0.1:{receiver.port} ({why}" in caught.value.message and TOKEN not in str(caught.value)
    assert (receiver.attempts, receiver.visits) == (1, 0)


def test_nobody_listening_is_a_refusal() -> None:
    port = _free_port()
    with pytest.raises(NotAccepted, match=f"json://127.0.0.1:{port}"):
        _notifier(f"json://127.0.0.1:{port}/hook").send(_message())


@pytest.mark.parametrize(("behaviour", "query"), [("delay", ""), ("drip", ""), ("delay", "?rto=0.3")])
def test_a_slow_receiver_is_given_up_in_time(start: Start, behaviour: Behaviour, query: str) -> None:
    receiver = start(behaviour)
    _notifier(start().url()).send(_message())  # the first use loads the library, which is not what is timed here
    began = time.monotonic()
    with pytest.raises(NotAccepted):
        _notifier(receiver.url(query=query), timeout_seconds=10 if query else 0.5).send(_message())
    assert 0.25 < time.monotonic() - began < 2.5


def test_the_others_are_served_when_one_refuses_and_hear_nothing_twice(start: Start) -> None:
    refusing, good = start("refuse"), start()
    notifier = _notifier(refusing.url(), good.url())
    for _ in range(3):
        with pytest.raises(NotAccepted) as caught:
            notifier.send_all([_message("one"), _message("two")])
        assert f":{good.port}" not in str(caught.value)
    # After the first refusal the second message was not even offered.
    assert refusing.attempts == 3
    assert good.titles == ["one", "two"]

    refusing.behaviour = "accept"
    assert notifier.send_all([_message("one"), _message("two")])
    assert (refusing.titles, good.titles) == (["one", "two"], ["one", "two"])


def test_the_same_news_in_other_words_is_not_repeated_to_those_who_accepted_it(start: Start) -> None:
    refusing, good = start("refuse"), start()
    notifier = _notifier(refusing.url(), good.url())
    for title in ("lasted 1 h", "lasted 2 h"):
        with pytest.raises(NotAccepted):
            notifier.send(Message(kind="recovered", title=title, body="", key="k"))
    assert good.titles == ["lasted 1 h"]


def test_the_same_words_are_sent_again_once_everybody_accepted_them(start: Start) -> None:
    receiver = start()
    notifier = _notifier(receiver.url())
    notifier.send(_message())
    notifier.send(_message())
    assert receiver.titles == ["Backup is stale"] * 2


def test_what_a_receiver_accepted_is_forgotten_after_an_hour(start: Start) -> None:
    refusing, good = start("refuse"), start()
    clock = [0.0]
    urls = f"{refusing.url()} {good.url()}"
    notifier = Notifier(ENV, environment={ENV: urls}, clock=lambda: clock[0])
    for seconds, heard in ((0, 1), (3599, 1), (3601, 2)):
        clock[0] = seconds
        with pytest.raises(NotAccepted):
            notifier.send(_message())
        assert good.attempts == heard


@pytest.mark.parametrize(
    "bad",
    [
        f"https://example.org/{TOKEN}",
        f"hooks.slack.com/services/{TOKEN}",
        f"{TOKEN}://host",
        f"json://user:{TOKEN}/x@host",
        "slack://",
    ],
)
def test_a_url_that_apprise_does_not_know_is_an_error_of_configuration(start: Start, bad: str) -> None:
    good = start()
    notifier = _notifier(bad, good.url())
    with pytest.raises(ConfigError) as caught:
        notifier.send(_message())
    assert (caught.value.code, caught.value.exit_status) == ("ALERT_URL_INVALID", ExitStatus.USAGE)
    assert f"entry 1 of 2 in {ENV}" in caught.value.message
    assert TOKEN not in str(caught.value)
    # One typing error must not silence those whose URL is right.
    assert good.titles == ["Backup is stale"]
    with pytest.raises(ConfigError, match="ALERT_URL_INVALID"):
        notifier.receivers()


def test_receivers_are_named_without_their_secrets() -> None:
    notifier = _notifier(
        SLACK,
        f"slack://T0AAAAAAA/B0BBBBBBB/{TOKEN}x/#ops",
        f"jsons://user:{TOKEN}@example.org:8443/{TOKEN}?x={TOKEN}",
        f"mailto://user:{TOKEN}@gmail.com",
        f"ntfy://{TOKEN}",
    )
    assert notifier.receivers() == (
        "https://hooks.slack.com",
        "slack://…",
        "jsons://example.org:8443",
        "mailto://gmail.com:587",
        "ntfy://…",
    )


@pytest.mark.parametrize("behaviour", ["accept", "refuse", "hang_up", "delay"])
def test_a_token_shows_nowhere(start: Start, behaviour: Behaviour, caplog: pytest.LogCaptureFixture) -> None:
    receiver = start(behaviour)
    url = f"json://user:{TOKEN}@127.0.0.1:{receiver.port}/{TOKEN}?-query={TOKEN}&%2BX-Key={TOKEN}"
    notifier = _notifier(url, timeout_seconds=0.5)
    shown = [repr(notifier)]
    with caplog.at_level(1):
        # Even where somebody asked these loggers for all that they have.
        for name in ("apprise", "urllib3", "urllib3.connectionpool"):
            caplog.set_level(1, logger=name)
        try:
            notifier.send(_message())
        except NotAccepted as error:
            shown += [str(error), repr(error), "".join(traceback.format_exception(error)), str(pickle.dumps(error))]
        shown += notifier.receivers()
    assert receiver.attempts == 1
    assert TOKEN not in "\n".join([*shown, caplog.text])


def test_other_users_of_those_loggers_are_still_heard(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    _notifier(start().url()).send(_message())
    logging.getLogger("urllib3.connectionpool").warning("of somebody else")
    assert "of somebody else" in caplog.text


def test_neither_the_import_nor_a_look_without_news_loads_apprise() -> None:
    program = (
        "import sys; from gs_backup_assets.alerts import message, notify, state;"
        "print(notify.Notifier('U', environment={'U': 'json://host'}).send_all([]), 'apprise' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_slow_receivers_are_served_side_by_side(start: Start) -> None:
    """Four that never answer take the time of one, and the one that hears is told."""
    slow = [start("delay") for _ in range(4)]
    quick = start()
    began = time.monotonic()
    with pytest.raises(NotAccepted) as raised:
        _notifier(*(receiver.url() for receiver in (*slow, quick)), timeout_seconds=2.0).send(_message())
    assert time.monotonic() - began < 6.0
    assert quick.titles == ["Backup is stale"] and "4 of 5" in raised.value.message


def test_many_messages_to_a_slow_receiver_end_in_time(start: Start) -> None:
    """Each is accepted, but not all of them before the time is over: the others are kept for the next try."""
    receiver = start("drip")  # the answer takes 20 s
    notifier = Notifier(
        ENV, environment={ENV: receiver.url(query="?rto=30")}, timeout_seconds=30.0, patience_seconds=2.0
    )
    began = time.monotonic()
    with pytest.raises(NotAccepted):
        notifier.send_all([_message(f"m{number}") for number in range(5)])
    assert time.monotonic() - began < 8.0 and receiver.attempts <= 2


@pytest.mark.parametrize("named", [{}, {ENV: ""}, {ENV: "  "}])
def test_the_slack_webhook_of_the_strategy_document_works_by_itself(named: dict[str, str]) -> None:
    notifier = Notifier(ENV, environment={**named, "SLACK_WEBHOOK_URL": SLACK})
    assert notifier.configured
    assert notifier.receivers() == ("https://hooks.slack.com",)


def test_the_slack_webhook_is_not_told_beside_named_receivers(start: Start) -> None:
    receiver = start()
    notifier = Notifier(ENV, environment={ENV: receiver.url(), "SLACK_WEBHOOK_URL": SLACK})
    assert len(notifier.receivers()) == 1 and "slack" not in notifier.receivers()[0]
