//! Transfers to and from remote servers: plan, resume, verify.
