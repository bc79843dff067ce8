//! The client over SSH, as people and scripts run it, against OpenSSH's server and Wharf's own.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own the directories that they make"
)]

mod far;
mod openssh;
mod ours;
mod person;
