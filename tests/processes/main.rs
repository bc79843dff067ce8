//! Real processes of accounts: without a protocol above them, with the real executable as the
//! launcher, supervisors and the last stage, and this test as the server; and over SSH.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own the directories that they make"
)]

mod ending;
mod escapes;
mod fixture;
mod limits;
mod over_ssh;
mod running;
