//! Notices: how a message reaches somebody outside of the service. Knows webhooks, signatures and programs that take a
//! message; must not know what a message says, nor when and how often it is sent.

mod endpoint;
mod error;
mod program;
mod secret;
mod tls;
mod webhook;

pub use endpoint::Endpoint;
pub use error::Error;
pub use program::Program;
pub use secret::Secret;

use std::path::PathBuf;
use std::time::Duration;

/// Of what a receiver says so much (bytes) is told.
const SAID_MAX: usize = 300;

/// One way to somebody.
#[derive(Clone, Debug)]
pub enum Way {
    /// An HTTP POST.
    Webhook {
        /// Where.
        endpoint: Endpoint,
        /// What it is signed with; read for each message, so that it may be changed. `None`: it is not signed.
        secret: Option<PathBuf>,
    },
    /// A program with the message as its standard input.
    Program(Program),
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its id, the same however often it is sent: whoever knows it already has been told.
    pub id: String,
    /// When it is sent (seconds of Unix time): part of what is signed, against those who send an old one again.
    pub sent: u64,
    /// JSON.
    pub body: String,
}

/// Sends a message once. Takes at most `limit`; what is not taken by then counts as not taken. Answers what the receiver
/// said, in a few words.
///
/// # Errors
/// [`Error`]: the receiver may still have got it.
pub async fn tell(way: &Way, message: &Message, limit: Duration) -> Result<String, Error> {
    let told = async {
        match way {
            Way::Webhook { endpoint, secret } => {
                let secret = secret.as_deref().map(Secret::read).transpose()?;
                webhook::post(endpoint, secret.as_ref(), message).await
            }
            Way::Program(program) => program.run(message).await,
        }
    };
    // Dropping it ends the connection, and the program with its group.
    tokio::time::timeout(limit, told).await.unwrap_or(Err(Error::Unanswered { limit }))
}

/// The beginning of what was said, as the end of a sentence; nothing where nothing was.
fn said(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SAID_MAX)]);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    if line.is_empty() { line } else { format!(": {line}") }
}
