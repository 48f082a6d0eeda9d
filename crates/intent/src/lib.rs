//! One-shot permission to restart.
//!
//! A service that refuses restarts from outside (`allow_external = false`) still accepts one that carries an intent: a
//! small file that names the run, the one process it is meant for, and an end of validity on the boot-time clock.
//! The daemon [`issue`]s it, signals, and the service [`consume`]s it: once, or it is refused with a [`Refusal`].
//!
//! Knows the file, who may read it and who it is meant for. Must not know versions, health, or why a restart is wanted.
//!
//! # The directory
//! Consuming is a rename, so the service's uid must be able to write in the file's directory. Each service therefore
//! has a directory of its own, made by [`prepare_directory`]: mode 0700, owned by the uid that the service runs as.
//! The directories above it stay the daemon's and need only be searchable (0711) where that uid is another. What the
//! owner of the directory can forge there is permission for its own process to restart, which it has anyway.

pub mod identity;
mod intent;
mod issuer;
mod receiver;

pub use cutover_core::{BootId, Instance, RunId};
pub use intent::{Intent, LIFETIME, SIZE_MAX, VERSION, boot_time_ms};
pub use issuer::{Error, Owner, Withdrawal, issue, prepare_directory, withdraw};
pub use receiver::{Receiver, Refusal, consume};

/// Environment variable that tells a service where its intent file will be.
pub const FILE_VARIABLE: &str = "CUTOVER_INTENT_FILE";

/// Environment variable that carries the nonce of a process and all that it starts; a successor takes it from the intent.
pub const NONCE_VARIABLE: &str = "CUTOVER_NONCE";
