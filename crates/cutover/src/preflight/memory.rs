//! Whether a second process of the service fits beside the first.
//!
//! Knows the kernel's own figures. Must not know what a rehearsal does.

use super::cgroup;
use cutover_core::{Finding, Instance, Level};
use std::fs;
use std::io;

const KIND: &str = "memory";

/// What a rehearsal would run beside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// The running process and what it started: together they are what a second one will take, and half again.
    pub running: Vec<Instance>,
}

/// Holds what a rehearsal would take against what is available.
pub(super) fn look(rehearsal: &Rehearsal) -> Vec<Finding> {
    if rehearsal.running.is_empty() {
        return vec![Finding::new(Level::Note, KIND, "nothing runs: what a rehearsal takes is not known")];
    }
    let figures = || -> io::Result<(u64, u64)> {
        // A rehearsal is started by this process, so it is counted where this one is.
        let machine = kilobytes("/proc/meminfo", "MemAvailable:")?;
        let available = cgroup::available()?.map_or(machine, |group| group.min(machine));
        let mut resident = 0;
        for instance in &rehearsal.running {
            match kilobytes(&format!("/proc/{}/status", instance.pid), "VmRSS:") {
                Ok(bytes) => resident += bytes,
                // It ended since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok((available, resident))
    };
    vec![match figures() {
        Ok((_, 0)) => Finding::new(Level::Warn, KIND, "the running process ended while its memory was read"),
        Ok((available, resident)) => judged(available, resident),
        Err(error) => {
            Finding::new(Level::Warn, KIND, format!("memory for a rehearsal cannot be told: {error}"))
        }
    }]
}

fn judged(available: u64, resident: u64) -> Finding {
    let need = resident + resident / 2;
    let text = format!(
        "a rehearsal needs about {need} bytes (1.5 times the {resident} of the running process), {available} are available"
    );
    if need > available {
        return Finding::new(Level::Warn, KIND, text)
            .advised("a rehearsal beside the running process may make the kernel kill one of them");
    }
    Finding::new(Level::Note, KIND, text)
}

/// A figure in one of the kernel's tables, in bytes.
fn kilobytes(path: &str, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let missing = || io::Error::other(format!("{path} has no {name}"));
    number.map(|kilobytes| kilobytes * 1024).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_again_as_much_as_runs_must_be_available() {
        assert_eq!(judged(150, 100).level, Level::Note);
        let short = judged(149, 100);
        assert_eq!(short.level, Level::Warn);
        assert!(short.text.contains("150 bytes") && short.text.contains("149 are available"), "{short}");
    }
}
