//! One call of npm: started as its user, watched, bounded, and killed with everything it started when its caller
//! goes away.

use super::super::source::Npm;
use super::super::space::{Need, free_bytes};
use super::super::workspace::Workspace;
use super::super::{Error, Result};
use super::environment;
use crate::store::identity::Identity;
use rustix::process::{Pid, Signal};
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// How often a running npm is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long the output may stay open after npm has ended: a script's background process may hold it for ever.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// Less traffic than this between two looks is a process that only waits.
const TRAFFIC_MIN: u64 = 2048;
const STDOUT_BYTES_MAX: usize = 64 << 20;
const TAIL_BYTES: usize = 4096;

/// What npm is called for.
pub(super) struct Call<'a> {
    pub npm: &'a Npm,
    pub workspace: &'a Workspace,
    /// The command and its object, for messages.
    pub doing: String,
}

/// Why npm says that it failed.
#[derive(Debug)]
pub(super) struct Failure {
    code: String,
    said: String,
    tail: String,
}

#[derive(Deserialize)]
struct Told {
    error: ToldError,
}

#[derive(Deserialize)]
struct ToldError {
    code: Option<String>,
    summary: Option<String>,
}

/// Kills npm's process group. Must be dropped before the child is reaped: until then the number is npm's.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // No such process: it has ended by itself.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Call<'_> {
    /// Runs npm with `--json` in `dir` and returns its standard output, or why it failed. `look` is called about
    /// four times a second.
    ///
    /// # Errors
    /// If it could not be started, took longer than `cap`, or did nothing for `idle`.
    pub(super) async fn run(
        &self,
        arguments: &[&str],
        dir: &Path,
        home: &Path,
        cap: Duration,
        idle: Duration,
        mut look: impl FnMut() + Send,
    ) -> Result<Result<Vec<u8>, Failure>> {
        let mut child = self.start(arguments, dir, home)?;
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let stdout = collect(child.stdout.take(), STDOUT_BYTES_MAX);
        let stderr = collect(child.stderr.take(), STDOUT_BYTES_MAX);
        let started = Instant::now();
        let (mut active, mut traffic) = (started, 0);
        let ended = loop {
            tokio::select! {
                status = child.wait() => break status.map_err(Error::read(dir))?,
                () = tokio::time::sleep(LOOK_EVERY) => look(),
            }
            let now = group.0.and_then(traffic_bytes).unwrap_or(u64::MAX);
            if now.abs_diff(traffic) >= TRAFFIC_MIN {
                (active, traffic) = (Instant::now(), now);
            }
            let (missing, limit) = if started.elapsed() > cap {
                ("an end", cap)
            } else if active.elapsed() > idle {
                ("progress", idle)
            } else {
                continue;
            };
            drop(group);
            // Nothing may write there any more when the caller clears up.
            let _ = tokio::time::timeout(OUTPUT_GRACE, child.wait()).await;
            let tail = tail(&finished(stderr).await);
            return Err(Error::TimedOut { doing: self.doing.clone(), missing, limit, tail });
        };
        group.0 = None;
        let (stdout, stderr) = (finished(stdout).await, finished(stderr).await);
        Ok(if ended.success() { Ok(stdout) } else { Err(Failure::of(ended, &stdout, &stderr)) })
    }

    fn start(&self, arguments: &[&str], dir: &Path, home: &Path) -> Result<Child> {
        let [program, first @ ..] = self.npm.npm.as_slice() else {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "no program is given");
            return Err(Error::NpmStart { program: PathBuf::new(), source });
        };
        let mut cache = std::ffi::OsString::from("--cache=");
        cache.push(&self.npm.cache);
        let mut command = Command::new(program);
        command
            .args(first)
            .args(arguments)
            .arg(cache)
            .args(["--json", "--loglevel=error", "--logs-max=0", "--update-notifier=false", "--color=false"])
            .args(["--progress=false"])
            .env_clear()
            .envs(environment::of(self.npm, home))
            .current_dir(dir)
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::from(self.workspace.lock_for_child()?))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let started = Identity::spawn(self.npm.identity.as_ref(), &mut command);
        started.map_err(|source| Error::NpmStart { program: program.into(), source })
    }
}

fn collect(stream: Option<impl AsyncRead + Unpin + Send + 'static>, bytes_max: usize) -> Collected {
    let (sender, receiver) = tokio::sync::watch::channel(Vec::new());
    let task = tokio::spawn(async move {
        let Some(mut stream) = stream else { return };
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            sender.send_modify(|all: &mut Vec<u8>| {
                let room = bytes_max.saturating_sub(all.len());
                all.extend_from_slice(&buffer[..read.min(room)]);
            });
        }
    });
    Collected { task, receiver }
}

