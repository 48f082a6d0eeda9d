//! The end of a service's log: the youngest instance's file.

use crate::conductor;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// How much of the file's end is read at most (bytes).
const TAIL: u64 = 512 * 1024;

/// The log of the youngest instance below a service's directory; where no instance is on record any more, the one whose
/// mark is the last.
///
/// # Errors
/// If the directory cannot be read or holds no log yet.
pub(crate) fn youngest(directory: &Path) -> io::Result<PathBuf> {
    let logs = std::fs::read_dir(directory.join("logs"))?.flatten().map(|entry| entry.path());
    let logs: BTreeSet<PathBuf> =
        logs.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
    let instances = conductor::youngest_first(&directory.join("instances"));
    let mut on_record = instances.iter().filter_map(|instance| {
        let mark = instance.file_name()?.to_string_lossy().into_owned();
        logs.get(&directory.join("logs").join(format!("{mark}.log")))
    });
    on_record.next().or(logs.last()).cloned().ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "the service never ran, so there is no log yet")
    })
}

/// The last `limit` lines.
///
/// # Errors
/// If there is no log or it cannot be read.
pub(crate) fn tail(directory: &Path, limit: usize) -> io::Result<Vec<String>> {
    let mut file = File::open(youngest(directory)?)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(limit)..].iter().map(|line| (*line).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_shown_is_the_youngest_instance_s_though_the_clock_was_set_back() {
        let ground = tempfile::tempdir().unwrap();
        let (logs, instances) = (ground.path().join("logs"), ground.path().join("instances"));
        std::fs::create_dir(&logs).unwrap();
        std::fs::write(logs.join("0.log"), "of an instance that is forgotten").unwrap();
        assert_eq!(tail(ground.path(), 1).unwrap(), ["of an instance that is forgotten"]);
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let boot = cutover_core::BootId(boot.trim().to_owned());
        for (mark, start_time) in [("9", 100), ("1", 200)] {
            std::fs::write(logs.join(format!("{mark}.log")), mark).unwrap();
            let keeper = cutover_core::Instance { pid: 7, start_time, boot_id: boot.clone() };
            let record = serde_json::json!({ "keeper": keeper }).to_string();
            std::fs::create_dir_all(instances.join(mark)).unwrap();
            std::fs::write(instances.join(mark).join("keeper.json"), record).unwrap();
            assert_eq!(tail(ground.path(), 1).unwrap(), [mark]);
        }
    }
}
