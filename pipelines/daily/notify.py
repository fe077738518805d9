"""Tell people of a report: by a webhook, by e-mail. What fails here is said and stops nothing: the report lies in its file."""

import json
import logging
import os
import smtplib
import ssl
import urllib.request
from collections.abc import Callable
from email.message import EmailMessage
from http.client import HTTPException
from typing import Any

from recsys.daily_config import DailyConfig, EmailConfig

TIMEOUT_S = 10.0
PASSWORD = "RECSYS_SMTP_PASSWORD"
log = logging.getLogger("recsys.daily")


def notify(rules: DailyConfig, headline: str, text: str, report: dict[str, Any]) -> dict[str, str]:
    """Send what the config names. Returns by channel `sent`, or why it was not."""
    ways: dict[str, Callable[[], None]] = {}
    if (url := rules.webhook) is not None:
        ways["webhook"] = lambda: post(url, {"text": headline, "report": report})
    if (mail := rules.email) is not None:
        ways["email"] = lambda: send(mail, headline, text)
    return {name: _tried(name, way) for name, way in ways.items()}


def _tried(name: str, way: Callable[[], None]) -> str:
    try:
        way()
    except (OSError, HTTPException, smtplib.SMTPException, ValueError) as error:  # urllib's own errors are OSErrors
        log.warning("the report was not sent by %s: %s", name, error)
        return f"not sent: {error}"
    return "sent"


def post(url: str, body: dict[str, Any]) -> None:
    """POST as JSON. Raises OSError or HTTPException where nobody answers, or not with a success."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S):
        pass


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: urllib would follow it by a GET, which leaves the report behind."""

    def redirect_request(self, *_: Any) -> None:
        return None


def send(mail: EmailConfig, headline: str, text: str) -> None:
    """Raises OSError or SMTPException where the server does not take it."""
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = headline.splitlines()[0], mail.sender, ", ".join(mail.to)
    message.set_content(text)
    with smtplib.SMTP(mail.host, mail.port, timeout=TIMEOUT_S) as server:
        if mail.starttls:
            server.starttls(context=ssl.create_default_context())  # without one no certificate is looked at
        if mail.user is not None:
            server.login(mail.user, os.environ.get(PASSWORD, ""))
        server.send_message(message)
