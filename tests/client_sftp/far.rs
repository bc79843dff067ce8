//! Over a way of 100 ms: this client beside OpenSSH's, with either server.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wharf_testkit::{DelayingRelay, OpenSsh, Proof, Sshd, Wharf, noise};

use crate::person::Person;

const MEASURED_BYTES: usize = 128_000_000;
const ROUNDS: usize = 3;
const ONE_WAY: Duration = Duration::from_millis(50);

/// A server behind the relay, and both clients, which have files `local`.
struct Far {
    name: &'static str,
    relay: DelayingRelay,
    user: String,
    /// The folder for files, as SFTP shows it and as it is here.
    folder: String,
    home: PathBuf,
    person: Person,
    clients: OpenSsh,
    key: PathBuf,
}

impl Far {
    fn new(
        name: &'static str,
        server: std::net::SocketAddr,
        user: &str,
        folder: &str,
        home: PathBuf,
        key: &Path,
    ) -> Option<Self> {
        let far = Self {
            name,
            relay: DelayingRelay::start(server, ONE_WAY),
            user: user.to_owned(),
            folder: folder.to_owned(),
            home,
            person: Person::new(),
            clients: OpenSsh::new()?,
            key: key.to_owned(),
        };
        let key = std::fs::read(key).expect("a key");
        far.person.write(".ssh/id_ed25519", &key);
        Some(far)
    }

    fn ours(&self, work: Work) -> Duration {
        let there = format!("{}/{}", self.folder, work.remote());
        let url = format!("sftp://{}@{}/{there}", self.user, self.relay.address());
        // OpenSSH's compares nothing, either.
        let options = ["--accept-new", "--quiet", "--no-verify"];
        let arguments = match work {
            Work::Get => ["get", &url, "ours"],
            Work::Put => ["put", "local", &url],
        };
        let mut client = self.person.client(&[&arguments[..], &options].concat());
        timed(&mut client)
    }

    fn theirs(&self, work: Work) -> Duration {
        let local = |name| self.person.file(name).display().to_string();
        let there = format!("{}/{}", self.folder, work.remote());
        let line = match work {
            Work::Get => format!("get {there} {}\n", local("theirs")),
            Work::Put => format!("put {} {there}\n", local("local")),
        };
        let batch = self.clients.file("batch");
        std::fs::write(&batch, line).expect("written");
        let proof = Proof::Key(&self.key);
        let mut client = self.clients.client("sftp", self.relay.address(), proof);
        client.args(["-q", "-b"]).arg(&batch);
        client.arg(format!("{}@127.0.0.1", self.user));
        timed(&mut client)
    }

    /// Alternate rounds; the rates of this client and of OpenSSH's, in MB/s.
    fn compare(&self, work: Work) -> [f64; 2] {
        let mut rounds = [Vec::new(), Vec::new()];
        // The first round warms both up.
        for round in 0..=ROUNDS {
            let clients = [Self::ours, Self::theirs];
            let times = clients.map(|client| {
                // What stands there already might only be compared.
                for old in [
                    self.home.join("sent"),
                    self.person.file("ours"),
                    self.person.file("theirs"),
                ] {
                    let _ = std::fs::remove_file(old);
                }
                client(self, work)
            });
            for (rounds, time) in rounds.iter_mut().zip(times) {
                rounds.extend((round > 0).then_some(time));
            }
        }
        let [ours, theirs] = rounds.map(|mut times: Vec<Duration>| {
            times.sort();
            let rate = |time: Duration| MEASURED_BYTES as f64 / time.as_secs_f64() / 1e6;
            let [fastest, median, slowest] = times.try_into().expect("as many as rounds");
            [median, slowest, fastest].map(rate)
        });
        eprintln!(
            "{} {work:?}: wharf {:.1} MB/s ({:.1} to {:.1}), sftp {:.1} MB/s ({:.1} to {:.1}), ratio {:.2}",
            self.name,
            ours[0],
            ours[1],
            ours[2],
            theirs[0],
            theirs[1],
            theirs[2],
            ours[0] / theirs[0]
        );
        [ours[0], theirs[0]]
    }
}

#[derive(Debug, Clone, Copy)]
enum Work {
    Get,
    Put,
}

impl Work {
    fn remote(self) -> &'static str {
        match self {
            Self::Get => "there",
            Self::Put => "sent",
        }
    }
}

fn timed(client: &mut Command) -> Duration {
    client.stdin(Stdio::null());
    let started = Instant::now();
    let output = client.output().expect("starts");
    let elapsed = started.elapsed();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    elapsed
}

/// `just compare-sftp-far` measures it. OpenSSH's client lets 2 MiB come ahead, and OpenSSH's
/// server takes 2 MiB ahead, whoever sends; to a server that takes more, OpenSSH's client sends
/// 16 MiB ahead, as this one does.
#[test]
#[ignore = "takes minutes and wants a machine of its own"]
fn over_a_hundred_milliseconds_files_move_twice_as_fast_as_openssh_has_it() {
    let (Some(keys), Some(sshd)) = (OpenSsh::new(), Sshd::start("")) else {
        return;
    };
    let wharf = Wharf::new(env!("CARGO_BIN_EXE_wharf"));
    wharf.add_user("alice", &[]);
    let (key, line) = keys.make_key("ed25519", "alice-key");
    let (success, _, errors) = wharf.run(&["user", "key", "add", "alice", &line], "");
    assert!(success, "{errors}");
    let server = wharf.serve(&["--ssh", "127.0.0.1:0"]);

    let root = sshd.root();
    let folder = root.to_str().expect("text").to_owned();
    let home = wharf.home("alice");
    let user = sshd.user();
    let key_of_sshd = sshd.key("key");
    let (Some(near), Some(other)) = (
        Far::new("Wharf", server.ssh(), "alice", "", home, &key),
        Far::new("sshd", sshd.address(), &user, &folder, root, &key_of_sshd),
    ) else {
        return;
    };
    let content = noise(MEASURED_BYTES, 7);
    let rates = [near, other].map(|far| {
        std::fs::write(far.home.join("there"), &content).expect("written");
        far.person.write("local", &content);
        let rates = [Work::Get, Work::Put].map(|work| far.compare(work));
        assert!(std::fs::read(far.home.join("sent")).expect("there") == content);
        rates
    });
    let [[get, put], [get_of_sshd, put_to_sshd]] = rates;
    for [ours, theirs] in [get, get_of_sshd] {
        assert!(ours > 2.0 * theirs, "downloads: {ours} and {theirs} MB/s");
    }
    let (ours, theirs) = (put[0], put_to_sshd[1]);
    assert!(
        ours > 2.0 * theirs,
        "uploads, either with its own: {ours} and {theirs} MB/s"
    );
}
