//! What comes from outside: power loss, kills, orders, faults of acts, a lost front, a changed tree. Each costs one of
//! its budget.

use super::{Budget, Front, Label, Options, Owner, Way, World};
use crate::cast;
use cutover_core::{Act, Boot, DataWish, Event, Hold, Order, Phase, Wanted, wants};
use std::collections::BTreeSet;

impl Options<'_> {
    pub(super) fn crashes(&mut self) {
        let Some(crashes) = self.budget().crashes.checked_sub(1) else { return };
        let budget = Budget { crashes, ..self.budget() };
        let world = self.toy.world.clone();
        let live = world.process.as_ref().filter(|live| live.owner != Owner::Stranger).cloned();
        let killed = cast::recovered(Boot::Same, live.as_ref().map(|live| live.instance.clone()));
        self.event(Label("DAEMON KILLED", None), Way::Disturbed, &killed, world.clone(), budget);
        if live.is_some_and(|live| live.owner == Owner::Keeper) {
            let gone = World { process: None, ..world.clone() };
            let event = cast::recovered(Boot::Same, None);
            self.event(Label("DAEMON AND PROCESS KILLED", None), Way::Disturbed, &event, gone, budget);
        }
        let booted = world.rebooted(self.service);
        self.event(Label("REBOOT", None), Way::Disturbed, &cast::recovered(Boot::New, None), booted, budget);
    }

    pub(super) fn orders(&mut self) {
        let Some(orders) = self.budget().orders.checked_sub(1) else { return };
        let budget = Budget { orders, ..self.budget() };
        let state = &self.toy.state;
        let mut asked = vec![
            (Label("ORDER cancel", None), Order::Cancel),
            (Label("ORDER recover --retry", None), Order::Retry),
            (Label("ORDER recover --rollback", None), Order::RecoverRollback),
            (Label("ORDER recover --accept", None), Order::Accept),
            (Label("ORDER start", None), Order::Start),
            (Label("ORDER stop", None), Order::Stop),
            (Label("ORDER restart", None), Order::Restart),
        ];
        if state.current.as_ref().is_none_or(|current| cast::release_number(&current.release) < 3) {
            asked.push((
                Label("ORDER update", None),
                Order::Update { wanted: Wanted::Channel(String::new()), hold: Hold::AsRuled },
            ));
        }
        if let Some(kept) = &state.previous {
            let to = || kept.installed.clone();
            let keep = Order::Rollback { to: to(), data: DataWish::Keep };
            let restore = Order::Rollback { to: to(), data: DataWish::Restore };
            asked.push((Label("ORDER rollback --data keep", None), keep));
            asked.push((Label("ORDER rollback --data restore", None), restore));
        }
        let settings = self.service.rules.settings();
        let run = self.fresh_run();
        for (label, order) in asked {
            let event = cast::ordered(run.clone(), order, &settings);
            self.event(label, Way::Disturbed, &event, self.toy.world.clone(), budget);
        }
    }

    pub(super) fn hits(&mut self) {
        self.faults();
        let Some(hits) = self.budget().hits.checked_sub(1) else { return };
        let budget = Budget { hits, ..self.budget() };
        let world = self.toy.world.clone();
        if world.process.as_ref().is_some_and(|live| live.owner == Owner::Keeper) {
            let gone = World { process: None, ..world.clone() };
            self.world(Label("KILL", None), Way::Disturbed, gone, budget);
        }
        if matches!(world.front, Front::Shows(_)) {
            let lost = World { front: Front::Closed, ..world.clone() };
            self.event(Label("FRONT LOST", None), Way::Disturbed, &Event::FrontLost, lost, budget);
        }
        if let Some(pointer) = world.pointer.clone().filter(|_| world.damaged.is_empty()) {
            let damaged = BTreeSet::from([pointer.generation]);
            self.world(Label("TREE CHANGED", None), Way::Disturbed, World { damaged, ..world }, budget);
        }
    }

    fn faults(&mut self) {
        let Some((ticket, _)) = wants(&self.toy.state).act else { return };
        let mut budget = self.budget();
        let left = match self.toy.state.phase {
            Phase::RollingBack(_) => &mut budget.back_faults,
            _ => &mut budget.faults,
        };
        let Some(less) = left.checked_sub(1) else { return };
        *left = less;
        if ticket.act != Act::Release {
            let event =
                Event::Faulted { ticket: ticket.clone(), fault: cast::fault("timeout"), copied: None };
            let label = Label("FAULT", Some(ticket.act));
            self.event(label, Way::Disturbed, &event, self.toy.world.clone(), budget);
        }
    }
}
