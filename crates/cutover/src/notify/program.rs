//! A program that takes a message as its standard input. It runs as the user that it is given, in a clean environment, in
//! a group of its own that ends with the call.

use super::{Error, Message, said};
use crate::store::Identity;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio_util::task::AbortOnDropHandle;

/// How long after its end a program's last words are waited for: something that it started may hold its output open.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// So many of them are kept (bytes).
const LAST_WORDS_MAX: u64 = 4096;

/// A program that takes messages.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// Its whole environment, beside the message's id.
    pub env: BTreeMap<String, String>,
    /// As whom it runs; `None`: as the caller.
    pub identity: Option<Identity>,
}

/// A group of processes that ends with its owner.
struct Group(Option<Pid>);

impl Group {
    /// Waits for the leader's end, and does not reap it.
    async fn leader_ended(&self) -> io::Result<()> {
        let Some(leader) = self.0 else { return Ok(()) };
        let ended = move || waitid(WaitId::Pid(leader), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let waited = tokio::task::spawn_blocking(ended).await;
        Ok(waited.expect("BUG: waiting for a process panicked").map(drop)?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // No such process: it has ended by itself.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Program {
    /// Runs it with one message. Exit code 0 says that the message is taken. The caller bounds the time.
    pub(super) async fn run(&self, message: &Message) -> Result<String, Error> {
        let program = || self.words.first().cloned().unwrap_or_default();
        let mut child = self.start(message).map_err(|source| Error::Start { program: program(), source })?;
        let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let (mut stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let (spoken, mut heard) = tokio::sync::watch::channel(Vec::new());
        let listener = AbortOnDropHandle::new(tokio::spawn(async move {
            let Some(stderr) = stderr else { return };
            let (mut stderr, mut buffer) = (stderr.take(LAST_WORDS_MAX), [0; 1024]);
            while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
                spoken.send_modify(|all: &mut Vec<u8>| all.extend_from_slice(&buffer[..read]));
            }
        }));
        let body = message.body.clone();
        let writer = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Some(stdin) = &mut stdin {
                // A program need not read what it is not interested in.
                let _ = stdin.write_all(body.as_bytes()).await;
            }
        }));
        let ended = async {
            group.leader_ended().await?;
            // Before the leader is reaped: after that its number may be another group's.
            drop(group);
            child.wait().await
        };
        let ended = ended.await.map_err(|source| Error::Start { program: program(), source })?;
        drop(writer);
        if ended.success() {
            return Ok("exit code 0".into());
        }
        let _ = tokio::time::timeout(LAST_WORDS, listener).await;
        let said = said(&heard.borrow_and_update());
        Err(Error::Ended { program: program(), how: ended.to_string(), said })
    }

    fn start(&self, message: &Message) -> io::Result<Child> {
        let Some((program, arguments)) = self.words.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program is named"));
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(&self.env)
            .env("CUTOVER_NOTICE_ID", &message.id)
            .current_dir("/")
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Identity::spawn(self.identity.as_ref(), &mut command)
    }
}
