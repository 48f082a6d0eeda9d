//! Power loss, kills, faults and orders at any point of the shipping `step` in a toy world, for every kind of service.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a proof reads its bounds and measures itself; the core may not"
)]

mod cast;
mod toy;

use cast::{PLAIN, Rules};
use cutover_core::{DataClass, Intake, ReleaseRule, RestoreAfterRelease, RollbackRule, Strategy};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use toy::explore::{Found, explore, gather};
use toy::{AfterBoot, Budget, First, New, Old, Service};

const NEW: [New; 4] = [New::Healthy, New::FailsItsProof, New::DiesInTheSoak, New::DiesInTheWatch];

fn rules() -> Vec<Rules> {
    let mut all = Vec::new();
    for class in [DataClass::Neutral, DataClass::Migrated] {
        for intake in [Intake::Front, Intake::Own, Intake::Direct] {
            for release in [ReleaseRule::AfterProve, ReleaseRule::AfterSoak] {
                for restore in [RestoreAfterRelease::Refused, RestoreAfterRelease::Allowed] {
                    let neutral = class == DataClass::Neutral;
                    let late = release == ReleaseRule::AfterSoak;
                    if neutral && (intake == Intake::Own || restore == RestoreAfterRelease::Allowed) {
                        continue;
                    }
                    if intake == Intake::Direct && late {
                        continue;
                    }
                    all.push(Rules { class, intake, release, restore, ..PLAIN });
                }
            }
        }
    }
    all
}

fn services() -> Vec<Service> {
    let mut all = Vec::new();
    for rules in rules() {
        for new in NEW {
            for old in [Old::Healthy, Old::Sick] {
                for boot in [AfterBoot::Nobody, AfterBoot::Stranger] {
                    let early = matches!(new, New::Healthy | New::FailsItsProof);
                    if boot == AfterBoot::Stranger && !(rules.class == DataClass::Migrated && early) {
                        continue;
                    }
                    all.push(Service { rules, new, old, boot, first: First::Serving });
                }
            }
        }
    }
    for class in [DataClass::Neutral, DataClass::Migrated] {
        for new in NEW {
            let rules = Rules { class, ..PLAIN };
            let never = Rules { rollback: RollbackRule::Never, ..rules };
            let signal = Rules { strategy: Strategy::Signal, ..rules };
            let both = Rules { strategy: Strategy::Signal, ..never };
            let service =
                Service { rules, new, old: Old::Healthy, boot: AfterBoot::Nobody, first: First::Serving };
            all.push(Service { first: First::Stopped, ..service });
            all.push(Service { first: First::Nothing, ..service });
            for boot in [AfterBoot::Nobody, AfterBoot::Stranger] {
                all.push(Service { rules: never, boot, ..service });
                all.push(Service { rules: signal, boot, ..service });
            }
            for old in [Old::Healthy, Old::Deaf] {
                all.push(Service { rules: both, old, ..service });
                all.push(Service { rules: signal, old, ..service });
            }
        }
    }
    all
}

/// Explores every service within `budget`, on two threads, up to the first that breaks a promise, and reports.
fn all_hold(name: &str, budget: Budget, services: &[Service]) {
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        while let Some(service) = services.get(next.fetch_add(1, Ordering::Relaxed)) {
            let explored = explore(service, budget);
            if !explored.broken.is_empty() {
                next.store(services.len(), Ordering::Relaxed);
            }
            found.push(explored);
        }
        found
    };
    let Found { states, moves, broken } = std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let mut found = work();
        found.extend(other.join().expect("an exploration does not panic"));
        gather(found)
    });
    println!(
        "{name}: {} services, {states} states, {moves} moves, {} promises broken, {:.1?}",
        services.len(),
        broken.len(),
        began.elapsed()
    );
    for breach in &broken {
        println!("BROKEN {}", breach.story());
    }
    assert!(broken.is_empty(), "{name}: promises broken; the shortest way to each stands above");
}

#[test]
fn power_lost_twice_and_one_order_break_nothing() {
    let budget = Budget { crashes: 2, orders: 1, ..Budget::default() };
    all_hold("two crashes, one order", budget, &services());
}

#[test]
fn power_lost_thrice_and_one_order_break_nothing() {
    let budget = Budget { crashes: 3, orders: 1, ..Budget::default() };
    all_hold("three crashes, one order", budget, &services());
}

#[test]
fn power_lost_once_between_two_orders_breaks_nothing() {
    let budget = Budget { crashes: 1, orders: 2, ..Budget::default() };
    all_hold("one crash, two orders", budget, &services());
}

#[test]
fn every_forward_fault_with_every_fault_on_the_way_back_breaks_nothing() {
    let budget = Budget { crashes: 1, orders: 1, faults: 1, back_faults: 1, ..Budget::default() };
    all_hold("one crash, one order, a fault each way", budget, &services());
}

#[test]
fn a_killed_process_a_lost_front_and_a_changed_tree_break_nothing() {
    let budget = Budget { crashes: 1, orders: 1, hits: 1, ..Budget::default() };
    let mut services = services();
    if !cast::is_full() {
        services.retain(|service| service.old != Old::Sick && service.boot == AfterBoot::Nobody);
    }
    all_hold("one crash, one order, one hit", budget, &services);
}

#[test]
fn the_full_bounds_break_nothing() {
    if !cast::is_full() {
        println!("the full bounds run with CUTOVER_TEST=faults");
        return;
    }
    let services = services();
    let both = Budget { crashes: 2, orders: 2, faults: 1, back_faults: 1, ..Budget::default() };
    all_hold("two crashes, two orders, a fault each way", both, &services);
    let hits = Budget { crashes: 1, orders: 2, hits: 1, ..Budget::default() };
    all_hold("one crash, two orders, one hit", hits, &services);
}
