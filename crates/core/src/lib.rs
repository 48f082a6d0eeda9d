//! What an update is: one pure state machine and its readings. This crate knows no files, sockets, processes or clocks.
//!
//! [`step`] decides; [`wants`], [`posture`] and [`patience`] say what the world must do about it; [`judge`] is the only
//! maker of evidence; [`replay`] turns a journal back into a state.

mod act;
mod event;
mod finding;
mod gate;
mod ids;
mod judge;
mod notification;
mod observation;
mod order;
mod policy;
mod readings;
mod record;
mod refusal;
mod replay;
mod report;
mod setup;
mod state;
mod status;
mod step;
mod words;

pub use act::{Act, PREPARING, ROLLING_BACK, Ticket, cutting_over};
pub use event::{Boot, Checked, Declared, Done, Event, Exit};
pub use finding::{Finding, Level};
pub use gate::{Approval, ApprovalRule, Awaited, Clearance, Day, Gate, Hold, Look, Opening, PlanId, Window};
pub use ids::{BootId, Generation, Installed, Instance, Plugin, Release, RunId};
pub use judge::{Evidence, Expectation, Fact, FactName, PluginsTold, Reading, Verdict, judge};
pub use notification::{
    About, Alarm, AlarmId, Delivery, Notification, NotificationId, Notifications, Outcome, Target, TargetId,
};
pub use observation::{
    Code, Compared, Exchanges, FileIdentity, Listener, Observations, OldProcess, Owner, Seen,
};
pub use order::{DataOrder, DataWish, Order, Wanted};
pub use policy::{
    DataClass, Intake, Policy, RehearsalRule, ReleaseRule, RepairRule, RestoreAfterRelease, RollbackRule,
    Settings, Strategy,
};
pub use readings::{Effect, LayDown, Posture, Process, Until, Wants, patience, posture, wants};
pub use record::{CopiedBytes, Direction, Moment, Record, StepRecord};
pub use refusal::Refusal;
pub use replay::{Entry, Mismatch, Recorded, fingerprint, replay, replay_entry};
pub use report::{Awaits, Report, Serves, report};
pub use setup::Setup;
pub use state::{
    Aim, Base, Cut, Extent, Kept, Leave, Maintenance, Phase, Preparation, Restarts, Retreat, Retried,
    Revived, Run, Serving, State, Traffic, Tree, Watch, Wish,
};
pub use status::{Cause, Ending, Fault, Kind, Resolution, Status, Writes};
pub use step::{STEP_VERSION, Transition, asks_for_a_restart, step};
