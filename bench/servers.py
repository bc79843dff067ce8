"""The servers that are measured: how each is started with one account and one home."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import processes

USER, PASSWORD = "alice", "secret"
# `openssl passwd -1 -salt wharf secret`: a hash that costs every peer little.
MD5_CRYPT = "$1$wharf$08gOTT7scVNKIWLzWvDoX0"
NOBODY = 65534


KEEPER = Path(__file__).parent / "keeper.py"


class Missing(Exception):
    """A server that is not installed; the text says how to get it."""


class Server:
    """A running server; `pid` is the root of its process tree, the keeper."""

    #: What the table calls it.
    name = ""
    #: Workloads that it cannot do, by their names.
    without: frozenset[str] = frozenset()
    #: Sessions beyond which it is not asked how its cost grows.
    most_sessions = 10_000
    user, password = USER, PASSWORD
    #: What it hashes uploads with while they come, if it does.
    digest: str | None = None
    #: Where the home is, seen from where a login leads to.
    directory: str | None = None

    def __init__(self, places, folder: Path, home: Path, certificate: Path):
        self.places, self.folder, self.home, self.certificate = places, folder, home, certificate
        self.folder.mkdir(parents=True)
        # Servers that give up root must get through to what they read.
        self.folder.chmod(0o755)
        self.port = free_port()
        self.log = open(self.folder / "log", "wb")
        self.process = None
        #: The command, once its files are written.
        self.words: list[str] | None = None

    def command(self) -> list[str]:
        """The program and its arguments; writes the files that it reads."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """What its environment holds beside this one's."""
        return {}

    def version(self) -> str:
        """What it says of itself."""
        raise NotImplementedError

    def start(self) -> float:
        """Starts it; seconds until it greets."""
        if self.words is None:
            self.words = self.command()
        began = self.folder / "began"
        deadline = time.monotonic() + 30
        self.process = subprocess.Popen(
            [sys.executable, KEEPER, began, *self.words], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL,
            start_new_session=True, env={**os.environ, **self.environment()},
        )
        while time.monotonic() < deadline and self.process.poll() is None:
            if greets(self.port):
                return time.monotonic() - float(began.read_text())
            time.sleep(0.002)
        self.stop()
        text = (self.folder / "log").read_text(errors="replace")
        sys.exit(f"bench: {self.name} does not start: {' '.join(self.words)}\n{text}")

    def stop(self) -> None:
        """Ends it with everything that it has started."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
        self.log.close()

    def restart(self) -> float:
        """Ends it and starts it with what it has written so far; seconds until it greets."""
        self.stop()
        self.log = open(self.folder / "log", "ab")
        return self.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def own_pid(self) -> int:
        """The server's first process."""
        return processes.oldest_below(self.pid)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as stream:
            return stream.recv(3) == b"220"
    except OSError:
        return False


def output(*command, **options) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    return (done.stdout + done.stderr).strip()


def need(path: Path, how: str) -> Path:
    if not path.exists():
        raise Missing(f"{path} is not there; {how}")
    return path


class Wharf(Server):
    name = "wharf"
    digest = "BLAKE3"

    def command(self):
        program, data = self.places.wharf, self.folder / "data"
        config = self.folder / "wharf.toml"
        config.write_text(
            f'data_dir = "{data}"\nhome_roots = ["{self.home.parent}"]\n'
            f'[ftp]\nlisten = ["127.0.0.1:{self.port}"]\npassive_ports = "0-0"\n'
            "[limits]\nconnections = 40000\nper_address = 40000\nper_user = 40000\n"
            "before_login_per_address = 40000\n"
            '[log]\nlevel = "error"\n'
        )
        subprocess.run(
            [program, "user", "add", USER, "--password-stdin", "--config", config, "--home", self.home],
            input=PASSWORD + "\n", text=True, check=True, capture_output=True,
        )
        return [str(program), "serve", "--config", str(config)]

    def version(self):
        return output(self.places.wharf, "--version")


