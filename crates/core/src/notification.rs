//! What the operator is told, and who knows it: folded from journal entries beside the state, which it never changes. It
//! must not know how anybody is told.

use crate::{Act, Awaited, Ending, Entry, Event, Fault, Opening, Phase, PlanId, Record, RunId, State};
use serde::{Deserialize, Serialize};
use std::fmt;

/// So many are remembered, newest last.
const REMEMBERED_MAX: usize = 200;

/// Names one way to an operator, stable as long as it is written the same in the configuration. No secret is in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TargetId(pub String);

/// One way to an operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Which.
    pub id: TargetId,
    /// What a person is shown of it: no secret is in it.
    pub name: String,
}

/// Names one notification, for ever: who gets the same id twice has been told once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NotificationId(pub String);

impl fmt::Display for NotificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one alarm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AlarmId(pub String);

/// Trouble of a resting service that a person should know of and that lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    /// Which.
    pub id: AlarmId,
    /// What is wrong.
    pub fault: Fault,
    /// Since when (ms of Unix time).
    pub since: u64,
}

/// Something that the operator is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// Which.
    pub id: NotificationId,
    /// What it is about.
    pub about: About,
    /// When that happened (ms of Unix time).
    pub at: u64,
    /// Who is told.
    pub deliveries: Vec<Delivery>,
}

/// What a notification is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event")]
pub enum About {
    /// A run that nobody ordered began: a revert, or a tree that a foreign hand changed.
    #[serde(rename = "run.begun")]
    RunBegun {
        /// It.
        run: RunId,
    },
    /// A run is prepared and waits for a person's word.
    #[serde(rename = "run.awaiting")]
    RunAwaiting {
        /// It.
        run: RunId,
        /// What is to be approved.
        plan: PlanId,
    },
    /// A window opened for a run and closed before anything could be stopped in it.
    #[serde(rename = "run.missed")]
    RunMissed {
        /// It.
        run: RunId,
    },
    /// A run ended: the one terminal notification of it.
    #[serde(rename = "run.ended")]
    RunEnded {
        /// It.
        run: RunId,
    },
    /// An alarm began.
    #[serde(rename = "alarm.raised")]
    AlarmRaised {
        /// What is wrong.
        fault: Fault,
    },
    /// It is over.
    #[serde(rename = "alarm.cleared")]
    AlarmCleared {
        /// What was wrong.
        fault: Fault,
    },
}

impl About {
    /// The word on the wire.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::RunBegun { .. } => "run.begun",
            Self::RunAwaiting { .. } => "run.awaiting",
            Self::RunMissed { .. } => "run.missed",
            Self::RunEnded { .. } => "run.ended",
            Self::AlarmRaised { .. } => "alarm.raised",
            Self::AlarmCleared { .. } => "alarm.cleared",
        }
    }

    /// The run that it is about, if it is about one.
    #[must_use]
    pub fn run(&self) -> Option<&RunId> {
        match self {
            Self::RunBegun { run }
            | Self::RunAwaiting { run, .. }
            | Self::RunMissed { run }
            | Self::RunEnded { run } => Some(run),
            Self::AlarmRaised { .. } | Self::AlarmCleared { .. } => None,
        }
    }
}

/// Whether one target knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Who.
    pub target: Target,
    /// How it ended; `None`: it is still owed.
    pub outcome: Option<Outcome>,
}

impl Delivery {
    fn is_owed_to(&self, target: &TargetId) -> bool {
        self.target.id == *target && self.outcome.is_none()
    }
}

/// How the telling of one target ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum Outcome {
    /// It took it.
    #[serde(rename_all = "camelCase")]
    Delivered {
        /// Tries since the daemon that did it began.
        tries: u32,
        /// What it answered.
        answer: String,
    },
    /// It was tried for as long as it may be.
    #[serde(rename_all = "camelCase")]
    GivenUp {
        /// Tries since the daemon that gave up began.
        tries: u32,
        /// Why the last one failed.
        why: String,
    },
}

/// All that was and is to be told about one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notifications {
    /// Who is told of what happens from now on.
    pub targets: Vec<Target>,
    /// The alarm that lasts.
    pub alarm: Option<Alarm>,
    /// Oldest first.
    pub all: Vec<Notification>,
}

