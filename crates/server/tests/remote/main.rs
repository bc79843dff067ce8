//! What a client reaches through SSH: remote commands, SFTP and scp, beside the tools whose place they
//! take and with the clients that use them.

mod exec;
mod openssh;
mod room;
mod scp;
mod sftp;
mod stdio;
