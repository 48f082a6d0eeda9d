//! Taking, restoring and discarding, killed at every point where that could matter.

#![allow(clippy::unwrap_used, reason = "clippy knows no test code outside of functions marked as tests")]

mod snapshot_world;

use std::path::Path;
use std::time::Duration;

use cutover::store::snapshot::{Comparison, Error, Snapshot, compare, discard, freeze, restore, take, warm};
use snapshot_world::{Running, Tree, World, now, only, query, tree};

const TAG: &str = "cutover-run-1";
/// Every name that belongs to the state itself.
const STATE: [&str; 6] = ["web", "jobs.db", "jobs.db-wal", "jobs.db-journal", "stamp", "absent"];
/// Far more points than there are: a run that crosses them all must end before.
const POINTS_MAX: usize = 500;

/// Run by tests of this file as a process of its own, which dies where the environment says.
#[test]
#[ignore = "a child process of other tests"]
fn child() {
    let Ok(base) = std::env::var("SNAPSHOT_CHILD_BASE") else { return };
    let world = World::at(Path::new(&base));
    match std::env::var("SNAPSHOT_CHILD_DOES").unwrap().as_str() {
        "take" => drop(take(&world.state(), &world.snapshot_dir(), &now()).unwrap()),
        "restore" => {
            let snapshot = Snapshot::open(&world.snapshot_dir()).unwrap().unwrap();
            restore(&snapshot, TAG).unwrap();
        }
        "discard" => discard(&world.snapshot_dir()).unwrap(),
        other => panic!("no such deed: {other}"),
    }
    println!("did it");
}

#[derive(PartialEq, Eq)]
enum Ended {
    Crashed,
    Finished,
}

/// Lets a child do something and die at the `point`-th crash point.
fn crash(world: &World, does: &str, point: usize, more: &[(&str, &str)]) -> Ended {
    let at = format!("@{point}");
    let base = world.base.to_str().unwrap();
    let own = [("SNAPSHOT_CHILD_BASE", base), ("SNAPSHOT_CHILD_DOES", does), ("CUTOVER_CRASH_POINT", &at)];
    let (output, errors, status) = Running::start(&[&own, more].concat()).finish();
    use std::os::unix::process::ExitStatusExt;
    match status.signal() {
        Some(6) => Ended::Crashed,
        None if status.success() && output.contains("did it") => Ended::Finished,
        _ => panic!("{status}: {output}{errors}"),
    }
}

/// A world in which version 18 has migrated what a frozen snapshot holds of version 17; the states of both.
fn migrated() -> (World, Tree, Tree) {
    let world = World::in_memory();
    let state = world.fill_as_version_17();
    let taken = take(&state, &world.snapshot_dir(), &now()).unwrap();
    freeze(&taken).unwrap();
    let old = only(&world.tree(), &STATE);
    world.migrate_to_18();
    let new = only(&world.tree(), &STATE);
    (world, old, new)
}

/// The replaced state, under the names that it had.
fn kept(world: &World) -> Tree {
    let kept = world.tree().into_iter().filter_map(|(path, found)| {
        let text = path.to_str().unwrap();
        let (name, rest) = text.split_once(&format!(".{TAG}-replaced"))?;
        Some((format!("{name}{rest}").into(), found))
    });
    kept.collect()
}

fn assert_restored(world: &World, old: &Tree, new: &Tree, at: &str) {
    assert_eq!(only(&world.tree(), &STATE), *old, "{at}: the old state is back, byte for byte");
    assert_eq!(kept(world), *new, "{at}: the new state is kept, byte for byte");
    let names = world.tree();
    assert!(!names.keys().any(|path| path.to_str().unwrap().contains("candidate")), "{at}: {names:?}");
}

