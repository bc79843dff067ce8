"""A loopback network of its own, so that what is measured is servers.

Congestion control is a setting of the network. One that paces, such as BBR,
sends by a clock and by what it believes of the way: over loopback a bare
sendfile loop then reaches half of what the processor allows, now more and now
less, and its timers cost as much again as moving the bytes. CUBIC (RFC 9438)
sends what the windows allow.
"""

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

#: unshare(2).
CLONE_NEWNET = 0x40000000
#: netdevice(7).
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

SETTING = Path("/proc/sys/net/ipv4/tcp_congestion_control")
#: What networks beside the machine's own may choose; of the whole machine.
ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")


def enter(control: str) -> None:
    """Leaves the machine's network for one that has loopback only, with this congestion control."""
    before = ALLOWED.read_text()
    # Opened in the machine's network, where alone it may be written.
    with open(ALLOWED, "w") as allowed:
        allowed.write(f"{before.strip()} {control}")
        allowed.flush()
        try:
            unshare(control)
        finally:
            allowed.seek(0)
            allowed.write(before)


def unshare(control: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    SETTING.write_text(control)


def congestion_control() -> str:
    """What TCP goes by here."""
    return SETTING.read_text().strip()