class Vsftpd(Server):
    name = "vsftpd"
    # A process or two for each: more would measure the machine.
    most_sessions = 1000
    user, password = "anonymous", "anonymous@"
    # It wants a root that nobody may write to.
    directory = "home"
    # Its accounts are the system's; without one it has no login to measure. It
    # does not know MLSD.
    without = frozenset({"login", "logins", "mlsd"})

    @property
    def program(self):
        return need(self.places.peers / "vsftpd/usr/sbin/vsftpd", "run: bench/run --set-up")

    def command(self):
        (self.folder / "empty").mkdir()
        tls = (
            "ssl_enable=YES\nallow_anon_ssl=YES\nforce_local_logins_ssl=NO\nforce_local_data_ssl=NO\n"
            f"require_ssl_reuse=NO\nrsa_cert_file={self.certificate}\nrsa_private_key_file={self.certificate}\n"
        )
        config = self.folder / "vsftpd.conf"
        config.write_text(
            f"listen=YES\nlisten_address=127.0.0.1\nlisten_port={self.port}\nbackground=NO\n"
            "seccomp_sandbox=NO\nisolate=NO\nisolate_network=NO\nanonymous_enable=YES\nlocal_enable=NO\nno_anon_password=YES\n"
            # An account whose home exists: it is entered before the root is changed.
            f"ftp_username=daemon\nnopriv_user=nobody\nanon_root={self.home.parent}\n"
            f"secure_chroot_dir={self.folder}/empty\nwrite_enable=YES\nanon_upload_enable=YES\n"
            "anon_mkdir_write_enable=YES\nanon_other_write_enable=YES\nanon_world_readable_only=NO\n"
            "anon_umask=022\nmax_clients=0\nmax_per_ip=0\n"
            f"connect_from_port_20=NO\nxferlog_enable=NO\n{tls}"
        )
        return [str(self.program), str(config)]

    def version(self):
        return output("sh", "-c", f"{self.program} -v 0>&1")


class PureFtpd(Server):
    name = "pure-ftpd"
    # A process or two for each: more would measure the machine.
    most_sessions = 1000

    @property
    def program(self):
        return need(self.places.peers / "pure-ftpd/usr/sbin/pure-ftpd", "run: bench/run --set-up")

    def command(self):
        passwords, database = self.folder / "passwd", self.folder / "pdb"
        passwords.write_text(f"{USER}:{MD5_CRYPT}:{NOBODY}:{NOBODY}::{self.home}/./::::::::::::\n")
        maker = self.program.parents[1] / "bin/pure-pw"
        subprocess.run([maker, "mkdb", database, "-f", passwords], check=True)
        return [
            str(self.program), "-S", f"127.0.0.1,{self.port}", "-l", f"puredb:{database}", "-E", "-H",
            "-u", "1", "-c", "30000", "-C", "30000", "-L", "2000000:10", "-g", f"{self.folder}/pid",
            "--tls=1", f"--certfile={self.certificate}",
        ]

    def version(self):
        return output(self.program, "--help").splitlines()[0]


class Proftpd(Server):
    name = "proftpd"
    # A process or two for each: more would measure the machine.
    most_sessions = 1000

    @property
    def program(self):
        return need(self.places.peers / "proftpd-core/usr/sbin/proftpd", "run: bench/run --set-up")

    def command(self):
        modules = self.places.peers / "proftpd-mod-crypto/usr/lib/proftpd"
        passwords = self.folder / "passwd"
        passwords.write_text(f"{USER}:{MD5_CRYPT}:{NOBODY}:{NOBODY}::{self.home}:/bin/false\n")
        passwords.chmod(0o600)
        config = self.folder / "proftpd.conf"
        config.write_text(
            f"ServerType standalone\nServerName bench\nPort {self.port}\nDefaultAddress 127.0.0.1\n"
            f"SocketBindTight on\nModulePath {modules}\nLoadModule mod_tls.c\nUser nobody\nGroup nogroup\n"
            "UseReverseDNS off\nUseIPv6 off\nWtmpLog off\nTransferLog none\nSystemLog none\n"
            f"ScoreboardFile {self.folder}/scoreboard\nPidFile {self.folder}/pid\nDelayEngine off\n"
            f"AuthOrder mod_auth_file.c\nAuthUserFile {passwords}\nRequireValidShell off\n"
            "DefaultRoot ~\nAllowOverwrite on\nMaxInstances 30000\nListOptions \"\" maxfiles 2000000\n"
            "<IfModule mod_tls.c>\nTLSEngine on\nTLSRequired off\nTLSProtocol TLSv1.2 TLSv1.3\n"
            f"TLSECCertificateFile {self.certificate}\nTLSECCertificateKeyFile {self.certificate}\n"
            "TLSOptions NoSessionReuseRequired\nTLSLog none\n</IfModule>\n"
        )
        return [str(self.program), "-n", "-q", "-c", str(config)]

    def version(self):
        return output(self.program, "--version")


