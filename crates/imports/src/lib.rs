//! Whether every import of a tree of JavaScript packages finds what it names.
//!
//! Knows how node looks for modules and links them, and reads a tree without running any of it. It must not know what
//! an update is, and it changes nothing. It takes directories: no environment, no working directory, no clock.
//!
//! [`check`] reads one tree, [`regressions`] says what another lacks in comparison. A healthy installation has findings
//! too (optional packages that are not there), so that only the comparison is a judgement.
//!
//! Not found are: what is evaluated wrongly, specifiers that are computed, names taken from a namespace by hand, and the
//! early errors that need scopes (a name declared twice, `with` in a module).

mod body;
mod builtins;
mod cache;
mod closure;
mod declared;
mod disk;
mod exports;
mod finding;
mod floor;
mod linking;
mod manifest;
mod module;
mod nesting;
mod package;
mod resolution;
mod syntax;
mod trees;

pub use builtins::Builtins;
pub use cache::Cache;
pub use finding::{Finding, Kind, Reach, Weight, regressions};
pub use floor::{Parsed, parse_only};
pub use trees::{Alias, Checked, Interpreter, Limits, Root, Scope, Trees, check, check_unless};

use std::path::PathBuf;

/// Why a tree could not be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory that was to be read is none.
    #[error("{path} is not a directory that can be read")]
    NoDirectory {
        /// What was given.
        path: PathBuf,
    },
    /// The machine gives no thread to read with. Its stack is large, so that deep texts can be read.
    #[error("start a thread with a stack of {} MiB", nesting::STACK_BYTES >> 20)]
    StartThread {
        /// Why.
        source: std::io::Error,
    },
    /// Whoever asked does not want to know any more.
    #[error("given up")]
    GivenUp,
    /// The cache is there and cannot be read.
    #[error("read the cache {path}")]
    LoadCache {
        /// The cache's file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The cache cannot be written.
    #[error("write the cache {path}")]
    SaveCache {
        /// The cache's file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
