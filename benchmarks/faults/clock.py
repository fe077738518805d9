"""A clock that jumps: a library before the C library adds what a file says to the time of day, while the process runs."""

import random
import struct
import subprocess
from pathlib import Path

from benchmarks.faults.fault import Fault
from benchmarks.faults.warm import Process

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile long long *shift(void) {
    static volatile long long *at, none;
    if (!at) {
        const char *path = getenv("FAULT_CLOCK");
        int file = path ? open(path, O_RDONLY) : -1;
        void *page = file < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
        at = page == MAP_FAILED ? &none : page;
    }
    return at;
}
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *shift();
    return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    int failed = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec, now->tv_usec = exact.tv_nsec / 1000;
    return failed;
}
time_t time(time_t *out) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (out) *out = exact.tv_sec;
    return exact.tv_sec;
}
"""


class ClockJump(Fault):
    """The time of day jumps by one of `seconds` (seeded) when it strikes; timers and sleeping go on as before.

    Needs a C compiler (`cc`) and Linux. What else the process starts sees the same clock.
    """

    name = "clock jump"

    def __init__(self, scratch: Path, seconds: tuple[int, ...]) -> None:
        self.seconds = seconds
        self._library, self._shift = scratch / "clock.so", scratch / "clock.shift"
        scratch.mkdir(parents=True, exist_ok=True)
        self._set(0)
        if not self._library.exists():
            command = ["cc", "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(self._library), "-ldl"]
            subprocess.run(command, input=SOURCE.encode(), check=True)

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "FAULT_CLOCK": str(self._shift)}

    def strike(self, process: Process, rng: random.Random) -> None:
        self._set(rng.choice(self.seconds))

    def mend(self) -> None:
        self._set(0)

    def _set(self, seconds: int) -> None:
        """In place: processes have mapped the file."""
        self._shift.touch()
        with self._shift.open("r+b") as file:
            file.write(struct.pack("q", seconds))
