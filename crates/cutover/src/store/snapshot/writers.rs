//! Which files some process holds open for writing right now. A shared mapping keeps its file open, and may change bytes
//! long after it changed the file's times, so such a file's times prove nothing.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Device and inode of every regular file that a process which we may look at has open for writing. Best effort: another
/// user's processes are invisible to a daemon without root.
pub(super) fn open_for_writing() -> HashSet<(u64, u64)> {
    let mut found = HashSet::new();
    let Ok(processes) = fs::read_dir("/proc") else { return found };
    for process in processes.flatten() {
        if process.file_name().as_encoded_bytes()[0].is_ascii_digit() {
            add_process(&process.path(), &mut found);
        }
    }
    found
}

fn add_process(process: &Path, found: &mut HashSet<(u64, u64)>) {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return };
    for descriptor in descriptors.flatten() {
        // Follows the link to the open file itself, also across mount namespaces.
        let Ok(file) = fs::metadata(descriptor.path()) else { continue };
        if !file.file_type().is_file() {
            continue;
        }
        let Ok(facts) = fs::read_to_string(process.join("fdinfo").join(descriptor.file_name())) else {
            continue;
        };
        if is_writable(&facts) {
            found.insert((file.dev(), file.ino()));
        }
    }
    // A mapping outlives its descriptor.
    let Ok(maps) = fs::read_to_string(process.join("maps")) else { return };
    found.extend(maps.lines().filter_map(shared_writable_mapping));
}

/// Reads `flags:` (octal) of `/proc/PID/fdinfo/N`.
fn is_writable(fdinfo: &str) -> bool {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & 0o3 != 0)
}

/// Device and inode of a line of `/proc/PID/maps` like `7f… rw-s 00000000 fe:00 1234 /path`.
fn shared_writable_mapping(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let permissions = fields.nth(1)?.as_bytes();
    if permissions.get(1) != Some(&b'w') || permissions.get(3) != Some(&b's') {
        return None;
    }
    let (major, minor) = fields.nth(1)?.split_once(':')?;
    let inode = fields.next()?.parse().ok()?;
    let device =
        rustix::fs::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    (inode != 0).then_some((device, inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_file_is_seen_while_it_is_open_for_writing_and_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let writer = File::create(&path).unwrap();
        let key = writer.metadata().map(|meta| (meta.dev(), meta.ino())).unwrap();
        let reader = File::open(&path).unwrap();
        assert!(open_for_writing().contains(&key));
        drop(writer);
        assert!(!open_for_writing().contains(&key));
        drop(reader);
    }

    #[test]
    fn only_shared_writable_mappings_of_files_count() {
        let line = "7f00-7f01 rw-s 00000000 fe:00 1234                       /var/lib/web/pages";
        assert_eq!(shared_writable_mapping(line), Some((rustix::fs::makedev(0xfe, 0), 1234)));
        assert_eq!(shared_writable_mapping(&line.replace("rw-s", "rw-p")), None);
        assert_eq!(shared_writable_mapping(&line.replace("rw-s", "r--s")), None);
        assert_eq!(shared_writable_mapping(&line.replace("1234", "0")), None);
        assert_eq!(shared_writable_mapping("nonsense"), None);
    }
}
