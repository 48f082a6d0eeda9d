//! What can be wrong with a way, and why a message was not taken.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A message was not taken, or a way cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is configured is not an address that a message is sent to.
    #[error("{why}")]
    Address {
        /// What is wrong, and what to write. It does not repeat the address, whose path may be a secret.
        why: &'static str,
    },
    /// The secret cannot be read.
    #[error("reading {}; its owner must be able to: `chmod 600` and `chown` it to whom the daemon runs as", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Others can read the secret.
    #[error("{} has mode {mode:04o}, so others can read the secret; type `chmod 600 {}`", path.display(), path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// What is in the file is no secret.
    #[error("{} holds {found}; write at least {least} bytes, for example with `openssl rand -hex 32`", path.display())]
    Weak {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: &'static str,
        /// The fewest bytes.
        least: usize,
    },
    /// Nobody could be reached.
    #[error("connecting to {host}")]
    Connect {
        /// Whom.
        host: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// There is nothing to check certificates with.
    #[error(
        "no certificate authority is known here; install the system's bundle (ca-certificates), or name one in SSL_CERT_FILE"
    )]
    NoAuthorities,
    /// The other side did not prove to be who it should be, or speaks no TLS.
    #[error("greeting {host} over TLS")]
    Tls {
        /// Whom.
        host: String,
        /// What was wrong.
        #[source]
        source: io::Error,
    },
    /// What came back was not HTTP, or nothing came.
    #[error("no HTTP answer")]
    Http {
        /// What the HTTP reader found.
        #[source]
        source: hyper::Error,
    },
    /// It was answered, and not taken.
    #[error("answered with status {status}{said}")]
    Status {
        /// The status.
        status: u16,
        /// What was said with it, after a colon; empty if nothing was.
        said: String,
    },
    /// No answer came in time.
    #[error("not taken within {limit:?}")]
    Unanswered {
        /// The limit.
        limit: Duration,
    },
    /// The program could not be started.
    #[error("starting {program}")]
    Start {
        /// The program.
        program: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The program did not take the message.
    #[error("{program} ended with {how}{said}")]
    Ended {
        /// The program.
        program: String,
        /// Its end.
        how: String,
        /// What it said, after a colon; empty if it said nothing.
        said: String,
    },
}
