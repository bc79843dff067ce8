//! Two thousand sessions at once, honest and broken ones, for as long as
//! `WHARF_SOAK_SECONDS` says: `just soak`. What they leave behind must be nothing.

mod random;
mod session;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use wharf_testkit::{Server, Wharf, count, noise};

use random::Random;
use session::{Place, STEPS, Session};

const SESSIONS: usize = 2000;

/// The last one has [`SMALL_QUOTA`].
const ACCOUNTS: usize = 9;

/// Bytes; met all the time.
const SMALL_QUOTA: u64 = 1_000_000;

/// Bytes; never met.
const LARGE_QUOTA: u64 = 1_000_000_000;

/// Sessions that one account may have, as [`CONFIGURATION`] says: more than
/// come, few enough to open them all at the end.
const SESSIONS_PER_ACCOUNT: usize = 300;

/// Bytes of the file `big` of an account with the large quota.
const BIG: usize = 4_000_000;

/// Bytes of the file `big` of the account with the small quota.
const SMALL_BIG: usize = 400_000;

/// Shortest run: all sessions have begun in an eighth of it.
const LEAST_SECONDS: u64 = 120;

/// Longest time for one step; a step that takes longer has met a stuck session.
const STEP_PATIENCE: Duration = Duration::from_secs(180);

/// Longest pause between two steps of a session, in milliseconds.
const PAUSE_MS: u64 = 15_000;

/// Bytes by which memory in use may grow after the first quarter, beside a
/// tenth of it: allocators keep some for themselves.
const MEMORY_SLACK: u64 = 16 * 1024 * 1024;

/// Longest time for the end of a server that has no session left: less than
/// the 30 seconds that it grants sessions.
const END_PATIENCE: Duration = Duration::from_secs(10);

const CONFIGURATION: &str = r#"
[limits]
per_user = 300
[timeouts]
login = "10s"
data_connect = "3s"
stall = "5s"
"#;

#[test]
#[ignore = "takes ten minutes; run it with: just soak"]
fn two_thousand_sessions_leave_nothing_behind() {
    raise_descriptor_limit();
    let seconds = std::env::var("WHARF_SOAK_SECONDS").ok();
    let seconds = seconds.map_or(600, |text| text.parse().expect("a number of seconds"));
    assert!(
        seconds >= LEAST_SECONDS,
        "memory is still growing before {LEAST_SECONDS} seconds"
    );
    let wharf = Wharf::new(env!("CARGO_BIN_EXE_wharf"));
    for account in 0..ACCOUNTS {
        let quota = quota(account).to_string();
        wharf.add_user(&name(account), &["--quota", &quota]);
    }
    let configuration = wharf.configure(CONFIGURATION);
    let server = wharf.serve(&["--ftps", "127.0.0.1:0", "--config", &configuration]);
    for account in 0..ACCOUNTS {
        let content = noise(big_bytes(account), 1);
        let stored = server.login(&name(account)).upload("STOR big", &content);
        assert_eq!(stored.0, 226);
    }
    all_sessions_of_one_account(&server);
    let idle = settled_descriptors(&server, 0);

    let tally = Arc::new(Tally::default());
    let samples = load(&server, Duration::from_secs(seconds), &tally);

    let left = settled_descriptors(&server, idle.len());
    tally.report();
    samples.report();
    println!("descriptors: {} before, {} after", idle.len(), left.len());
    assert!(left.len() <= idle.len(), "{left:#?} instead of {idle:#?}");
    samples.assert_flat();
    tally.assert_honest();
    let log = server.log();
    let bad = |line: &&String| line.contains("panicked") || line.contains("\"ERROR\"");
    let bad: Vec<&String> = log.iter().filter(bad).take(10).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    all_sessions_of_one_account(&server);
    for account in 0..ACCOUNTS {
        // AVBL asks the ledger, and `wharf user usage` would walk a home that is in use.
        let available = server.login(&name(account)).command("AVBL").1;
        let (bytes, _) = count(&wharf.home(&name(account)));
        let expected = format!("213 {}", quota(account) - bytes);
        assert_eq!(available.trim(), expected, "of {}", name(account));
    }
    let told = Instant::now();
    server.signal("TERM");
    assert!(server.wait(), "ends well");
    println!("ended in {:?}", told.elapsed());
    assert!(told.elapsed() < END_PATIENCE, "a session held the end up");
    for account in 0..ACCOUNTS {
        // What was saved at the end, as the server is gone.
        let on_disk = count(&wharf.home(&name(account)));
        assert_eq!(wharf.usage(&name(account)), on_disk, "of {account}");
    }
}

fn name(account: usize) -> String {
    format!("u{account}")
}

fn is_small(account: usize) -> bool {
    account + 1 == ACCOUNTS
}

fn quota(account: usize) -> u64 {
    if is_small(account) {
        SMALL_QUOTA
    } else {
        LARGE_QUOTA
    }
}

fn big_bytes(account: usize) -> usize {
    if is_small(account) { SMALL_BIG } else { BIG }
}

