//! Which orders would be taken now, and why the others would not: asked of `step` itself, so that whoever offers an order
//! offers exactly what is accepted. A reading; the answer to the order itself is what counts.

use cutover_core::{
    DataWish, Event, Hold, Order, Phase, PlanId, Refusal, RunId, Settings, State, Wanted, step,
};
use std::collections::BTreeMap;

/// Why each order would be refused in `state`; `None` for those that would be taken.
pub(super) fn orders(state: &State, settings: &Settings) -> BTreeMap<String, Option<String>> {
    let all = [
        ("update", Some(Order::Update { wanted: Wanted::Channel(String::new()), hold: Hold::AsRuled })),
        ("rollback_keep", back(state, DataWish::Keep)),
        ("rollback_restore", back(state, DataWish::Restore)),
        ("start", Some(Order::Start)),
        ("stop", Some(Order::Stop)),
        ("restart", Some(Order::Restart)),
        ("cancel", Some(Order::Cancel)),
        ("hold", Some(Order::Hold)),
        ("approve", Some(Order::Approve { plan: prepared(state) })),
        ("retry", Some(Order::Retry)),
        ("recover_rollback", Some(Order::RecoverRollback)),
        ("accept", Some(Order::Accept)),
    ];
    let refusal = |order: Option<Order>| match order {
        Some(order) => refused(state, order, settings),
        None => Some(Refusal::NothingKept.to_string()),
    };
    all.into_iter().map(|(word, order)| (word.to_owned(), refusal(order))).collect()
}

/// The way back to what is kept. Where nothing is, the state says why the current one is no way back.
fn back(state: &State, data: DataWish) -> Option<Order> {
    let kept = state.previous.as_ref().map(|kept| &kept.installed);
    let to = kept.or(state.current.as_ref())?.clone();
    Some(Order::Rollback { to, data })
}

/// What there is to approve, if there is anything.
fn prepared(state: &State) -> PlanId {
    match &state.phase {
        Phase::Preparing(preparation) => preparation.plan(),
        _ => None,
    }
    .unwrap_or_else(|| PlanId(String::new()))
}

fn refused(state: &State, order: Order, settings: &Settings) -> Option<String> {
    let (run, actor) = (RunId(String::new()), String::new());
    let event = Event::Ordered { run, order, actor, settings: settings.clone() };
    step(state, &event).err().map(|refusal| refusal.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutover_core::{DataClass, Intake, Policy, Restarts, Strategy, Wish};

    fn settings() -> Settings {
        Settings {
            strategy: Strategy::StopStart,
            class: DataClass::None,
            intake: Intake::Front,
            policy: Policy::default(),
        }
    }

    /// The page goes by it: what shall not run is switched and not started, what ended for good is started by every run.
    #[test]
    fn a_service_that_shall_not_run_cannot_be_stopped_and_one_that_ended_for_good_can() {
        let at_rest = |wish, restarts| {
            let orders = orders(&State { wish, restarts, ..State::new() }, &settings());
            ["start", "stop"].map(|word| orders[word].is_none())
        };
        assert_eq!(at_rest(Wish::Run, Restarts::Allowed), [false, true]);
        assert_eq!(at_rest(Wish::Run, Restarts::Halted { code: 78 }), [true, true]);
        assert_eq!(at_rest(Wish::Stopped, Restarts::Allowed), [true, false]);
    }

    #[test]
    fn a_service_that_was_never_installed_can_be_updated_and_stopped_and_nothing_else() {
        let orders = orders(&State::new(), &settings());
        let possible: Vec<&str> =
            orders.iter().filter(|(_, refusal)| refusal.is_none()).map(|(word, _)| word.as_str()).collect();
        assert_eq!(possible, ["stop", "update"]);
        assert!(orders["rollback_keep"].as_ref().unwrap().contains("no kept generation"), "{orders:?}");
        assert_eq!(orders["start"].as_deref(), Some("already so"));
    }
}