#[test]
fn r55_a_restore_killed_at_any_point_is_completed_and_loses_neither_state() {
    let ways: [&[(&str, &str)]; 2] = [&[], &[("CUTOVER_FAIL_POINT", "restore: exchange")]];
    for way in ways {
        let mut points = 0;
        loop {
            points += 1;
            assert!(points < POINTS_MAX);
            let (world, old, new) = migrated();
            let at = format!("{way:?} point {points}");
            let ended = crash(&world, "restore", points, way);
            let snapshot = Snapshot::open(&world.snapshot_dir()).unwrap().unwrap();
            if ended == Ended::Crashed {
                // Every byte of the new state is still somewhere, and a database that lies there is whole, and of one version.
                let found = world.tree();
                for (path, what) in &new {
                    assert!(found.values().any(|found| found == what), "{at}: {} is lost", path.display());
                }
                if world.live("jobs.db").exists() {
                    let version = query(&world.live("jobs.db"), "PRAGMA user_version");
                    let rows = query(&world.live("jobs.db"), "SELECT count(*) FROM job");
                    assert!([(17, 3), (18, 4)].contains(&(version, rows)), "{at}: {version}, {rows} rows");
                }
                // A second death, somewhere in the completion.
                crash(&world, "restore", 1 + points % 7, way);
            }
            restore(&snapshot, TAG).unwrap();
            assert_restored(&world, &old, &new, &at);
            assert_eq!(compare(&snapshot), Comparison::Equal, "{at}");
            if ended == Ended::Finished {
                break;
            }
        }
        assert!(points > 20, "only {points} points: the failpoints are not compiled in");
        println!("{points} points");
    }
}

#[test]
fn a_snapshot_killed_at_any_point_is_absent_or_complete_and_can_be_taken_again() {
    let mut points = 0;
    loop {
        points += 1;
        assert!(points < POINTS_MAX);
        let world = World::in_memory();
        let state = world.fill_as_version_17();
        warm(&state, &world.snapshot_dir(), &now(), Duration::from_secs(5)).unwrap();
        if points % 2 == 0 {
            take(&state, &world.snapshot_dir(), &now()).unwrap();
        }
        world.migrate_to_18();
        let stopped = world.tree();
        let ended = crash(&world, "take", points, &[]);
        assert_eq!(world.tree(), stopped, "point {points}: the live state is as it was");
        if let Some(snapshot) = Snapshot::open(&world.snapshot_dir()).unwrap() {
            // Either it is still the earlier one, or it is this one.
            match compare(&snapshot) {
                Comparison::Equal => {}
                Comparison::Migrated(_) => {
                    assert_eq!(points % 2, 0, "point {points}");
                    freeze(&snapshot).unwrap();
                    restore(&snapshot, TAG).unwrap();
                    assert_eq!(query(&world.live("jobs.db"), "PRAGMA user_version"), 17);
                    continue;
                }
                other => panic!("point {points}: {other:?}"),
            }
        }
        let snapshot = take(&state, &world.snapshot_dir(), &now()).unwrap();
        assert_eq!(compare(&snapshot), Comparison::Equal, "point {points}");
        if ended == Ended::Finished {
            break;
        }
    }
    assert!(points > 10, "only {points} points");
}

#[test]
fn a_half_finished_restore_forbids_discarding_and_a_half_built_one_is_cleaned_up() {
    let mut refused = 0;
    let mut points = 0;
    loop {
        points += 1;
        assert!(points < POINTS_MAX);
        let (world, old, new) = migrated();
        if crash(&world, "restore", points, &[]) == Ended::Finished {
            break;
        }
        match discard(&world.snapshot_dir()) {
            Ok(()) => {
                let found = world.tree();
                assert!(
                    !found.keys().any(|path| path.to_str().unwrap().contains("candidate")),
                    "point {points}"
                );
                let state = only(&found, &STATE);
                assert!(state == new || state == old, "point {points}: never half of each");
            }
            Err(Error::RestoreUnfinished { .. }) => {
                refused += 1;
                let snapshot = Snapshot::open(&world.snapshot_dir()).unwrap().unwrap();
                restore(&snapshot, TAG).unwrap();
                assert_restored(&world, &old, &new, &format!("point {points}"));
            }
            Err(other) => panic!("point {points}: {other}"),
        }
    }
    assert!((3..points - 3).contains(&refused), "{refused} of {points}");
}

#[test]
fn discarding_killed_at_any_point_is_completed_and_touches_nothing_else() {
    for points in 1..POINTS_MAX {
        let (world, _, _) = migrated();
        let before = world.tree();
        let ended = crash(&world, "discard", points, &[]);
        discard(&world.snapshot_dir()).unwrap();
        assert_eq!(world.tree(), before);
        assert!(tree(world.snapshot_dir().parent().unwrap()).is_empty());
        if ended == Ended::Finished {
            assert!(points > 1);
            return;
        }
    }
    panic!("it never finished");
}
