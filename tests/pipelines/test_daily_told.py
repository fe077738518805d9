"""How a day is told: by webhook and by e-mail, to servers that take it and to those that do not."""

import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipelines.daily.notify import notify
from recsys.daily_config import DailyConfig


class TestTelling:
    def test_a_webhook_gets_headline_and_report(self) -> None:
        with listening(Hook) as server:
            rules = DailyConfig(webhook=f"http://127.0.0.1:{server.server_address[1]}/hook")
            assert notify(rules, "all is well", "# all is well", {"day": "2026-01-02"}) == {"webhook": "sent"}
        assert server.got == [{"text": "all is well", "report": {"day": "2026-01-02"}}]

    def test_a_mail_has_the_headline_as_its_subject(self) -> None:
        with listening(Mail) as server:
            mail = {"to": ["a@example.org", "b@example.org"], "host": "127.0.0.1", "port": server.server_address[1]}
            assert notify(DailyConfig(email=mail), "all is well", "# all is well", {}) == {"email": "sent"}
        text = "".join(server.got)
        assert "Subject: all is well" in text
        assert "rcpt to:<b@example.org>" in text.lower()
        assert "# all is well" in text

    def test_what_cannot_be_sent_is_said(self) -> None:
        with listening(Refuse) as server:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            assert notify(DailyConfig(webhook=url), "x", "x", {}) == {
                "webhook": "not sent: HTTP Error 500: Internal Server Error"
            }
        assert notify(DailyConfig(webhook=url), "x", "x", {})["webhook"].startswith("not sent: ")  # nobody is there any more

    def test_an_answer_that_is_no_http_fails_no_day(self) -> None:
        with listening(Chatter) as server:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            assert notify(DailyConfig(webhook=url), "x", "x", {})["webhook"].startswith("not sent: hello")
        found = notify(DailyConfig(webhook="http://127.0.0.1:port/"), "x", "x", {})
        assert found == {"webhook": "not sent: nonnumeric port: 'port'"}

    def test_a_redirect_is_not_taken_for_sent(self) -> None:
        with listening(Moved) as server:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            assert notify(DailyConfig(webhook=url), "x", "x", {}) == {"webhook": "not sent: HTTP Error 301: Moved Permanently"}

    def test_a_password_goes_to_no_server_whose_certificate_nobody_vouches_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RECSYS_SMTP_PASSWORD", "secret")
        with listening(Encrypted) as server:
            server.certificate = self_signed(tmp_path / "server.pem")
            mail = {"to": ["a@example.org"], "host": "127.0.0.1", "port": server.server_address[1], "starttls": True}
            assert "CERTIFICATE_VERIFY_FAILED" in notify(DailyConfig(email=mail), "x", "x", {})["email"]
            assert server.got == []
            monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
            assert notify(DailyConfig(email={**mail, "user": "recsys"}), "x", "x", {}) == {"email": "sent"}
        assert any(line.startswith("AUTH ") for line in server.got)


@contextmanager
def listening(handler: Any) -> Iterator[Any]:
    kind = HTTPServer if issubclass(handler, BaseHTTPRequestHandler) else socketserver.TCPServer
    with kind(("127.0.0.1", 0), handler) as server:
        server.got = []  # type: ignore[union-attr]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Hook(BaseHTTPRequestHandler):
    status = 200

    def do_POST(self) -> None:
        self.server.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))  # type: ignore[attr-defined]
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


class Refuse(Hook):
    status = 500


class Moved(Hook):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(301)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


class Chatter(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.request.recv(65_536)
        self.wfile.write(b"hello\r\n\r\n")


class Mail(socketserver.StreamRequestHandler):
    """As much of SMTP as a message needs."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        self.talk()

    def talk(self) -> None:
        in_text = False
        for line in self.rfile:
            self.server.got.append(line.decode())  # type: ignore[attr-defined]
            if in_text:
                in_text = line != b".\r\n"
                if not in_text:
                    self.wfile.write(b"250 taken\r\n")
            elif line.upper().startswith(b"DATA"):
                in_text = True
                self.wfile.write(b"354 go on\r\n")
            elif line.upper().startswith(b"QUIT"):
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"250 ok\r\n")


class Encrypted(Mail):
    """The same after STARTTLS."""

    def handle(self) -> None:
        for answer in (b"220 here\r\n", b"250-here\r\n250 STARTTLS\r\n", b"220 go on\r\n"):
            self.wfile.write(answer)
            if not answer.endswith(b"go on\r\n"):
                self.rfile.readline()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server.certificate)  # type: ignore[attr-defined]
        with suppress(OSError), context.wrap_socket(self.request, server_side=True) as stream:
            self.rfile, self.wfile = stream.makefile("rb"), stream.makefile("wb", buffering=0)
            assert self.rfile.readline().lower().startswith(b"ehlo")
            self.wfile.write(b"250-here\r\n250 AUTH PLAIN\r\n")
            command = self.rfile.readline()
            if command.startswith(b"AUTH"):
                self.server.got.append(command.decode())  # type: ignore[attr-defined]
                self.wfile.write(b"235 welcome\r\n")
            self.talk()


def self_signed(path: Path) -> Path:
    """Key and certificate of 127.0.0.1 in one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
        .add_extension(address, critical=False).sign(key, hashes.SHA256())
    )  # fmt: skip
    kinds = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(*kinds) + made.public_bytes(serialization.Encoding.PEM))
    return path
