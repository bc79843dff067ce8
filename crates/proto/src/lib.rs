//! FTP as pure functions between bytes and types.
