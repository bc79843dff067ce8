//! A socket-server runtime that knows no protocol.
