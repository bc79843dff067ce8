"""What is measured, and in which units."""

import contextlib
import json
import subprocess
import time
from dataclasses import dataclass

import processes
import scheduling

MIB = 1024 * 1024


@dataclass(frozen=True)
class Value:
    """One number of a workload."""

    name: str
    unit: str
    less_is_better: bool = False

    def show(self, result: dict) -> str:
        number = result[self.name]
        return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


class Workload:
    """A load, and what comes of it."""

    #: Whether the load generator can be a bare server for the same.
    has_limit = False

    def __init__(self, name: str, what: str, values: list[Value]):
        self.name, self.what, self.values = name, what, values

    def suits(self, kind) -> bool:
        """Whether that kind of server can do it."""
        return self.name not in kind.without

    def run(self, bench, server) -> dict:
        raise NotImplementedError

    def show(self, result: dict) -> str:
        return "  ".join(f"{value.show(result)} {value.unit}" for value in self.values)


class Load(Workload):
    """One call of the load generator, with the processor time that it costs the server."""

    has_limit = True
    #: Whether client and server take turns, with nothing to do for the other one meanwhile.
    in_turns = False

    def __init__(self, name, what, values, command, arguments, tls=False):
        super().__init__(name, what, values)
        self.command, self.arguments, self.tls = command, arguments, tls

    def words(self, bench) -> list:
        words = self.arguments(bench.options)
        return [*words, "--tls"] if self.tls else words

    def place(self, bench, pid):
        """Where the server and its clients run meanwhile."""
        if self.in_turns and not bench.options.spread:
            return scheduling.on_one_processor(pid)
        return contextlib.nullcontext()

    def run(self, bench, server):
        # Whatever the first login costs (a hash of the password) is no part of it.
        bench.load(server, "login", "--count", 1)
        with self.place(bench, server.pid):
            before = settled_cpu(server.pid)
            report = bench.load(server, self.command, *self.words(bench))
            return self.value_of(report, settled_cpu(server.pid) - before)

    def run_limit(self, bench) -> dict:
        words = ["--certificate", bench.certificate] if self.tls else []
        with bench.bare("converse", bench.home, *words) as (pid, address), self.place(bench, pid):
            before = settled_cpu(pid)
            words = ["--address", address, "--user", "anyone", "--password", "any", *self.words(bench)]
            report = bench.generator(self.command, *words)
            return self.value_of(report, settled_cpu(pid) - before)

    def value_of(self, report, cpu) -> dict:
        raise NotImplementedError


class Stream(Load):
    """Bytes one way."""

    def __init__(self, name, what, command, arguments, tls=False):
        values = [Value("rate", "MiB/s"), Value("cpu", "ms CPU/MiB", less_is_better=True)]
        super().__init__(name, what, values, command, arguments, tls)

    def value_of(self, report, cpu):
        mebibytes = report["bytes"] / MIB
        return {"rate": mebibytes / report["seconds"], "cpu": cpu * 1000 / mebibytes}


class PlainStream(Stream):
    """Bytes one way without TLS, which the kernel alone could move."""

    def run_limit(self, bench):
        down = self.command == "download"
        # The bare loop replaces the file that it is told to when it receives.
        file = bench.home / ("big" if down else "limit")
        file.touch()
        with bench.bare("send" if down else "receive", file) as (pid, address):
            before = settled_cpu(pid)
            words = [word for word in self.words(bench) if word not in ("--path", "big")]
            report = bench.generator("limit", "fetch" if down else "store", address, *words)
            return self.value_of(report, settled_cpu(pid) - before)


class WithDigest(PlainStream):
    """Bytes one way, for which the server computes a digest where it can while they come."""

    def run(self, bench, server):
        if server.digest is None:
            return super().run(bench, server)
        plain = self.arguments
        self.arguments = lambda options: [*plain(options), "--digest", server.digest]
        try:
            return super().run(bench, server)
        finally:
            self.arguments = plain


class Operations(Load):
    """Things done many at once or one behind the other."""

    def __init__(self, name, what, unit, command, arguments, tls=False):
        values = [Value("rate", f"{unit}/s"), Value("cpu", f"µs CPU/{unit}", less_is_better=True)]
        super().__init__(name, what, values, command, arguments, tls)

    def value_of(self, report, cpu):
        done = report["operations"]
        return {"rate": done / report["seconds"], "cpu": cpu * 1e6 / done}


