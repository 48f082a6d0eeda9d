//! Why the caller is told no. A refusal changes nothing and leaves nothing behind.

use crate::{PlanId, RunId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why an event does not apply.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "refusal")]
pub enum Refusal {
    /// One run at a time, and that one ends by itself.
    #[error("run {run} is already under way and ends by itself: `status` shows it")]
    AlreadyRunning {
        /// The open run.
        run: RunId,
    },
    /// One run at a time, and nothing was stopped for that one yet.
    #[error("run {run} is already under way and has stopped nothing yet: `cancel` ends it")]
    Preparing {
        /// The open run.
        run: RunId,
    },
    /// One run at a time, and that one waits for a person.
    #[error("run {run} is already under way and waits for an approval: `approve` it, or `cancel` ends it")]
    Awaiting {
        /// The open run.
        run: RunId,
    },
    /// A parked run waits for `start` or `cancel`.
    #[error("run {run} is switched and waits for `start` (or `cancel`)")]
    Parked {
        /// The parked run.
        run: RunId,
    },
    /// Too late to cancel or stop.
    #[error("run {run} is past the cut; it ends by itself: `status` shows it")]
    PastTheCut {
        /// The open run.
        run: RunId,
    },
    /// The answer belongs to an act that is no longer under way.
    #[error("stale answer")]
    Stale,
    /// What is to be approved is not what is prepared.
    #[error(
        "that is not what is prepared now, which is plan {plan}: look at it and approve that, or `cancel`"
    )]
    AnotherPlan {
        /// What is.
        plan: PlanId,
    },
    /// The order means nothing in this state.
    #[error("{why}")]
    NotNow {
        /// Why, and what to do instead.
        why: String,
    },
    /// Going back with the data as it is would start old code on migrated data.
    #[error("the data was migrated: `--data keep` would start old code on it; use `--data restore`")]
    KeepOnMigrated,
    /// There is nothing to go back to.
    #[error("no kept generation to go back to")]
    NothingKept,
    /// The wish already holds.
    #[error("already so")]
    AlreadySo,
    /// The observations do not prove what the act needs.
    #[error("not proven: {why}")]
    Unproven {
        /// What is missing or contradicts.
        why: String,
    },
}
