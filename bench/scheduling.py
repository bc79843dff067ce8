"""Every thread counts alike, whoever it belongs to, and who takes turns does so on one processor.

With automatic groups (sched(7), "The autogroup feature") the system shares the
processors among sessions of setsid(2), and not among threads. A server whose
children each begin a session of their own then has as many shares as children,
and one of threads has a single share against its own clients: which server is
measured as fast depends on that, as long as the clients are on the same machine.

In a conversation one side waits while the other works. On two processors each
turn wakes one that sleeps: on a virtual machine that takes a hundred
microseconds and more, five times what both do for a command, unless the
scheduler happens to run the waiting side where the other one is.
"""

import contextlib
import os
from pathlib import Path

import processes

SETTING = Path("/proc/sys/kernel/sched_autogroup_enabled")


@contextlib.contextmanager
def without_groups():
    """No automatic groups for what starts meanwhile; afterwards as before."""
    before = SETTING.read_text() if SETTING.exists() else None
    if before is not None:
        SETTING.write_text("0")
    try:
        yield
    finally:
        if before is not None:
            SETTING.write_text(before)


@contextlib.contextmanager
def on_one_processor(server: int):
    """The server's tree of processes, and whatever is started meanwhile, on one processor.

    The server was started before, on all of them, and has as many threads as for that.
    """
    before = os.sched_getaffinity(0)
    one = {min(before)}
    for pid in processes.tree(server):
        # Those of ended sessions may be gone by now.
        with contextlib.suppress(FileNotFoundError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), one)
    os.sched_setaffinity(0, one)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
