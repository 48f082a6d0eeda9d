//! Puts everything together that was seen of one process at one instant.

use super::answers::{ServiceAnswers, both};
use super::process::ProcessFacts;
use cutover_core::{Compared, Observations, Seen};
use std::fmt::Debug;

/// One round's observations. `direct` is what the service said at its own address, `elsewhere` what it said through the
/// front; they must not contradict each other, and nothing may be missing in either. `streak` is counted by the caller.
#[must_use]
pub fn assemble(
    process: ProcessFacts,
    direct: ServiceAnswers,
    elsewhere: Vec<ServiceAnswers>,
    tripwires: Seen<Vec<String>>,
    traffic: Seen<Compared>,
    streak: u32,
) -> Observations {
    let said = elsewhere.into_iter().fold(direct, |known, more| ServiceAnswers {
        version: agreed(known.version, more.version),
        build: agreed(known.build, more.build),
        service_instance: agreed(known.service_instance, more.service_instance),
        live: both(known.live, more.live),
        ready: both(known.ready, more.ready),
        plugins: agreed(known.plugins, more.plugins),
        user_path: both(known.user_path, more.user_path),
        failed: known.failed,
    });
    Observations {
        identity: process.identity,
        code: process.code,
        listeners: process.listeners,
        version: said.version,
        build: said.build,
        service_instance: said.service_instance,
        live: said.live,
        ready: said.ready,
        plugins: said.plugins,
        user_path: said.user_path,
        traffic,
        tripwires,
        old: process.old,
        streak,
    }
}

/// One fact from two places: two different answers are no evidence for either, and one that is missing is missing.
fn agreed<T: PartialEq + Debug>(first: Seen<T>, second: Seen<T>) -> Seen<T> {
    match (first, second) {
        (missing @ Seen::Missing { .. }, _) | (_, missing @ Seen::Missing { .. }) => missing,
        (
            Seen::Yes { value, at_ms, source },
            Seen::Yes { value: other_value, at_ms: other_ms, source: other },
        ) => {
            let (at_ms, source) = (at_ms.max(other_ms), format!("{source}; {other}"));
            if value == other_value {
                return Seen::Yes { value, at_ms, source };
            }
            Seen::Missing { why: format!("two answers: {value:?} and {other_value:?}"), at_ms, source }
        }
        (yes @ Seen::Yes { .. }, Seen::NotApplicable { .. }) => yes,
        (Seen::NotApplicable { .. }, second) => second,
    }
}
