//! Folders for what a test throws away.

use tempfile::TempDir;

/// Memory, when the machine lends enough of it: a disk that others keep busy makes tests wait.
const MEMORY: &str = "/dev/shm";
/// Enough for the Postgres of a run and a few private ones.
const MEMORY_BYTES_MIN: u64 = 4 * 1024 * 1024 * 1024;

/// A new folder of short path (a socket in it must fit into 107 bytes) that other accounts may
/// reach the parent of.
pub(crate) fn folder() -> TempDir {
    let parent = if memory_bytes() >= MEMORY_BYTES_MIN { MEMORY } else { "/tmp" };
    tempfile::Builder::new().prefix("hf-").tempdir_in(parent).expect("make a folder")
}

fn memory_bytes() -> u64 {
    rustix::fs::statvfs(MEMORY).map_or(0, |free| free.f_bavail.saturating_mul(free.f_frsize))
}
