//! A sample gateway as a real child process, with the little that a test needs to talk to it.

#![allow(dead_code, reason = "each test file uses its part")]

use sample_gateway::{Knobs, release};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A temporary directory with one release in it.
pub(crate) struct Area {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) manifest: release::Manifest,
}

impl Area {
    pub(crate) fn with(knobs: Knobs) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let executable = Path::new(env!("CARGO_BIN_EXE_sample-gateway"));
        let release = release::Release::new("1.0.0").with_knobs(knobs);
        let manifest = release::write(&directory.path().join("release"), executable, &release).unwrap();
        Self { directory, manifest }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("release")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.root().join("bin/gateway"));
        command.arg(sample_gateway::process::SUBCOMMAND).stdin(Stdio::null());
        for name in ["SAMPLE_KNOBS", "SAMPLE_STATE", "SAMPLE_CONFIG", "SAMPLE_TOKEN", "CUTOVER_INTENT_FILE"] {
            command.env_remove(name);
        }
        command
    }

    /// Starts on a free port and waits until it listens.
    pub(crate) fn start(&self) -> Running {
        self.start_with(|command| command)
    }

    pub(crate) fn start_with(&self, more: impl FnOnce(&mut Command) -> &mut Command) -> Running {
        let mut command = self.command();
        command.args(["--port", "0"]);
        let mut running = Running::spawn(more(&mut command));
        let line = running.line("listening on ");
        let address = line.rsplit(' ').next().unwrap();
        running.address = address.parse().unwrap();
        running
    }
}

type Lines = Arc<(Mutex<Vec<String>>, Condvar)>;

pub(crate) struct Running {
    child: Child,
    lines: Lines,
    pub(crate) address: SocketAddr,
}

impl Running {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = spawn_when_closed(command.stdout(Stdio::piped()));
        let lines = Lines::default();
        let output = BufReader::new(child.stdout.take().unwrap());
        let writer = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                writer.0.lock().unwrap().push(line);
                writer.1.notify_all();
            }
        });
        Self { child, lines, address: ([127, 0, 0, 1], 0).into() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that contains `part`.
    pub(crate) fn line(&self, part: &str) -> String {
        let guard = self.lines.0.lock().unwrap();
        let found = |lines: &Vec<String>| lines.iter().find(|line| line.contains(part)).cloned();
        let (lines, _) =
            self.lines.1.wait_timeout_while(guard, LIMIT, |lines| found(lines).is_none()).unwrap();
        found(&lines).unwrap_or_else(|| panic!("no line with {part:?} in {lines:#?}"))
    }

    pub(crate) fn has_line(&self, part: &str) -> bool {
        self.lines.0.lock().unwrap().iter().any(|line| line.contains(part))
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end; `None` if a signal ended it.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let mut status = None;
        until("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        ask(self.address, &format!("GET {path}"), "")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        ask(self.address, &format!("POST {path}"), body)
    }

    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.get(path).body).unwrap()
    }

    pub(crate) fn wait_for_status(&self, path: &str, status: u16) {
        until(&format!("{path} answers {status}"), || self.get(path).status == status);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// While another test forks, it holds our just-written executable open for a moment.
fn spawn_when_closed(command: &mut Command) -> Child {
    let mut child = None;
    until("the executable can be started", || match command.spawn() {
        Ok(started) => {
            child = Some(started);
            true
        }
        Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => false,
        Err(error) => panic!("{error}"),
    });
    child.unwrap()
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// One exchange on a connection of its own.
pub(crate) fn ask(address: SocketAddr, line: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let length = body.len();
    write!(
        stream,
        "{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
