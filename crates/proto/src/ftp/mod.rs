//! The File Transfer Protocol: RFC 959, 2389, 2428, 2640, 3659 and the drafts that clients use.

pub mod address;
pub mod command;
pub mod facts;
pub mod list;
pub mod reply;
pub mod verb;