/// Output that is being read; what has arrived is there even if the stream never ends.
struct Collected {
    task: JoinHandle<()>,
    receiver: tokio::sync::watch::Receiver<Vec<u8>>,
}

impl Drop for Collected {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn finished(mut collected: Collected) -> Vec<u8> {
    let _ = tokio::time::timeout(OUTPUT_GRACE, &mut collected.task).await;
    collected.receiver.borrow_and_update().clone()
}

fn tail(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(&stderr[stderr.len().saturating_sub(TAIL_BYTES)..]);
    text.trim().to_owned()
}

/// Bytes that a process has read and written so far, files and sockets alike.
fn traffic_bytes(pid: Pid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/io", pid.as_raw_nonzero())).ok()?;
    let counted = text.lines().filter_map(|line| {
        let count = line.strip_prefix("rchar: ").or_else(|| line.strip_prefix("wchar: "))?;
        count.parse::<u64>().ok()
    });
    Some(counted.sum())
}

impl Failure {
    fn of(ended: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Failure {
        let tail = tail(stderr);
        let told: Option<Told> = serde_json::from_slice(stdout).ok();
        let error = told.map(|told| told.error);
        let code = error.as_ref().and_then(|error| error.code.clone()).unwrap_or_else(|| ended.to_string());
        let said = error.and_then(|error| error.summary).unwrap_or_else(|| tail.clone());
        Failure { code, said, tail }
    }

    pub(super) fn unreadable(error: &serde_json::Error) -> Failure {
        Failure { code: "EUNREADABLE".into(), said: format!("npm's answer: {error}"), tail: String::new() }
    }

    pub(super) fn silence(limit: Duration) -> Failure {
        let said = format!("no answer within {} s", limit.as_secs_f32());
        Failure { code: "ETIMEDOUT".into(), said, tail: String::new() }
    }

    pub(super) fn said(&self) -> &str {
        &self.said
    }

    /// Whether asking again may help: the network, or a server that says so itself.
    pub(super) fn is_transient(&self) -> bool {
        let by_server = self.code.strip_prefix('E').is_some_and(|status| {
            matches!(status.as_bytes(), [b'5', _, _]) || status == "429" || status == "408"
        });
        let by_network = [
            "ECONNREFUSED",
            "ECONNRESET",
            "ECONNABORTED",
            "ENOTFOUND",
            "EAI_AGAIN",
            "ETIMEDOUT",
            "EPIPE",
            "ENETUNREACH",
            "EHOSTUNREACH",
            "ERR_SOCKET_TIMEOUT",
            "EIDLETIMEOUT",
            "EUNREADABLE",
            "FETCH_ERROR",
            "ERR_STREAM_PREMATURE_CLOSE",
            "Z_BUF_ERROR",
            "TAR_BAD_ARCHIVE",
        ];
        by_server || by_network.contains(&self.code.as_str())
    }

    /// Says it in this room's words. `wanted` is the version or channel that was asked for.
    pub(super) fn into_error(self, call: &Call<'_>, wanted: &str, attempts: u32) -> Error {
        let package = call.npm.package.clone();
        let uid = call.npm.identity.as_ref().map_or(rustix::process::geteuid().as_raw(), |who| who.uid);
        match self.code.as_str() {
            _ if self.is_transient() => Error::Unreachable { package, attempts, said: self.said },
            "E404" | "ETARGET" | "ENOVERSIONS" => {
                Error::NotFound { package, wanted: wanted.to_owned(), said: self.said }
            }
            "EINTEGRITY" => Error::BadIntegrity { package, said: self.said },
            "EACCES" | "EPERM" | "EROFS" => Error::Denied { path: self.path(call), uid },
            "ENOSPC" | "EDQUOT" => {
                let path = self.path(call);
                let free = free_bytes(&path).unwrap_or(0);
                Error::NoSpace { path, need: Need::Unknown, free }
            }
            _ => Error::Npm { doing: call.doing.clone(), code: self.code, tail: self.tail },
        }
    }

    /// The path that npm names in its output, else the place it worked in.
    fn path(&self, call: &Call<'_>) -> PathBuf {
        let named = self.tail.lines().find_map(|line| line.split_once("error path ")).map(|(_, path)| path);
        named.map_or_else(|| call.workspace.dir.clone(), PathBuf::from)
    }
}
