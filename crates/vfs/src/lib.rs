//! The virtual file system: jail, permissions, quota, staged uploads, digests.