/// No session of an account is still counted if all that it may have can be opened.
fn all_sessions_of_one_account(server: &Server) {
    let open: Vec<_> = (0..SESSIONS_PER_ACCOUNT)
        .map(|_| server.login("u0"))
        .collect();
    drop(open);
}

/// Waits until no more than `expected` are open, or their number has not changed for five seconds.
/// The account database is left out: its pool opens connections as it needs them, up to a bound.
fn settled_descriptors(server: &Server, expected: usize) -> Vec<String> {
    let look = || {
        let mut open = server.descriptors();
        open.retain(|target| !target.contains("/wharf.db"));
        open
    };
    let (mut open, mut since) = (look(), Instant::now());
    while open.len() > expected && since.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(100));
        let now = look();
        if now.len() != open.len() {
            since = Instant::now();
        }
        open = now;
    }
    open
}

fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("up to the hard limit");
    let enough = limit.maximum.is_none_or(|limit| limit >= 10_000);
    assert!(enough, "the hard limit of descriptors is {limit:?}");
}

/// What the server had, from time to time.
#[derive(Default)]
struct Samples {
    resident_bytes: Vec<u64>,
    descriptors: Vec<usize>,
}

impl Samples {
    fn take(&mut self, server: &Server) {
        self.resident_bytes.push(server.resident_bytes());
        self.descriptors.push(server.descriptors().len());
    }

    /// The median of the memory in use between two percentages of the time.
    fn memory(&self, from: usize, to: usize) -> u64 {
        let at = |percent| self.resident_bytes.len() * percent / 100;
        let part = self.resident_bytes.get(at(from)..at(to));
        let mut part = part.unwrap_or_default().to_vec();
        part.sort_unstable();
        *part.get(part.len() / 2).expect("samples were taken")
    }

    fn report(&self) {
        let mib = |bytes| bytes / 1024 / 1024;
        for from in (0..100).step_by(10) {
            let memory = mib(self.memory(from, from + 10));
            println!("memory in use from {from} %: {memory} MiB");
        }
        let most = self.descriptors.iter().max();
        println!("descriptors at most: {most:?}");
    }

    fn assert_flat(&self) {
        let (warm, end) = (self.memory(25, 40), self.memory(85, 100));
        assert!(end <= warm + warm / 10 + MEMORY_SLACK, "memory grows");
    }
}

/// How often what happened.
#[derive(Default)]
struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    fn add(&self, what: impl Into<String>) {
        let mut counts = self.0.lock().expect("no panic");
        *counts.entry(what.into()).or_default() += 1;
    }

    fn report(&self) {
        let counts = self.0.lock().expect("no panic");
        println!("{counts:#?}");
        println!("in all: {}", counts.values().sum::<u64>());
    }

    /// Nothing was stuck, everything happened, and next to nothing went otherwise than it must: a
    /// machine under load may keep a client past a timeout.
    fn assert_honest(&self) {
        let counts = self.0.lock().expect("no panic");
        assert_eq!(counts.get(STUCK), None);
        let of_steps = STEPS.map(|name| counts.get(name).copied().unwrap_or(0));
        assert!(of_steps.iter().all(|count| *count > 0), "{of_steps:?}");
        let in_all: u64 = counts.values().sum();
        let others: Vec<_> = counts
            .iter()
            .filter(|(what, _)| !STEPS.contains(&what.as_str()))
            .collect();
        let failed: u64 = others.iter().map(|(_, count)| **count).sum();
        assert!(failed <= in_all / 1000, "{others:#?}");
    }
}

/// What a step is called that never ended.
const STUCK: &str = "stuck";

/// All sessions for `duration`, to their end.
fn load(server: &Server, duration: Duration, tally: &Arc<Tally>) -> Samples {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let end = Instant::now() + duration;
        let mut users = JoinSet::new();
        for number in 0..SESSIONS {
            let place = Place::new(number, server.v4(), server.ftps());
            users.spawn(user(place, end, Arc::clone(tally)));
        }
        let mut samples = Samples::default();
        while Instant::now() < end {
            sleep(duration / 200).await;
            samples.take(server);
        }
        let all = timeout(STEP_PATIENCE * 2, users.join_all()).await;
        all.expect("every session ends");
        samples
    })
}

/// One user: sessions one after another until the end.
async fn user(place: Place, end: Instant, tally: Arc<Tally>) {
    let mut random = Random::new(place.number);
    // Not all in the same moment.
    sleep(Duration::from_millis(random.below(PAUSE_MS))).await;
    let mut session = None;
    while Instant::now() < end {
        let name = *random.pick(&STEPS);
        let step = async {
            let mut open = match session.take() {
                Some(open) => open,
                None => Session::log_in(place).await?,
            };
            let stays = open.step(name, &mut random).await?;
            Ok::<_, io::Error>(stays.then_some(open))
        };
        match timeout(STEP_PATIENCE, step).await {
            Ok(Ok(open)) => {
                session = open;
                tally.add(name);
            }
            // The next step begins with a new session.
            Ok(Err(error)) => tally.add(format!("{name}: {error}")),
            Err(_) => tally.add(STUCK),
        }
        sleep(Duration::from_millis(random.below(PAUSE_MS))).await;
    }
}
