//! What a client reaches through SSH: remote commands, each beside the tools and clients whose
//! place they take.

mod exec;
mod room;