class Turns(Operations):
    """Things done one after the other, each once the one before is answered."""

    in_turns = True


class Listing(Load):
    """A directory with many entries."""

    has_limit = False

    def __init__(self, name, what, verb):
        values = [
            Value("rate", "entries/s"),
            Value("cpu", "µs CPU/entry", less_is_better=True),
            Value("first", "ms to first byte", less_is_better=True),
        ]
        super().__init__(name, what, values, "list", lambda _: ["--verb", verb, "--path", "list", "--rounds", 20])

    def run(self, bench, server):
        self.entries = bench.options.entries
        return super().run(bench, server)

    def value_of(self, report, cpu):
        entries = report["operations"] * self.entries
        return {
            "rate": entries / report["seconds"],
            "cpu": cpu * 1e6 / entries,
            "first": report["first_byte_ms"],
        }


class Idle(Workload):
    """Sessions that are logged in and do nothing, and what logins and commands cost beside them."""

    def __init__(self, name, what, sessions: int | None = None):
        values = [
            Value("memory", "KiB/session", less_is_better=True),
            Value("login", "ms for one more login", less_is_better=True),
            Value("noop", "µs for a NOOP", less_is_better=True),
        ]
        super().__init__(name, what, values)
        self.sessions = sessions

    def suits(self, kind):
        return super().suits(kind) and (self.sessions or 0) <= kind.most_sessions

    def run(self, bench, server):
        bench.load(server, "login", "--count", 1)
        before = processes.memory_bytes(server.pid)
        count = self.sessions or bench.options.sessions
        words = bench.words(server, "idle", "--sessions", count)
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            lines = [process.stdout.readline(), process.stdout.readline()]
            if not all(lines):
                raise subprocess.SubprocessError("not all sessions were let in")
            memory = (processes.memory_bytes(server.pid) - before) / count / 1024
            beside = json.loads(lines[1])
            return {"memory": memory, "login": beside["login_ms"], "noop": beside["noop_us"]}
        finally:
            process.stdin.close()
            process.wait()


class Start(Workload):
    """From the start of the program to the greeting."""

    def __init__(self, name, what):
        values = [
            Value("time", "ms to the greeting", less_is_better=True),
            Value("resident", "MiB resident", less_is_better=True),
        ]
        super().__init__(name, what, values)

    def run(self, bench, server):
        # The data directory is there since the account was made, not the certificate.
        server.restart()
        return {
            "time": server.restart() * 1000,
            "resident": processes.resident_bytes(server.own_pid) / MIB,
        }


class Entries(Workload):
    """One listing of a directory of some size."""

    def __init__(self, entries):
        values = [
            Value("entry", "µs/entry", less_is_better=True),
            Value("first", "ms to first byte", less_is_better=True),
            Value("memory", "MiB more at most", less_is_better=True),
        ]
        super().__init__(f"entries-{entries}", f"LIST of {entries:,} entries", values)
        self.entries = entries

    def run(self, bench, server):
        folder = bench.entries(self.entries)
        bench.load(server, "login", "--count", 1)
        before = most = processes.memory_bytes(server.pid)
        process = subprocess.Popen(
            bench.words(server, "list", "--verb", "LIST", "--path", folder.name), stdout=subprocess.PIPE, text=True)
        while process.poll() is None:
            most = max(most, processes.memory_bytes(server.pid))
            time.sleep(0.01)
        if process.returncode:
            raise subprocess.SubprocessError("the directory was not listed")
        report = json.loads(process.stdout.read())
        return {
            "entry": report["seconds"] * 1e6 / self.entries,
            "first": report["first_byte_ms"],
            "memory": (most - before) / MIB,
        }


class BesideSlow(Workload):
    """A fast download beside many slow ones."""

    SESSIONS, RATE = 1000, 10_000

    def __init__(self, name, what):
        values = [Value("alone", "MiB/s alone"), Value("beside", "MiB/s beside"), Value("share", "of alone")]
        super().__init__(name, what, values)

    def run(self, bench, server):
        alone = self.fast(bench, server)
        words = bench.words(server, "slow", "--sessions", self.SESSIONS, "--rate", self.RATE, "--path", "big")
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if not process.stdout.readline():
                raise subprocess.SubprocessError("not all sessions were let in")
            # The first second fills what the kernel holds for each.
            time.sleep(3)
            beside = self.fast(bench, server)
            return {"alone": alone, "beside": beside, "share": beside / alone}
        finally:
            process.stdin.close()
            process.wait()

    def fast(self, bench, server) -> float:
        report = bench.load(server, "download", "--path", "big", "--streams", 1, "--rounds", 8)
        return report["bytes"] / MIB / report["seconds"]