impl Notifications {
    /// Takes a durable entry in, with the run that it began and the one that it ended.
    pub fn add(&mut self, entry: &Entry, begun: Option<&Record>, ended: Option<&Ending>) {
        match &entry.event {
            Event::Subscribed { targets } => self.targets.clone_from(targets),
            Event::Alarmed { alarm, fault } => {
                self.alarm = Some(Alarm { id: alarm.clone(), fault: fault.clone(), since: entry.wall_ms });
                self.owe(entry, format!("{}:raised", alarm.0), About::AlarmRaised { fault: fault.clone() });
            }
            Event::Calmed { alarm } => {
                if let Some(over) = self.alarm.take_if(|lasting| lasting.id == *alarm) {
                    self.owe(
                        entry,
                        format!("{}:cleared", alarm.0),
                        About::AlarmCleared { fault: over.fault },
                    );
                }
            }
            Event::Told { notification, target, outcome } => self.settle(notification, target, outcome),
            _ => {}
        }
        // What somebody ordered is no news to them when it begins.
        if let Some(run) = begun.filter(|record| record.origin.is_some()).map(|record| &record.run) {
            self.owe(entry, format!("{run}:begun"), About::RunBegun { run: run.clone() });
        }
        if let Some(ending) = ended {
            let run = &ending.run;
            self.owe(entry, format!("{run}:ended"), About::RunEnded { run: run.clone() });
        }
    }

    /// Takes in that an entry led from a state to another: a run may wait for a person from then on, or have
    /// missed its window.
    pub fn follow(&mut self, entry: &Entry, before: &State, after: &State) {
        let to_approve = |state: &State| match &state.phase {
            Phase::Preparing(run) if run.act == Act::Await && run.awaited() == Awaited::Approval => {
                Some((run.run.id.clone(), run.plan()?))
            }
            _ => None,
        };
        let asked = to_approve(after).filter(|asked| to_approve(before).as_ref() != Some(asked));
        if let Some((run, plan)) = asked {
            let id = format!("{run}:awaiting:{plan}");
            // Who held it again and is asked for the same once more has been told.
            self.owe_once(entry, id, About::RunAwaiting { run, plan });
        }
        if let Phase::Preparing(run) = &after.phase
            && run.gate.opening == Opening::Missed
        {
            // Once: that it goes on like that is to be seen.
            let run = run.run.id.clone();
            self.owe_once(entry, format!("{run}:missed"), About::RunMissed { run });
        }
    }

    /// The oldest that this target does not know yet. One that is not told any more is owed nothing.
    #[must_use]
    pub fn owed(&self, target: &TargetId) -> Option<&Notification> {
        self.targets.iter().find(|known| known.id == *target)?;
        let is_owed = |delivery: &Delivery| delivery.is_owed_to(target);
        self.all.iter().find(|notification| notification.deliveries.iter().any(is_owed))
    }

    /// How many this target does not know yet.
    #[must_use]
    pub fn owed_count(&self, target: &TargetId) -> usize {
        let all = self.all.iter().flat_map(|notification| &notification.deliveries);
        all.filter(|delivery| delivery.is_owed_to(target)).count()
    }

    /// How the telling of this target ended the last time that it did.
    #[must_use]
    pub fn last_outcome(&self, target: &TargetId) -> Option<&Outcome> {
        let deliveries = self.all.iter().rev().flat_map(|notification| &notification.deliveries);
        deliveries
            .filter(|delivery| delivery.target.id == *target)
            .find_map(|delivery| delivery.outcome.as_ref())
    }

    /// What is told of one run.
    pub fn of_run<'a>(&'a self, run: &'a RunId) -> impl Iterator<Item = &'a Notification> {
        self.all.iter().filter(move |notification| notification.about.run() == Some(run))
    }

    fn owe_once(&mut self, entry: &Entry, id: String, about: About) {
        if self.all.iter().all(|known| known.id.0 != id) {
            self.owe(entry, id, about);
        }
    }

