//! What SIGUSR1 means: a request to restart, which needs an intent or a policy that needs none.

use crate::Knobs;
use crate::voice;
use cutover_intent::{Receiver, consume};
use std::error::Error as _;
use std::path::Path;

/// The answer to one SIGUSR1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a granted restart must end the process"]
pub(crate) enum Answer {
    /// End with code 0; the parent starts what is installed now.
    Restart,
    /// Go on as if nothing had come; a later, legitimate request must still work.
    GoOn,
}

/// Decides on one SIGUSR1; `intent_file` is where an intent would be. Every intent that is looked at is consumed.
pub(crate) fn answer(knobs: &Knobs, intent_file: Option<&Path>) -> Answer {
    if knobs.ignore_usr1 {
        voice::say("SIGUSR1 ignored");
        return Answer::GoOn;
    }
    let cause = match permitted(intent_file) {
        Ok(run) => {
            voice::say(format!("SIGUSR1 restart authorized by the intent of run {run}"));
            return Answer::Restart;
        }
        Err(cause) => cause,
    };
    if knobs.allow_external {
        voice::say("SIGUSR1 restart allowed by policy");
        return Answer::Restart;
    }
    voice::say(format!("SIGUSR1 restart ignored (not authorized): {cause}"));
    Answer::GoOn
}

fn permitted(intent_file: Option<&Path>) -> Result<String, String> {
    let path = intent_file.ok_or("no intent file is configured")?;
    let me = Receiver::current().map_err(|error| format!("the own identity is unknown: {error}"))?;
    match consume(path, &me) {
        Ok(intent) => Ok(intent.run_id.to_string()),
        Err(refusal) => Err(match refusal.source() {
            Some(cause) => format!("{refusal}: {cause}"),
            None => refusal.to_string(),
        }),
    }
}
