"""What processes cost, from /proc: of a whole tree, the dead included."""

import os
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """The process and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, ahead = [], [root]
    while ahead:
        pid = ahead.pop()
        found.append(pid)
        ahead += children.get(pid, [])
    return found


def oldest_below(root: int) -> int:
    """What was started first below the process and has not ended: who adopts may have others, and the dead."""
    found = [(int(fields[19]), pid) for pid in tree(root)[1:] if (fields := stat(pid)) and fields[0] != "Z"]
    return min(found)[1]


def stat(pid: int) -> list[str] | None:
    """The fields of proc_pid_stat(5) from the third on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def cpu_seconds(root: int) -> float:
    """Processor time of the tree so far, with that of children which were waited for."""
    ticks = 0
    for pid in tree(root):
        if fields := stat(pid):
            # utime, stime, cutime, cstime
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICK


def memory_bytes(root: int) -> int:
    """Memory that would be free without the tree: private pages and shares of others."""
    total = 0
    for pid in tree(root):
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total


def resident_bytes(pid: int) -> int:
    """Resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
