"""A server's processes end together and leave nothing behind, whichever of them is killed, and however.

BentoML's workers are in sessions of their own and outlive a parent that was killed: they would hold the port and go on
answering, with nobody to start them again, or to stop them. Its parent process takes a closed terminal for an order to start
the workers anew.
"""

import atexit
import os
import shutil
import signal
import threading
import time

PARENT_VARIABLE = "RECSYS_PARENT"  # the process without which one is not to go on
SCRATCH_VARIABLE = "RECSYS_SCRATCH"  # the folder of the server that nobody else removes
LOOK_S = 0.5


def oversee() -> None:
    """In the process that starts the workers, before it does: how it ends, and that they end with it."""
    end_with_parent()
    os.environ[PARENT_VARIABLE] = str(os.getpid())  # of the workers
    if scratch := os.environ.get(SCRATCH_VARIABLE):
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    _end_with_terminal()


def end_with_parent() -> None:
    """Send this process a SIGTERM, after which it answers what it has begun, once the one that the variable names is gone."""
    if parent := os.environ.get(PARENT_VARIABLE):
        threading.Thread(target=_watch, args=(int(parent),), name="parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)


def _end_with_terminal() -> None:
    from circus.sighandler import SysHandler  # BentoML brings it, and runs its parent process by it; slow to import

    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup: the server is to outlive its terminal
    SysHandler.handle_hup = (lambda self: None) if ignored else SysHandler.quit
