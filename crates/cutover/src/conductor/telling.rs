//! Telling the operator: one task for each who is told, so that one who hangs holds up nobody else. What is owed is read
//! from the journal's fold; that somebody was told, or that it was given up, becomes a fact there.

use super::inbox::{Handle, Input};
use super::ledger::wall_ms;
use super::outward::outward;
use super::site::Site;
use super::view::View;
use crate::causes::told;
use crate::config::{NotifySettings, WaySettings};
use crate::notify::{self, Message, Program, Way};
use crate::preflight::Secrets;
use crate::store;
use crate::supervisor;
use cutover_core::{
    About, Event, Notification, NotificationId, Notifications, Outcome, Report, Target, TargetId, report,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::{Duration, Instant};

/// Between the first two tries; doubled for each further one.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Between two tries at most.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// A notice that is older when it is sent is marked so.
const LATE: Duration = Duration::from_secs(300);
/// What is passed on to a program of the service's environment.
const PASSED_ON: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ"];

/// A notice that is being tried. Shown, never journaled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// Which.
    pub notification: NotificationId,
    /// Who.
    pub target: TargetId,
    /// Tries so far.
    pub tries: u32,
    /// Why the last one failed.
    pub why: String,
    /// When it is tried again (ms of Unix time).
    pub next_at: u64,
}

/// How far the telling of one target is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Telling {
    /// Who.
    pub target: Target,
    /// Notices that it does not have yet.
    pub owed: usize,
    /// The one that is being tried and failed so far.
    pub trial: Option<Trial>,
    /// Why the last notice was given up, if it was.
    pub given_up: Option<String>,
}

/// How far the telling of everybody is.
pub(super) fn tellings(notifications: &Notifications, trials: &[Trial]) -> Vec<Telling> {
    let telling = |target: &Target| Telling {
        target: target.clone(),
        owed: notifications.owed_count(&target.id),
        trial: trials.iter().find(|trial| trial.target == target.id).cloned(),
        given_up: match notifications.last_outcome(&target.id) {
            Some(Outcome::GivenUp { why, .. }) => Some(why.clone()),
            Some(Outcome::Delivered { .. }) | None => None,
        },
    };
    notifications.targets.iter().map(telling).collect()
}

/// Tells everybody whatever is owed to them, until the conductor is gone.
pub(super) fn attend(handle: &Handle) {
    for settings in &handle.executor.site.settings.notify {
        tokio::spawn(tell(handle.clone(), settings.clone()));
    }
}

/// Tells one target, the oldest first.
async fn tell(handle: Handle, settings: NotifySettings) {
    let mut views = handle.watch();
    let target = &settings.target.id;
    loop {
        let owed = views.wait_for(|view| view.notifications().owed(target).is_some()).await;
        let Some(notification) = owed.ok().and_then(|view| view.notifications().owed(target).cloned()) else {
            return;
        };
        let outcome = insist(&handle, &settings, &notification).await;
        crate::crash_point!("told");
        let id = notification.id;
        let event = Event::Told { notification: id.clone(), target: target.clone(), outcome };
        if handle.executor.reporter.fact(event).await.is_err() {
            return;
        }
        handle.executor.reporter.send(Input::Tried { target: target.clone(), trial: None }).await;
        // The view is older than the fact until it is published: what is told in it again is not to be sent again.
        let is_known = |view: &View| view.notifications().owed(target).is_none_or(|next| next.id != id);
        if views.wait_for(is_known).await.is_err() {
            return;
        }
    }
}

/// Tries until it is taken, or for as long as it may be tried.
async fn insist(handle: &Handle, settings: &NotifySettings, notification: &Notification) -> Outcome {
    let site = &handle.executor.site;
    let (way, begun) = (way(&settings.way, site), Instant::now());
    let mut tries = 0;
    loop {
        tries += 1;
        let message = message(&handle.view(), notification, site);
        let why = match notify::tell(&way, &message, settings.timeout).await {
            Ok(answer) => {
                tracing::info!(service = site.settings.name, notice = %notification.id, to = settings.target.name, tries, "told");
                return Outcome::Delivered { tries, answer };
            }
            Err(error) => told(&error),
        };
        tracing::warn!(service = site.settings.name, notice = %notification.id, to = settings.target.name, tries, why, "not told");
        let pause = supervisor::backoff(tries, PAUSE_FIRST, PAUSE_MAX);
        if begun.elapsed() + pause > settings.give_up {
            return Outcome::GivenUp { tries, why: format!("tried for {:?}: {why}", settings.give_up) };
        }
        let next_at = wall_ms() + u64::try_from(pause.as_millis()).unwrap_or_default();
        let target = settings.target.id.clone();
        let trial =
            Trial { notification: notification.id.clone(), target: target.clone(), tries, why, next_at };
        handle.executor.reporter.send(Input::Tried { target, trial: Some(trial) }).await;
        tokio::time::sleep(pause).await;
    }
}

fn way(settings: &WaySettings, site: &Site) -> Way {
    match settings {
        WaySettings::Webhook { endpoint, secret_file } => {
            Way::Webhook { endpoint: endpoint.clone(), secret: secret_file.clone() }
        }
        WaySettings::Exec { words } => {
            let passed_on = site.env.iter().filter(|(name, _)| PASSED_ON.contains(&name.as_str()));
            Way::Program(Program {
                words: words.clone(),
                env: passed_on.map(|(name, value)| (name.clone(), value.clone())).collect(),
                identity: site.identity.as_ref().map(store::Identity::from),
            })
        }
    }
}

