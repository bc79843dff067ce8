//! What a client reaches through SSH: remote commands and SFTP, beside the tools whose place they
//! take and with the clients that use them.

mod exec;
mod openssh;
mod room;
mod sftp;
mod stdio;