class BesideCold(Workload):
    """Commands of one session while others download what is not in memory, from a disk."""

    DOWNLOADS = 4

    def __init__(self, name, what):
        values = [
            Value("rate", "MiB/s cold"),
            Value("longest", "ms for the slowest of 10,000 NOOPs", less_is_better=True),
        ]
        super().__init__(name, what, values)

    def run(self, bench, server):
        with bench.cold_files(self.DOWNLOADS) as paths:
            downloads = [
                subprocess.Popen(bench.words(server, "download", "--path", path), stdout=subprocess.PIPE, text=True)
                for path in paths
            ]
            longest = bench.load(server, "noop", "--count", 10_000)["longest_ms"]
            reports = [json.loads(download.communicate()[0]) for download in downloads]
        slowest = max(report["seconds"] for report in reports)
        return {"rate": sum(report["bytes"] for report in reports) / MIB / slowest, "longest": longest}


def settled_cpu(root: int) -> float:
    """Processor time once the processes of ended sessions are gone, as far as they go."""
    last = processes.cpu_seconds(root)
    for _ in range(20):
        time.sleep(0.05)
        now = processes.cpu_seconds(root)
        if now == last:
            break
        last = now
    return last


def streams(count, rounds, **more):
    """Arguments of a workload that moves the big file, or as many bytes."""
    def words(options):
        size = options.size * MIB
        bytes_each = size if count == 1 else size // 16
        upload = ["--bytes", bytes_each]
        download = ["--path", "big"]
        return ["--streams", count, "--rounds", rounds, *(upload if more.get("up") else download)]
    return words


ALL = {
    workload.name: workload
    for workload in (
        PlainStream("down", "download, 1 stream", "download", streams(1, 8)),
        PlainStream("down-32", "download, 32 streams", "download", streams(32, 1)),
        PlainStream("up", "upload, 1 stream", "upload", streams(1, 4, up=True)),
        PlainStream("up-32", "upload, 32 streams", "upload", streams(32, 2, up=True)),
        WithDigest("up-digest", "upload, 1 stream, with its digest", "upload", streams(1, 4, up=True)),
        Turns("small-down", "4 KiB files down", "file", "small-down", lambda _: ["--files", 3000]),
        Turns("small-up", "4 KiB files up", "file", "small-up", lambda _: ["--files", 3000]),
        Listing("list", "LIST", "LIST"),
        Listing("mlsd", "MLSD", "MLSD"),
        Turns("noop", "NOOP in lockstep", "command", "noop", lambda _: ["--count", 30_000]),
        Operations("noop-batch", "NOOP in batches of 1,000", "command", "noop",
                   lambda _: ["--count", 300_000, "--batch", 1000]),
        Turns("login", "login and QUIT", "login", "login", lambda _: ["--count", 300]),
        Operations("logins", "login, 300 at once", "login", "login", lambda _: ["--count", 300, "--at-once", 300]),
        Stream("tls-down", "TLS download", "download", streams(1, 1), tls=True),
        Stream("tls-up", "TLS upload", "upload", streams(1, 1, up=True), tls=True),
        Turns("tls-small-down", "TLS, 4 KiB files down", "file", "small-down", lambda _: ["--files", 1000], tls=True),
        Turns("tls-small-up", "TLS, 4 KiB files up", "file", "small-up", lambda _: ["--files", 1000], tls=True),
        Idle("idle", "idle sessions"),
        Start("start", "start"),
        BesideSlow("beside-slow", "download beside 1,000 at 10 KB/s"),
        BesideCold("beside-cold", "beside 4 downloads from a disk"),
    )
}


@dataclass(frozen=True)
class Growth:
    """The same workload at one size after the other."""

    #: What there is more and more of.
    what: str
    #: By size, each with the same values.
    steps: dict[int, Workload]


GROWTHS = (
    Growth("idle sessions", {
        count: Idle(f"idle-{count}", f"{count:,} idle sessions", count) for count in (1, 10, 100, 1000, 10_000)
    }),
    Growth("entries of a directory", {count: Entries(count) for count in (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)}),
)
