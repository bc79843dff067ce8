//! What the fuzzer feeds: one function a target, which takes any bytes and
//! panics where a promise of the code is broken.
//!
//! `fuzz/` runs them under libFuzzer; `tests/replay.rs` runs them on the
//! committed corpora, so that every change meets what was once found.

mod client;
mod exec;
mod ftp;
mod home;
mod session;
mod sftp;

/// A fuzz target.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("line", ftp::line),
    ("command", ftp::command),
    ("reply", ftp::reply),
    ("facts", ftp::facts),
    ("list", ftp::list),
    ("address", ftp::address),
    ("path", ftp::path),
    ("url", client::url),
    ("netrc", client::netrc),
    ("known_hosts", client::known_hosts),
    ("session", session::session),
    ("sftp", sftp::packets),
    ("sftp_session", sftp::session),
    ("exec", exec::exec),
    ("scp", exec::scp),
];

/// Runs the target called `name` on `input`.
///
/// # Panics
/// A promise is broken, or there is no such target.
pub fn run(name: &str, input: &[u8]) {
    let (_, target) = TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a target of the list");
    target(input);
}

/// The first byte as a number, and the rest.
fn split_first(input: &[u8]) -> (usize, &[u8]) {
    match input {
        [first, rest @ ..] => (usize::from(*first), rest),
        [] => (0, input),
    }
}
