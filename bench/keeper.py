"""Starts a server, notes when, and waits for every process that it leaves behind.

A server may abandon children (vsftpd's sessions do). As their new parent this
collects what they cost, so that it is found in one place: cutime and cstime of
this process (proc_pid_stat(5)).
"""

import ctypes
import os
import sys
import time

PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit(f"keeper: prctl: {os.strerror(ctypes.get_errno())}")
    began, command = sys.argv[1], sys.argv[2:]
    with open(began, "w") as file:
        file.write(str(time.monotonic()))
    server = os.spawnvp(os.P_NOWAIT, command[0], command)
    while True:
        ended, status = os.wait()
        if ended == server:
            sys.exit(os.waitstatus_to_exitcode(status) or 1)


if __name__ == "__main__":
    main()