    fn owe(&mut self, entry: &Entry, id: String, about: About) {
        if self.targets.is_empty() {
            return;
        }
        let owed = |target: &Target| Delivery { target: target.clone(), outcome: None };
        let deliveries = self.targets.iter().map(owed).collect();
        self.all.push(Notification { id: NotificationId(id), about, at: entry.wall_ms, deliveries });
        let surplus = self.all.len().saturating_sub(REMEMBERED_MAX);
        self.all.drain(..surplus);
    }

    /// The first outcome stands: whoever was told is not told again.
    fn settle(&mut self, notification: &NotificationId, target: &TargetId, outcome: &Outcome) {
        let of = self.all.iter_mut().filter(|known| known.id == *notification);
        for delivery in of.flat_map(|known| &mut known.deliveries) {
            if delivery.is_owed_to(target) {
                delivery.outcome = Some(outcome.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Recorded, State};

    fn entry(event: Event) -> Entry {
        Entry { seq: 1, wall_ms: 7, boot_ms: 7, event, recorded: Recorded::of(&State::new()) }
    }

    fn target(id: &str) -> Target {
        Target { id: TargetId(id.into()), name: format!("webhook {id}") }
    }

    fn subscribed(ids: &[&str]) -> Event {
        Event::Subscribed { targets: ids.iter().map(|id| target(id)).collect() }
    }

    fn alarmed(id: &str) -> Event {
        let fault = Fault { code: "crash_looping".into(), detail: "3 exits".into() };
        Event::Alarmed { alarm: AlarmId(id.into()), fault }
    }

    fn told(id: &str, target: &str, outcome: Outcome) -> Event {
        Event::Told { notification: NotificationId(id.into()), target: TargetId(target.into()), outcome }
    }

    fn delivered() -> Outcome {
        Outcome::Delivered { tries: 1, answer: "200".into() }
    }

    fn after(events: &[Event]) -> Notifications {
        let mut notifications = Notifications::default();
        events.iter().for_each(|event| notifications.add(&entry(event.clone()), None, None));
        notifications
    }

    fn owed<'a>(notifications: &'a Notifications, target: &str) -> Option<&'a str> {
        notifications.owed(&TargetId(target.into())).map(|notification| notification.id.0.as_str())
    }

    #[test]
    fn each_target_is_owed_what_happened_since_it_is_named_until_it_knows() {
        let events =
            [alarmed("before"), subscribed(&["a", "b"]), alarmed("1"), told("1:raised", "a", delivered())];
        let notifications = after(&events);
        assert_eq!((owed(&notifications, "a"), owed(&notifications, "b")), (None, Some("1:raised")));
        assert_eq!(owed(&notifications, "c"), None);
    }

    #[test]
    fn the_oldest_comes_first_and_the_first_outcome_stands() {
        let given_up = Outcome::GivenUp { tries: 9, why: "refused".into() };
        let mut events = vec![subscribed(&["a"]), alarmed("1"), Event::Calmed { alarm: AlarmId("1".into()) }];
        assert_eq!(owed(&after(&events), "a"), Some("1:raised"));
        events.push(told("1:raised", "a", given_up.clone()));
        events.push(told("1:raised", "a", delivered()));
        let notifications = after(&events);
        assert_eq!(owed(&notifications, "a"), Some("1:cleared"));
        assert_eq!(notifications.all[0].deliveries[0].outcome, Some(given_up));
        assert_eq!(notifications.alarm, None);
    }

    #[test]
    fn who_is_not_named_any_more_is_owed_nothing() {
        let notifications = after(&[subscribed(&["a"]), alarmed("1"), subscribed(&[])]);
        assert_eq!(owed(&notifications, "a"), None);
    }

    #[test]
    fn an_alarm_that_is_not_the_one_that_lasts_ends_nothing() {
        let notifications =
            after(&[subscribed(&["a"]), alarmed("1"), Event::Calmed { alarm: AlarmId("2".into()) }]);
        assert!(notifications.alarm.is_some());
        assert_eq!(notifications.all.len(), 1);
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let mut events = vec![subscribed(&["a"])];
        events.extend((0..300).map(|number| alarmed(&number.to_string())));
        let notifications = after(&events);
        assert_eq!(notifications.all.len(), REMEMBERED_MAX);
        assert_eq!(notifications.all.last().unwrap().id.0, "299:raised");
    }
}
