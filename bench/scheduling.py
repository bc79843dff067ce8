"""Every thread counts alike, whoever it belongs to.

With automatic groups (sched(7), "The autogroup feature") the system shares the
processors among sessions of setsid(2), and not among threads. A server whose
children each begin a session of their own then has as many shares as children,
and one of threads has a single share against its own clients: which server is
measured as fast depends on that, as long as the clients are on the same machine.
"""

import contextlib
from pathlib import Path

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
