//! Who a process is, as the kernel tells it.
//!
//! Knows `/proc/PID/stat` and the boot id. Must not know what a process is for.

use cutover_core::{BootId, Instance};
use std::io;
use std::path::PathBuf;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What `/proc/PID/stat` says about one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Pid of the parent; 0 for none.
    pub parent: u32,
    /// Start time in clock ticks since boot (field 22).
    pub start_time: u64,
}

impl Stat {
    /// Reads the stat of a live pid or a zombie.
    ///
    /// # Errors
    /// `NotFound` if there is no such process, `InvalidData` if the kernel's line cannot be read.
    pub fn read(pid: u32) -> io::Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}/stat"));
        let line = std::fs::read(&path).map_err(vanished)?;
        Self::parse(&line)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, path.display().to_string()))
    }

    /// Reads one stat line. The command stands in parentheses and may itself hold spaces and parentheses, so the fields
    /// are counted from the last one.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let end = line.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(&line[end + 1..]).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        // The state was field 3 and the parent field 4: 17 more stand before field 22.
        let start_time = fields.nth(17)?.parse().ok()?;
        Some(Self { parent, start_time })
    }
}

/// A process that goes away between open and read answers `ESRCH`, which is the same news as a missing file.
fn vanished(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) {
        io::Error::from(io::ErrorKind::NotFound)
    } else {
        error
    }
}

/// Reads the id of the current boot.
///
/// # Errors
/// If `/proc` is not mounted.
pub fn boot_id() -> io::Result<BootId> {
    Ok(BootId(std::fs::read_to_string(BOOT_ID)?.trim().to_owned()))
}

/// Reads the identity of a pid as it is now.
///
/// # Errors
/// `NotFound` if there is no such process.
pub fn instance(pid: u32) -> io::Result<Instance> {
    Ok(Instance { pid, start_time: Stat::read(pid)?.start_time, boot_id: boot_id()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let line = b"42 (a ) R 7 (x) S 9 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3";
        assert_eq!(Stat::parse(line), Some(Stat { parent: 9, start_time: 987_654 }));
    }

    #[test]
    fn a_short_line_is_no_identity() {
        assert_eq!(Stat::parse(b"42 (a) S 9 42"), None);
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn a_process_reads_its_own_parent() {
        let own = Stat::read(std::process::id()).unwrap();
        assert_eq!(own.parent, std::os::unix::process::parent_id());
    }

    #[test]
    fn a_pid_that_nobody_has_is_not_found() {
        // Above the kernel's own limit of 2^22.
        assert_eq!(instance(5_000_000).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
