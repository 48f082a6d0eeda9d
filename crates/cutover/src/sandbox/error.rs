//! What can go wrong with a sandbox, apart from the kernel's refusal, which is an outcome.

use std::io;
use std::path::PathBuf;

/// A command was not run, or its end is not known. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path must be absolute.
    #[error("{} is not absolute", path.display())]
    Relative {
        /// Which.
        path: PathBuf,
    },
    /// The root cannot be private.
    #[error("{} cannot be a private directory", path.display())]
    Root {
        /// Which.
        path: PathBuf,
    },
    /// The outer half could not be started.
    #[error("starting {} for a sandbox", path.display())]
    Spawn {
        /// This program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The outer half could not be told, or did not answer in time.
    #[error("talking to the sandbox")]
    Talk(#[source] io::Error),
    /// The outer half ended without a word.
    #[error("the sandbox ended without a word")]
    Silent,
    /// Nobody wanted to know any more; what ran was killed.
    #[error("given up before the sandbox answered")]
    GivenUp,
    /// The house could not be furnished, for a reason that is not the kernel's refusal.
    #[error("furnishing the sandbox: {why}")]
    House {
        /// Which step, and why.
        why: String,
    },
    /// The command could not be executed.
    #[error("executing {} in the sandbox", path.display())]
    NotExecuted {
        /// Its program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
