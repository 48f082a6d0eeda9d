//! What a process costs: wall time, CPU time of it and its children, and the most memory it had.
//!
//! Knows `/proc`; must not know what is run.

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::io::{Read as _, Seek as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// In this unit the kernel tells CPU times, on every architecture that node runs on.
const TICK: Duration = Duration::from_millis(10);

/// How often the process is looked at. Its memory's high-water mark goes with it, so that what it takes after the last
/// look is not seen.
const LOOK: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) wall: Duration,
    /// User and system.
    pub(super) cpu: Duration,
    pub(super) peak_kib: u64,
}

/// Runs a program to its end and tells what it printed. `codes` are the exit codes of one that did its work; `limit`
/// is when it is ended.
///
/// # Errors
/// If it does not start, takes too long, or ends otherwise.
pub(super) fn measured(command: &mut Command, codes: &[i32], limit: Duration) -> Result<(Cost, String)> {
    let mut printed = tempfile::tempfile().context("a file for what is printed")?;
    let mut complained = tempfile::tempfile().context("a file for complaints")?;
    command.stdin(Stdio::null()).stdout(printed.try_clone()?).stderr(complained.try_clone()?);
    let name = command.get_program().display().to_string();
    let began = Instant::now();
    let mut child = command.spawn().with_context(|| format!("run {name}"))?;
    let pid = Pid::from_child(&child);
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let mut peak_kib = 0;
    while waitid(WaitId::Pid(pid), ended).context("wait")?.is_none() {
        peak_kib = peak_kib_of(pid).unwrap_or_default().max(peak_kib);
        if began.elapsed() > limit {
            child.kill().context("end what takes too long")?;
            child.wait().context("wait")?;
            bail!("{name} took longer than {limit:?}");
        }
        std::thread::sleep(LOOK);
    }
    let wall = began.elapsed();
    // It has ended and is not waited for yet: its times are still there.
    let cpu = cpu(pid)?;
    let status = child.wait().context("wait")?;
    let mut told = String::new();
    complained.rewind()?;
    complained.read_to_string(&mut told)?;
    ensure!(status.code().is_some_and(|code| codes.contains(&code)), "{name} ended with {status}: {told}");
    let mut text = String::new();
    printed.rewind()?;
    printed.read_to_string(&mut text)?;
    Ok((Cost { wall, cpu, peak_kib }, text))
}

fn peak_kib_of(pid: Pid) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Of all threads, and of the children that were waited for.
fn cpu(pid: Pid) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the times of what has ended")?;
    let (_, fields) = stat.rsplit_once(')').context("a name in parentheses")?;
    // After the name, utime is the 12th field; stime, cutime and cstime follow.
    let ticks = fields.split_whitespace().skip(11).take(4).map(str::parse::<u32>);
    let ticks: u32 = ticks.sum::<Result<u32, _>>().context("times are numbers")?;
    Ok(TICK * ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_computes_costs_cpu_and_memory_and_its_output_is_kept() {
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo $i; exit 3";
        let mut command = Command::new("sh");
        let (cost, text) = measured(command.args(["-c", script]), &[3], Duration::from_secs(60)).unwrap();
        assert_eq!(text, "200000\n");
        assert!(cost.cpu >= TICK && cost.wall > Duration::ZERO && cost.peak_kib > 100, "{cost:?}");
        measured(Command::new("sh").args(["-c", "exit 4"]), &[0], Duration::from_secs(60)).unwrap_err();
    }

    #[test]
    fn a_process_that_takes_too_long_is_ended() {
        let error = measured(Command::new("sleep").arg("600"), &[0], Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("took longer"), "{error}");
    }
}
