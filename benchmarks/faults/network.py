"""A lost network: a TCP proxy before a real server that is cut, either refusing connections or swallowing what is sent."""

import random
import socket
import threading
from contextlib import suppress

from benchmarks.faults.fault import Fault
from benchmarks.faults.warm import Process


class Proxy:
    """Forwards connections to 127.0.0.1:`port` from a port of its own, until it is cut. Threads; stopped by `close`."""

    def __init__(self, port: int) -> None:
        self.target = port
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
        self._silent = False
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self, *, silent: bool) -> None:
        """Drop every connection. `silent`: later ones are taken and never answered, else they are refused."""
        with self._lock:
            self._silent = silent
            if not silent:
                _shut(self._listener)
            broken, self._open = self._open, set()
        for each in broken:
            _shut(each)

    def mend(self) -> None:
        with self._lock:
            broken, self._open = self._open, set()
            if self._silent:
                self._silent = False
            elif self._listener.fileno() == -1:
                self._listener = socket.create_server(("127.0.0.1", self.port))
                threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        for each in broken:
            _shut(each)

    def close(self) -> None:
        self.cut(silent=False)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(client)
                silent = self._silent
            if not silent:
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
        except OSError:
            _shut(client)
            return
        server.settimeout(None)
        with self._lock:
            self._open.add(server)
        threading.Thread(target=self._pump, args=(server, client), daemon=True).start()
        self._pump(client, server)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for each in (source, sink):
            with self._lock:
                self._open.discard(each)
            _shut(each)


def _shut(door: socket.socket) -> None:
    with suppress(OSError):
        door.shutdown(socket.SHUT_RDWR)
    door.close()


class LostNetwork(Fault):
    """The way to the MLflow server is cut, by chance (seeded) with or without an answer, and comes back after the run."""

    name = "lost network"

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    def strike(self, process: Process, rng: random.Random) -> None:
        self.proxy.cut(silent=rng.random() < 0.5)

    def mend(self) -> None:
        self.proxy.mend()