class Pyftpdlib(Server):
    name = "pyftpdlib"

    @property
    def python(self):
        return need(self.places.venv / "bin/python", "run: bench/run --set-up")

    def command(self):
        script = self.folder / "server.py"
        script.write_text(
            "from pyftpdlib.authorizers import DummyAuthorizer\n"
            "from pyftpdlib.handlers import TLS_FTPHandler\n"
            "from pyftpdlib.servers import FTPServer\n"
            "import logging; logging.basicConfig(level=logging.ERROR)\n"
            "authorizer = DummyAuthorizer()\n"
            f"authorizer.add_user({USER!r}, {PASSWORD!r}, {str(self.home)!r}, perm='elradfmwMT')\n"
            "TLS_FTPHandler.authorizer = authorizer\n"
            f"TLS_FTPHandler.certfile = {str(self.certificate)!r}\n"
            f"server = FTPServer(('127.0.0.1', {self.port}), TLS_FTPHandler, backlog=4096)\n"
            "server.max_cons = 40000\n"
            "server.serve_forever()\n"
        )
        return [str(self.python), str(script)]

    def version(self):
        return "pyftpdlib " + output(self.python, "-c", "import pyftpdlib; print(pyftpdlib.__ver__)")


class Unftp(Server):
    name = "unftp"
    # Minutes for what others do in a second (4 KiB files), or more than it takes.
    without = frozenset({"small-down", "small-up", "tls-small-down", "tls-small-up"})

    @property
    def program(self):
        return need(self.places.unftp, "run: bench/run --set-up")

    def command(self):
        accounts = self.folder / "accounts.json"
        accounts.write_text(f'[{{"username": "{USER}", "password": "{PASSWORD}"}}]')
        return [
            str(self.program), "--bind-address", f"127.0.0.1:{self.port}", "--root-dir", str(self.home),
            "--auth-type", "json", "--auth-json-path", str(accounts), "--passive-ports", "35000-60000",
            "--ftps-certs-file", str(self.certificate), "--ftps-key-file", str(self.certificate),
            "--idle-session-timeout", "3600", "--failed-logins-policy", "ip",
        ]

    def version(self):
        return output(self.program, "--version")


ALL = {kind.name: kind for kind in (Wharf, Vsftpd, PureFtpd, Proftpd, Pyftpdlib, Unftp)}


class Places:
    """Where the programs are."""

    def __init__(self, root: Path):
        target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
        self.root = root
        self.wharf = target / "release/wharf"
        self.load = target / "release/wharf-bench"
        self.tools = target / "bench"
        self.peers = Path(os.environ.get("WHARF_TEST_PEERS", target / "peers"))
        self.venv = self.tools / "venv"
        self.unftp = self.tools / "bin/unftp"

    def build(self) -> None:
        """The program and the load generator."""
        command = ["cargo", "build", "--release", "--package", "wharf", "--package", "wharf-bench"]
        subprocess.run(command, cwd=self.root, check=True)

    def set_up_peers(self) -> None:
        """From Debian, PyPI and crates.io; what is there already stays."""
        self.peers.mkdir(parents=True, exist_ok=True)
        for package in ("vsftpd", "pure-ftpd", "pure-ftpd-common", "proftpd-core", "proftpd-mod-crypto"):
            if (self.peers / package).exists():
                continue
            subprocess.run(["apt-get", "download", "-qq", package], cwd=self.peers, check=True)
            archive = next(self.peers.glob(f"{package}_*.deb"))
            subprocess.run(["dpkg", "-x", archive, self.peers / package], check=True)
        if not self.venv.exists():
            subprocess.run([sys.executable, "-m", "venv", self.venv], check=True)
            packages = ["pyftpdlib", "pyopenssl", "pysendfile", "pyasyncore", "pyasynchat"]
            subprocess.run([self.venv / "bin/pip", "install", "-q", *packages], check=True)
        if not self.unftp.exists():
            command = ["cargo", "install", "--quiet", "--locked", "--root", self.tools, "unftp"]
            subprocess.run(command, check=True)
