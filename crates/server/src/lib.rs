//! Sessions and protocols on top of the virtual file system.
