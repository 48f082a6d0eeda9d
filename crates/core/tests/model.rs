//! The shipping `step` in the toy world, checked by an independent model checker (`stateright`): two orders, power loss,
//! kills, a lost front, changed trees and faults each way, every promise as an always-property.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a proof reads its bounds and measures itself; the core may not"
)]

mod cast;
mod toy;

use cast::{PLAIN, Rules};
use cutover_core::{DataClass, Intake, Phase, Posture, Serving, Strategy, posture};
use stateright::{Checker, Model, Property};
use std::time::Instant;
use toy::{AfterBoot, Budget, First, New, Next, Old, Owner, Promise, Service, Toy};

/// Services within one budget; the state names its service by number.
struct System {
    services: Vec<Service>,
    budget: Budget,
}

impl Model for System {
    type State = (usize, Toy);
    type Action = Next;

    fn init_states(&self) -> Vec<Self::State> {
        let begin = |service| toy::beginning(service, self.budget);
        self.services.iter().map(begin).enumerate().collect()
    }

    fn actions(&self, (service, toy): &Self::State, actions: &mut Vec<Next>) {
        actions.extend(toy::successors(&self.services[*service], toy));
    }

    fn next_state(&self, (service, _): &Self::State, next: Next) -> Option<Self::State> {
        Some((*service, next.toy))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let broken: [Condition; Promise::ALL.len()] = [
            holds::<0>,
            holds::<1>,
            holds::<2>,
            holds::<3>,
            holds::<4>,
            holds::<5>,
            holds::<6>,
            holds::<7>,
            holds::<8>,
            holds::<9>,
            holds::<10>,
            holds::<11>,
            holds::<12>,
            holds::<13>,
        ];
        let mut properties: Vec<Property<Self>> = Promise::ALL
            .into_iter()
            .zip(broken)
            .map(|(promise, holds)| Property::always(promise.words(), holds))
            .collect();
        properties.push(Property::always("a live generation is never pruned", live_is_needed));
        properties.push(Property::always("what serves is what was proven", serves_the_proven));
        properties.push(Property::sometimes("an update is verified", |_, (_, toy): &(usize, Toy)| {
            matches!(toy.state.phase, Phase::Watching(_)) && toy.state.previous.is_some()
        }));
        properties.push(Property::sometimes("maintenance is reached", |_, (_, toy): &(usize, Toy)| {
            matches!(toy.state.phase, Phase::Maintenance(_))
        }));
        properties
    }
}

type Condition = fn(&System, &(usize, Toy)) -> bool;

/// The promise with this number was not broken on the way here.
fn holds<const NUMBER: usize>(_: &System, (_, toy): &(usize, Toy)) -> bool {
    toy.broken != Some(Promise::ALL[NUMBER])
}

fn live_is_needed(_: &System, (_, toy): &(usize, Toy)) -> bool {
    let counted_on = cast::names(&toy.state).pids;
    let ours = toy.world.process.as_ref().filter(|live| counted_on.contains(&live.instance.pid));
    ours.is_none_or(|live| toy.state.needed().contains(&live.installed.generation))
}

/// Where posture says serve, the process that answers is the one that the state counts on, or its exit is on its way.
fn serves_the_proven(_: &System, (_, toy): &(usize, Toy)) -> bool {
    let Some(live) = toy.world.process.as_ref().filter(|live| live.owner == Owner::Keeper) else {
        return true;
    };
    match &toy.state.serving {
        Serving::Proven(proven) => live.instance != *proven || live.proven,
        Serving::Waived(_) => true,
        Serving::Unproven => posture(&toy.state) != Posture::Serve,
    }
}

fn services() -> Vec<Service> {
    let migrated = Rules { class: DataClass::Migrated, ..PLAIN };
    let mut services = Vec::new();
    for rules in [
        PLAIN,
        migrated,
        Rules { intake: Intake::Own, ..migrated },
        Rules { strategy: Strategy::Signal, ..migrated },
    ] {
        for new in [New::Healthy, New::FailsItsProof, New::DiesInTheSoak, New::DiesInTheWatch] {
            services.push(Service {
                rules,
                new,
                old: Old::Healthy,
                boot: AfterBoot::Stranger,
                first: First::Serving,
            });
        }
    }
    services
}

fn check(name: &str, budget: Budget) -> usize {
    let began = Instant::now();
    let checker = System { services: services(), budget }.checker().threads(2).spawn_bfs().join();
    println!(
        "{name}: {} unique states, {} transitions, {:.1?}",
        checker.unique_state_count(),
        checker.state_count(),
        began.elapsed()
    );
    let mut broken = 0;
    for (property, path) in checker.discoveries() {
        if checker.model().property(property).expectation == stateright::Expectation::Always {
            let steps: Vec<String> = path.into_actions().iter().map(|next| next.label.to_string()).collect();
            broken += 1;
            println!("BROKEN {property}\n    {}", steps.join("\n    "));
        }
    }
    assert_eq!(broken, 0, "promises broken; a shortest way to each stands above");
    checker.assert_any_discovery("an update is verified");
    checker.assert_any_discovery("maintenance is reached");
    checker.unique_state_count()
}

#[test]
fn an_independent_checker_finds_nothing() {
    check(
        "one crash, one order, a fault each way, one hit",
        Budget { crashes: 1, orders: 1, faults: 1, back_faults: 1, hits: 1 },
    );
}

#[test]
fn an_independent_checker_finds_nothing_in_a_million_states() {
    if !cast::is_full() {
        println!("the full bounds run with CUTOVER_TEST=faults");
        return;
    }
    let states = check(
        "one crash, two orders, a fault, one hit",
        Budget { crashes: 1, orders: 2, faults: 1, back_faults: 0, hits: 1 },
    );
    assert!(states >= 1_000_000, "only {states} states were reached");
}
