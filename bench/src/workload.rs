//! What is measured, each from the moment when every session is logged in.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Outcome;
use crate::ftp::{Session, Target, discard};
use crate::sealed;

pub(crate) fn download(target: &Target, streams: u64, rounds: u64, path: &str) -> Outcome<Value> {
    let (bytes, elapsed) = at_once(
        streams,
        |_| {
            let mut session = Session::open(target)?;
            let size = target.tls.then(|| session.size(path)).transpose()?;
            Ok((session, size))
        },
        |(session, size), _| {
            let fetch = |_| match *size {
                Some(size) => sealed::fetch(session, path, size),
                None => session.fetch(path),
            };
            (0..rounds).map(fetch).sum()
        },
    )?;
    Ok(moved(bytes, elapsed))
}

pub(crate) fn upload(
    target: &Target,
    streams: u64,
    rounds: u64,
    bytes: u64,
    digest: Option<&str>,
) -> Outcome<Value> {
    if target.tls && rounds != 1 {
        return Err("with TLS what is sent is encrypted before: ask for one round".into());
    }
    let source = zeros(bytes)?;
    let name = |stream| format!("upload-{stream}");
    let (total, elapsed) = at_once(
        streams,
        |stream| {
            let mut session = Session::open(target)?;
            if let Some(algorithm) = digest {
                session.command(&format!("OPTS HASH {algorithm}"), 200)?;
            }
            let begin = || sealed::seal(&mut session, &name(stream), bytes);
            let begun = target.tls.then(begin).transpose()?;
            Ok((session, begun))
        },
        |(session, begun), stream| {
            match begun.take() {
                Some(begun) => sealed::store(session, begun)?,
                None => {
                    for _ in 0..rounds {
                        session.store(&name(stream), &source, bytes)?;
                    }
                }
            }
            Ok(bytes * rounds)
        },
    )?;
    Ok(moved(total, elapsed))
}

pub(crate) fn small_down(target: &Target, files: u64) -> Outcome<Value> {
    let mut session = Session::open(target)?;
    let begin = Instant::now();
    for number in 0..files {
        session.fetch(&format!("small/{number}"))?;
    }
    Ok(done(files, begin.elapsed()))
}

pub(crate) fn small_up(target: &Target, files: u64, bytes: u64) -> Outcome<Value> {
    let source = zeros(bytes)?;
    let mut session = Session::open(target)?;
    let begin = Instant::now();
    for number in 0..files {
        session.store(&format!("small-{number}"), &source, bytes)?;
    }
    Ok(done(files, begin.elapsed()))
}

pub(crate) fn list(target: &Target, verb: &str, path: &str, rounds: u64) -> Outcome<Value> {
    let mut session = Session::open(target)?;
    let mut first_byte = Duration::ZERO;
    let mut bytes = 0;
    let begin = Instant::now();
    for _ in 0..rounds {
        let asked = Instant::now();
        let mut data = session.transfer(&format!("{verb} {path}"))?;
        let mut first = [0];
        data.read_exact(&mut first)?;
        first_byte = first_byte.max(asked.elapsed());
        bytes += 1 + discard(&mut data)?;
        drop(data);
        session.expect(226)?;
    }
    let mut report = done(rounds, begin.elapsed());
    add(&mut report, "bytes", json!(bytes));
    let first_byte = first_byte.as_secs_f64() * 1e3;
    add(&mut report, "first_byte_ms", json!(first_byte));
    Ok(report)
}

pub(crate) fn noop(target: &Target, count: u64, batch: u64) -> Outcome<Value> {
    let mut session = Session::open(target)?;
    let lines = vec!["NOOP"; usize::try_from(batch)?].join("\r\n");
    let begin = Instant::now();
    let mut longest = Duration::ZERO;
    for _ in 0..count / batch {
        let sent = Instant::now();
        session.send(&lines)?;
        for _ in 0..batch {
            session.expect(200)?;
        }
        longest = longest.max(sent.elapsed());
    }
    let mut report = done(count / batch * batch, begin.elapsed());
    add(
        &mut report,
        "longest_ms",
        json!(longest.as_secs_f64() * 1e3),
    );
    Ok(report)
}

pub(crate) fn login(target: &Target, count: u64, streams: u64) -> Outcome<Value> {
    let (logins, elapsed) = at_once(
        streams,
        |_| Ok(()),
        |(), _| {
            for _ in 0..count / streams {
                let mut session = Session::open(target)?;
                session.command("QUIT", 221)?;
            }
            Ok(count / streams)
        },
    )?;
    Ok(done(logins, elapsed))
}

