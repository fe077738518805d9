"""A file that only grows, by whole lines: what was appended is there after the process was killed, and nothing half.

An append is one `write` to a file opened with O_APPEND. Bytes that `write` took survive the end of the process (the kernel has
them); a power cut only where they were flushed to the disk (`flush`). Each process writes files of its own and holds a lock on
them, so that others can tell a file whose writer has died, which may end in half a line, from one that is being written.
"""

import asyncio
import fcntl
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

NEWLINE = b"\n"
DAY_MS = 86_400_000


class Writer:
    """A new file each day (UTC) and each process. `pattern` says where, with {day} and {process}: HOST-PID-START."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self.folder, self.pattern = folder, pattern
        self.path: Path | None = None
        self.size = 0
        self._day = -1
        self._file = -1
        self._process = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns() // 1000}"
        self._flushing: asyncio.Task[None] | None = None

    def append(self, lines: bytes, now_ms: int) -> tuple[Path, int]:
        """Write lines, each with its newline; the file, and its size before. Raises OSError, and then nothing is there."""
        if now_ms // DAY_MS != self._day:
            self._begin_day(now_ms)
        assert self.path is not None
        begin = self.size
        try:
            written = os.write(self._file, lines)
        except OSError:
            self._cut(begin)
            raise
        if written != len(lines):
            self._cut(begin)
            raise OSError(28, "no space left on device", str(self.path))
        self.size += written
        return self.path, begin

    async def flush(self) -> None:
        """Return once all that was appended before is on the disk. Those who wait together share a flush."""
        if self._file < 0:
            return
        if self._flushing is not None:
            await asyncio.shield(self._flushing)  # may have begun before our lines were there
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        await asyncio.shield(self._flushing)

    async def _flush(self) -> None:
        file = os.dup(self._file)  # midnight may close ours meanwhile
        try:
            await asyncio.get_running_loop().run_in_executor(None, os.fdatasync, file)
        finally:
            os.close(file)

    def close(self) -> None:
        if self._file >= 0:
            os.fdatasync(self._file)
            os.close(self._file)
        self._file, self._day, self.path = -1, -1, None

    def _begin_day(self, now_ms: int) -> None:
        """Raises OSError."""
        day = time.strftime("%Y-%m-%d", time.gmtime(now_ms / 1000))
        path = self.folder / self.pattern.format(day=day, process=self._process)
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        fcntl.flock(opened, fcntl.LOCK_EX)
        _flush_folder(path.parent)
        self.close()
        self._file, self._day, self.path, self.size = opened, now_ms // DAY_MS, path, os.fstat(opened).st_size

    def _cut(self, size: int) -> None:
        with suppress(OSError):
            os.ftruncate(self._file, size)


def _flush_folder(folder: Path) -> None:
    """The name of a new file outlives a power cut, too."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def repair(path: Path) -> bool:
    """Cut off the half line that a dead writer left; whether there was one. A file that is being written is left alone."""
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        size = end = file.seek(0, os.SEEK_END)
        while end:  # backwards, a piece at a time
            begin = max(0, end - 65_536)
            file.seek(begin)
            place = file.read(end - begin).rfind(NEWLINE)
            if place >= 0:
                end = begin + place + 1
                break
            end = begin
        if end != size:
            file.truncate(end)
        return end != size
