//! What each verb does, by family; every file is one `impl Session`.

mod data;
mod digest;
mod facts;
mod files;
mod info;
mod listing;
mod login;
mod security;
mod transfer;

pub(super) use transfer::finished;
