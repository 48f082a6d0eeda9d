//! The end of a service's log: the youngest instance's file, or that of one before.

use crate::conductor;
use cutover_core::Generation;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// How much of the file's end is read at most (bytes).
const TAIL: u64 = 512 * 1024;

/// The end of one instance's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tail {
    /// Its last lines.
    pub lines: Vec<String>,
    /// Which of them say that a module or an export of the instance's own generation is gone, by position.
    pub tripped: Vec<usize>,
    /// The generation that the instance runs, or ran; `None` if its record does not tell.
    pub generation: Option<Generation>,
}

/// The log of the youngest instance below a service's directory; where no instance is on record any more, the one whose
/// mark is the last.
///
/// # Errors
/// If the directory cannot be read or holds no log yet.
pub(crate) fn youngest(directory: &Path) -> io::Result<PathBuf> {
    Ok(log_of(directory, 0)?.0)
}

/// The log of the instance that is `back` before the youngest, and its record's directory where there is one.
fn log_of(directory: &Path, back: usize) -> io::Result<(PathBuf, Option<PathBuf>)> {
    let logs = std::fs::read_dir(directory.join("logs"))?.flatten().map(|entry| entry.path());
    let logs: BTreeSet<PathBuf> =
        logs.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
    let instances = conductor::youngest_first(&directory.join("instances"));
    let mut on_record = instances.into_iter().filter_map(|instance| {
        let mark = instance.file_name()?.to_string_lossy().into_owned();
        let log = logs.get(&directory.join("logs").join(format!("{mark}.log")))?.clone();
        Some((log, Some(instance)))
    });
    let forgotten = || logs.last().cloned().filter(|_| back == 0).map(|log| (log, None));
    on_record.nth(back).or_else(forgotten).ok_or_else(|| {
        let why = match back {
            0 => "the service never ran, so there is no log yet",
            _ => "there is no log of an instance before",
        };
        io::Error::new(io::ErrorKind::NotFound, why)
    })
}

/// The last `limit` lines of the youngest instance.
///
/// # Errors
/// If there is no log or it cannot be read.
pub(crate) fn tail(directory: &Path, limit: usize) -> io::Result<Vec<String>> {
    Ok(lines(&youngest(directory)?, limit)?.0)
}

/// The last `limit` lines of the instance that is `back` before the youngest.
///
/// # Errors
/// As [`tail`].
pub(super) fn tail_of(directory: &Path, back: usize, limit: usize) -> io::Result<Tail> {
    let (log, instance) = log_of(directory, back)?;
    let (lines, from) = lines(&log, limit)?;
    let generation = instance.and_then(|instance| conductor::generation_of(&instance));
    let tree = generation.map(|generation| directory.join("generations").join(generation.to_string()));
    let told: BTreeSet<String> =
        tree.map(|tree| conductor::tripped(&log, &tree, from)).into_iter().flatten().collect();
    let is_told = |(_, line): &(usize, &String)| told.contains(line.trim());
    let tripped = lines.iter().enumerate().filter(is_told).map(|(position, _)| position).collect();
    Ok(Tail { lines, tripped, generation })
}

/// The last lines, and from where on (bytes) they were looked for.
fn lines(log: &Path, limit: usize) -> io::Result<(Vec<String>, u64)> {
    let mut file = File::open(log)?;
    let from = file.metadata()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok((lines[lines.len().saturating_sub(limit)..].iter().map(|line| (*line).to_owned()).collect(), from))
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