/// What is sent: what is true now, about what happened then.
fn message(view: &View, notification: &Notification, site: &Site) -> Message {
    let now = wall_ms();
    let secrets = Secrets::of(&site.env, std::iter::empty());
    let told = match notification.about.run() {
        // So old that nothing else is known of it.
        Some(run) => view.run(run),
        None => Some(report(&view.service, view.state(), None).typed(&view.flags)),
    };
    let fault = match &notification.about {
        About::AlarmRaised { fault } | About::AlarmCleared { fault } => Some(fault),
        About::RunBegun { .. }
        | About::RunAwaiting { .. }
        | About::RunMissed { .. }
        | About::RunEnded { .. } => None,
    };
    let alarm = fault.map(|fault| json!({ "code": fault.code, "detail": secrets.hidden_in(&fault.detail) }));
    let body = json!({
        "id": notification.id,
        "event": notification.about.word(),
        "service": view.service,
        "host": rustix::system::uname().nodename().to_string_lossy(),
        "at": notification.at,
        "late": is_late(notification.at, now),
        "text": secrets.hidden_in(&text(&view.service, &notification.about, told.as_ref())),
        "alarm": alarm,
        "report": told.map(|report| outward(report, &secrets)),
    });
    Message { id: notification.id.0.clone(), sent: now / 1000, body: body.to_string() }
}

/// Whether what happened then is old news now. For people: wall time may have been set.
fn is_late(then_ms: u64, now_ms: u64) -> bool {
    Duration::from_millis(now_ms.saturating_sub(then_ms)) > LATE
}

/// One sentence or two for a person.
fn text(service: &str, about: &About, report: Option<&Report>) -> String {
    match (about, report) {
        (About::AlarmRaised { fault }, _) => format!("{service}: {}.", fault.detail),
        (About::AlarmCleared { fault }, _) => format!("{service}: over: {}.", fault.detail),
        (About::RunBegun { .. }, Some(report)) => {
            let origin = report.origin.as_ref().map_or("trouble", |origin| origin.code.as_str());
            format!("{service}: a run began by itself because of `{origin}`. {}", report.sentence)
        }
        (About::RunAwaiting { plan, .. }, Some(report)) => match &report.awaits {
            Some(awaits) if awaits.plan.as_ref() == Some(plan) => {
                format!("{service}: {} What to type: {}", report.sentence, awaits.commands.join(" | "))
            }
            _ => format!("{service}: plan {plan} was to be approved; by now: {}", report.sentence),
        },
        (About::RunMissed { .. }, Some(report)) => format!("{service}: {}", report.sentence),
        (About::RunEnded { .. }, Some(report)) => {
            let mut text = format!("{service}: {}", report.sentence);
            if !report.recovery.is_empty() {
                text.push_str(" What to type: ");
                text.push_str(&report.recovery.join(" | "));
            }
            text
        }
        (_, None) => {
            let run = about.run().map(|run| format!(" {run}")).unwrap_or_default();
            format!("{service}: {}{run}, of which the record is not kept any more.", about.word())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutover_core::{Delivery, Fault, RunId, State};

    fn target(name: &str) -> Target {
        Target { id: TargetId(name.into()), name: name.into() }
    }

    fn told(outcome: Option<Outcome>) -> Notification {
        let run = RunId("r".into());
        let deliveries = vec![Delivery { target: target("a"), outcome }];
        Notification {
            id: NotificationId("r:ended".into()),
            about: About::RunEnded { run },
            at: 1,
            deliveries,
        }
    }

    #[test]
    fn r81_old_news_is_marked_and_a_clock_that_was_set_back_makes_none() {
        let minute = 60_000;
        assert!(!is_late(minute, 6 * minute));
        assert!(is_late(minute, 6 * minute + 1));
        assert!(!is_late(6 * minute, minute));
    }

    #[test]
    fn what_was_given_up_is_an_alarm_until_a_later_one_is_taken() {
        let given_up = || told(Some(Outcome::GivenUp { tries: 3, why: "refused".into() }));
        let taken = told(Some(Outcome::Delivered { tries: 1, answer: "200".into() }));
        let of = |all| Notifications { targets: vec![target("a"), target("b")], alarm: None, all };
        let alarmed = tellings(&of(vec![given_up(), told(None)]), &[]);
        assert_eq!((alarmed[0].given_up.as_deref(), alarmed[0].owed), (Some("refused"), 1));
        assert_eq!((alarmed[1].given_up.as_deref(), alarmed[1].owed), (None, 0));
        assert_eq!(tellings(&of(vec![given_up(), taken]), &[])[0].given_up, None);
    }

    #[test]
    fn a_run_that_is_not_remembered_any_more_is_still_named() {
        let about = About::RunEnded { run: RunId("r7".into()) };
        assert!(text("web", &about, None).contains("r7"));
        let fault = Fault { code: "crash_looping".into(), detail: "3 exits in a row".into() };
        let service = report("web", &State::new(), None);
        let cleared = About::AlarmCleared { fault };
        assert_eq!(text("web", &cleared, Some(&service)), "web: over: 3 exits in a row.");
    }
}