pub(crate) fn idle(target: &Target, sessions: u64) -> Outcome<Value> {
    let begin = Instant::now();
    let held: Outcome<Vec<Session>> = (0..sessions).map(|_| Session::open(target)).collect();
    let mut held = held?;
    println!("{}", done(sessions, begin.elapsed()));
    std::io::stdout().flush()?;
    let login = median_of(BESIDE_LOGINS, || {
        let mut extra = Session::open(target)?;
        extra.command("QUIT", 221).map(drop)
    })?;
    let first = held.first_mut().ok_or("no session to ask")?;
    let noop = median_of(BESIDE_NOOPS, || first.command("NOOP", 200).map(drop))?;
    println!(
        "{}",
        json!({"login_ms": login.as_secs_f64() * 1e3, "noop_us": noop.as_secs_f64() * 1e6})
    );
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(json!({"held": held.len()}))
}

/// Keeps downloads going that take `rate` bytes a second each, in turn within a second.
pub(crate) fn slow(target: &Target, sessions: u64, rate: u64, path: &str) -> Outcome<Value> {
    let mut held = Vec::new();
    for _ in 0..sessions {
        let mut session = Session::open(target)?;
        let data = session.transfer(&format!("RETR {path}"))?;
        held.push((session, data));
    }
    println!("{}", json!({"held": held.len()}));
    std::io::stdout().flush()?;
    let ended = Arc::new(AtomicBool::new(false));
    let watch = Arc::clone(&ended);
    thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        watch.store(true, Ordering::Relaxed);
    });
    let mut piece = vec![0; usize::try_from(rate)?];
    let (begin, mut turns) = (Instant::now(), 0);
    while !ended.load(Ordering::Relaxed) {
        for (_, data) in &mut held {
            data.read_exact(&mut piece)?;
        }
        turns += 1;
        let next = begin + Duration::from_secs(turns);
        while Instant::now() < next && !ended.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(json!({"bytes": turns * rate * sessions, "seconds": begin.elapsed().as_secs_f64()}))
}

fn add(report: &mut Value, name: &str, value: Value) {
    if let Some(report) = report.as_object_mut() {
        report.insert(name.to_owned(), value);
    }
}

/// Logins and commands beside idle sessions, of which the median counts: one
/// alone would show what else the machine did.
const BESIDE_LOGINS: usize = 21;
const BESIDE_NOOPS: usize = 2001;

/// The middle of how long it takes.
fn median_of(times: usize, mut what: impl FnMut() -> Outcome<()>) -> Outcome<Duration> {
    let mut taken = (0..times)
        .map(|_| {
            let begin = Instant::now();
            what().map(|()| begin.elapsed())
        })
        .collect::<Outcome<Vec<Duration>>>()?;
    taken.sort_unstable();
    Ok(taken.get(times / 2).copied().unwrap_or_default())
}

/// Prepares `streams` threads, then lets them all work at once; the sum of what
/// they did, and the time until the last was done.
pub(crate) fn at_once<T>(
    streams: u64,
    prepare: impl Fn(u64) -> Outcome<T> + Sync,
    work: impl Fn(&mut T, u64) -> Outcome<u64> + Sync,
) -> Outcome<(u64, Duration)> {
    let start = Arc::new(Barrier::new(usize::try_from(streams)? + 1));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..streams)
            .map(|stream| {
                let (start, prepare, work) = (Arc::clone(&start), &prepare, &work);
                scope.spawn(move || {
                    let prepared = prepare(stream);
                    start.wait();
                    work(&mut prepared?, stream)
                })
            })
            .collect();
        start.wait();
        let begin = Instant::now();
        let mut total = 0;
        for thread in threads {
            total += thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok((total, begin.elapsed()))
    })
}

/// A file in memory, for `sendfile`.
pub(crate) fn memory() -> Outcome<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(File::from(rustix::fs::memfd_create("content", flags)?))
}

/// A file of zeros in memory.
pub(crate) fn zeros(bytes: u64) -> Outcome<File> {
    let mut file = memory()?;
    let piece = vec![0; 1024 * 1024];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left.min(1024 * 1024))?;
        file.write_all(piece.get(..length).unwrap_or(&piece))?;
        left -= u64::try_from(length)?;
    }
    Ok(file)
}

pub(crate) fn moved(bytes: u64, elapsed: Duration) -> Value {
    json!({"bytes": bytes, "seconds": elapsed.as_secs_f64()})
}

fn done(operations: u64, elapsed: Duration) -> Value {
    json!({"operations": operations, "seconds": elapsed.as_secs_f64()})
}
