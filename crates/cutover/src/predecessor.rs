//! Who served on a service's address before it was ours: read from the running process alone, ended, and brought back.
//!
//! Knows `/proc`, systemd's managers, what else starts a process again, and a record beside the service that is durable before
//! each step: at no moment is nobody in charge without a line that says how to go on. Must not know updates, generations or
//! settings.

mod ending;
mod error;
mod found;
mod manager;
mod package;
mod places;
mod processes;
mod record;
mod respawner;
mod returning;
mod rival;

pub use ending::{Ended, StopLimits};
pub use error::Error;
pub use found::{Account, Predecessor, Search, find};
pub use manager::{Manager, Unit};
pub use package::Package;
pub use record::{Line, Record, Step, Terms, Written};
pub use returning::{AGAIN_MAX, answers};
pub use rival::Rival;
