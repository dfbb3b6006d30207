//! Ports that no other test takes while a cluster lives and restarts.
//!
//! A port that was free a moment ago may be taken by the next outgoing connection of anybody, so ports come from below
//! the range the system takes those from, in blocks, each behind a locked file.

use std::{fs::File, net::TcpListener};

const FIRST: u16 = 10_000;
const BLOCKS: u16 = 600;
/// Enough for a cluster.
pub(crate) const SIZE: u16 = 16;

/// A block of free ports; free for others again when dropped.
pub(crate) struct PortBlock {
    first: u16,
    _lock: File,
}

impl PortBlock {
    pub(crate) fn take() -> Self {
        let folder = std::env::temp_dir().join("copass-e2e-ports");
        std::fs::create_dir_all(&folder).expect("a folder for locks");
        let start = u16::try_from(std::process::id() % u32::from(BLOCKS)).expect("a small number");
        for step in 0..BLOCKS {
            let first = FIRST + (start + step) % BLOCKS * SIZE;
            let lock = File::create(folder.join(first.to_string())).expect("a lock file");
            let all_free = || (first..first + SIZE).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
            if lock.try_lock().is_ok() && all_free() {
                return Self { first, _lock: lock };
            }
        }
        panic!("no block of {SIZE} free ports from {FIRST} on");
    }

    /// One port of the block.
    pub(crate) fn port(&self, index: u16) -> u16 {
        assert!(index < SIZE);
        self.first + index
    }
}
