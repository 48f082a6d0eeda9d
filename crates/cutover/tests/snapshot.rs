//! Copies of declared state, on real files and real databases.

#![allow(clippy::unwrap_used, reason = "clippy knows no test code outside of functions marked as tests")]

mod snapshot_world;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cutover::store::snapshot::{
    self, Class, Comparison, Error, Moment, Problem, Seat, Snapshot, check, class, compare, compare_without,
    discard, estimate, freeze, restore, space, take, warm,
};
use cutover_core::BootId;
use rusqlite::Connection;
use snapshot_world::{Running, World, files, later, now, only, query, sqlite, tree, with, write_and_die};

const PATIENCE: Duration = Duration::from_secs(5);

/// Run by tests of this file as a process of its own: commits to a database until it is killed.
#[test]
#[ignore = "a child process of other tests"]
fn child() {
    let Ok(path) = std::env::var("SNAPSHOT_CHILD_DATABASE") else { return };
    let sql = std::env::var("SNAPSHOT_CHILD_SQL").unwrap();
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    let mode = std::env::var("SNAPSHOT_CHILD_MODE").unwrap();
    connection.execute_batch(&format!("PRAGMA journal_mode = {mode}; PRAGMA cache_size = 5;")).unwrap();
    let mut out = std::io::stdout();
    for number in 1_u64.. {
        connection.execute_batch(&sql).unwrap();
        writeln!(out, "committed {number}").unwrap();
        out.flush().unwrap();
    }
}

fn writer(database: &Path, mode: &str, sql: &str) -> Running {
    Running::start(&[
        ("SNAPSHOT_CHILD_DATABASE", database.to_str().unwrap()),
        ("SNAPSHOT_CHILD_MODE", mode),
        ("SNAPSHOT_CHILD_SQL", sql),
    ])
}

#[test]
fn r54_a_database_under_write_load_is_copied_online_and_again_exactly_when_stopped() {
    for mode in ["WAL", "DELETE"] {
        let world = World::new();
        let database = world.live("app.db");
        Connection::open(&database).unwrap().execute_batch("CREATE TABLE t(a)").unwrap();
        let mut running = writer(&database, mode, "INSERT INTO t VALUES (randomblob(2000))");
        while running.line("committed ").parse::<u64>().unwrap() < 50 {}
        let state = [sqlite(&database)];

        let warmed = warm(&state, &world.snapshot_dir(), &now(), PATIENCE).unwrap();
        if mode == "WAL" {
            assert_eq!(warmed.cold, [], "readers do not disturb a WAL");
            let copied = query(&world.snapshot_dir().join("copy/0/app.db"), "SELECT count(*) FROM t");
            assert!(copied >= 50, "{copied}");
        }
        running.line("committed ");
        let acknowledged = running.kill();

        let before = world.tree();
        let taken = take(&state, &world.snapshot_dir(), &now()).unwrap();
        assert_eq!(
            world.tree(),
            before,
            "the stopped database was not opened: every byte of its files is as it was"
        );
        assert_eq!(before.contains_key(Path::new("app.db-wal")), mode == "WAL");

        let copy = world.snapshot_dir().join("copy/0/app.db");
        for suffix in ["", "-wal", "-journal"] {
            assert_eq!(
                fs::read(with(&copy, suffix)).ok(),
                fs::read(with(&database, suffix)).ok(),
                "{mode} {suffix}"
            );
        }
        let rows = query(&database, "SELECT count(*) FROM t");
        assert!(rows.unsigned_abs() >= acknowledged);
        let (_, fingerprint) = taken.fingerprints().next().unwrap();
        assert_eq!(fingerprint.rows(), rows.unsigned_abs(), "{mode}");
        assert_eq!(compare(&taken), Comparison::Equal);
    }
}

/// Every commit keeps two tables equally long and a file beside them: a torn copy shows.
#[test]
fn a_database_that_nobody_declared_is_copied_as_a_unit_while_it_is_written_to() {
    for mode in ["WAL", "DELETE"] {
        let world = World::new();
        world.write("web/settings.json", "{}");
        let database = world.live("web/deep/app.sqlite");
        fs::create_dir(database.parent().unwrap()).unwrap();
        Connection::open(&database).unwrap().execute_batch("CREATE TABLE a(x); CREATE TABLE b(x)").unwrap();
        let pair = "BEGIN IMMEDIATE; INSERT INTO a VALUES (randomblob(3000));
                    INSERT INTO b VALUES (randomblob(3000)); COMMIT";
        let mut running = writer(&database, mode, pair);
        while running.line("committed ").parse::<u64>().unwrap() < 50 {}
        let state = [files(&world.live("web"))];

        let copy = world.snapshot_dir().join("copy/0/web/deep/app.sqlite");
        for round in 0..5 {
            let warmed = warm(&state, &world.snapshot_dir(), &now(), PATIENCE).unwrap();
            if mode == "WAL" {
                assert_eq!(warmed.cold, [], "round {round}: readers do not disturb a WAL");
            }
            if warmed.cold.is_empty() {
                assert!(!with(&copy, "-wal").exists() && !with(&copy, "-journal").exists(), "one whole file");
                assert_eq!(query(&copy, "SELECT (SELECT count(*) FROM a) - (SELECT count(*) FROM b)"), 0);
                assert_eq!(
                    query(&copy, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"),
                    1
                );
                let copies = snapshot::copies(&state, &world.snapshot_dir()).unwrap();
                assert_eq!(copies, [(world.snapshot_dir().join("copy/0/web"), world.live("web"))]);
            }
            running.line("committed ");
        }
        running.kill();

        let stopped = |world: &World| {
            let mut tree = world.tree();
            tree.retain(|path, _| !path.to_string_lossy().ends_with("-shm"));
            tree
        };
        let before = stopped(&world);
        let taken = take(&state, &world.snapshot_dir(), &now()).unwrap();
        assert_eq!(stopped(&world), before, "the stopped database was not opened");
        for suffix in ["", "-wal", "-journal"] {
            assert_eq!(
                fs::read(with(&copy, suffix)).ok(),
                fs::read(with(&database, suffix)).ok(),
                "{suffix}"
            );
        }
        assert_eq!(compare(&taken), Comparison::Equal, "{mode}");
        write_and_die(&database, "INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)");
        assert_eq!(class(&state, &compare(&taken)), Class::Neutral, "{mode}: only rows");
        write_and_die(&database, "PRAGMA user_version = 18; DROP TABLE b");
        assert!(matches!(compare(&taken), Comparison::Migrated(_)), "{mode}");
        restore(&taken, "cutover-run-1").unwrap();
        assert_eq!(only(&stopped(&world), &["web"]), only(&before, &["web"]), "{mode}: byte for byte");
        assert_eq!(query(&database, "SELECT (SELECT count(*) FROM a) - (SELECT count(*) FROM b)"), 0);
    }
}

#[test]
fn a_database_that_nobody_used_is_copied_unopened_and_still_compared_by_what_it_holds() {
    let world = World::new();
    let database = world.live("web/old.db");
    fs::create_dir(world.live("web")).unwrap();
    let create = "PRAGMA journal_mode = WAL; CREATE TABLE t(a); INSERT INTO t VALUES (1)";
    let made = world.live("made.db");
    Connection::open(&made).unwrap().execute_batch(create).unwrap();
    // Of what this process has had open, a child that another test starts just then would have a copy: somebody would use it.
    assert!(std::process::Command::new("cp").args([&made, &database]).status().unwrap().success());
    let state = [files(&world.live("web"))];
    let before = world.tree();
    warm(&state, &world.snapshot_dir(), &later(), PATIENCE).unwrap();
    assert_eq!(world.tree(), before, "no trace of a reader in live state");
    let taken = take(&state, &world.snapshot_dir(), &later()).unwrap();
    write_and_die(&database, "INSERT INTO t VALUES (2)");
    let rows = compare(&taken);
    let Comparison::Changed(changes) = &rows else { panic!("{rows:?}") };
    assert_eq!((changes.files_count, changes.databases[0].rows_now), (0, Some(2)));
    assert_eq!(class(&state, &rows), Class::Neutral);
    write_and_die(&database, "CREATE INDEX i ON t(a)");
    assert!(matches!(compare(&taken), Comparison::Migrated(_)));
}

#[test]
fn a_hot_journal_is_part_of_the_state() {
    let world = World::new();
    let database = world.live("app.db");
    Connection::open(&database)
        .unwrap()
        .execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES (1)")
        .unwrap();
    // Spills pages of an open transaction into the database, again and again, then is killed. It may be begun again in itself.
    let spill = "SAVEPOINT t; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                 INSERT INTO t SELECT randomblob(2000) FROM n; UPDATE t SET a = 2 WHERE a = 1; SAVEPOINT s";
    let mut running = writer(&database, "DELETE", spill);
    running.line("committed 1");
    running.kill();
    assert!(fs::metadata(with(&database, "-journal")).unwrap().len() > 0, "the journal is hot");

    let taken = take(&[sqlite(&database)], &world.snapshot_dir(), &now()).unwrap();
    let (_, fingerprint) = taken.fingerprints().next().unwrap();
    assert_eq!(fingerprint.rows(), 1, "the copy was rolled back to be read");
    assert!(with(&database, "-journal").exists(), "and the live database was not");
    let before = world.tree();
    write_and_die(&database, "DROP TABLE t");
    restore(&taken, "cutover-run-1").unwrap();
    assert_eq!(
        only(&world.tree(), &["app.db", "app.db-journal"]),
        before,
        "database and journal are back as bytes"
    );
    assert_eq!(query(&database, "SELECT count(*) FROM t WHERE a = 1"), 1);
}

#[test]
fn r49_r50_what_a_new_version_migrated_comes_back_byte_for_byte_and_what_it_wrote_is_kept() {
    let world = World::new();
    let state = world.fill_as_version_17();
    warm(&state, &world.snapshot_dir(), &now(), PATIENCE).unwrap();
    let taken = take(&state, &world.snapshot_dir(), &now()).unwrap();
    freeze(&taken).unwrap();
    let old = world.tree();
    world.migrate_to_18();
    let new = world.tree();
    let comparison = compare(&taken);
    let Comparison::Migrated(changes) = &comparison else { panic!("{comparison:?}") };
    let [nested, own] = &changes.databases[..] else { panic!("{changes:?}") };
    assert_eq!((nested.user_version, own.user_version), (Some((17, 18)), Some((17, 18))));
    assert_eq!(
        (nested.rows_then, nested.rows_now, own.rows_then, own.rows_now),
        (Some(2), Some(3), Some(3), Some(4))
    );
    assert_eq!(class(&state, &comparison), Class::Migrated);
    assert_eq!(world.tree(), new, "comparing changes nothing");

    let restored = restore(&taken, "cutover-run-1").unwrap();

    let names = ["web", "jobs.db", "jobs.db-wal", "jobs.db-journal", "jobs.db-shm", "stamp", "absent"];
    assert_eq!(only(&world.tree(), &names), old);
    assert_eq!(compare(&taken), Comparison::Equal);
    assert_eq!(query(&world.live("jobs.db"), "PRAGMA user_version"), 17);
    let kept = |name: &str| world.live(&format!("{name}.cutover-run-1-replaced"));
    assert_eq!(restored.replaced, [kept("absent"), kept("stamp"), kept("web"), kept("jobs.db")]);
    assert_eq!(fs::read_to_string(kept("stamp")).unwrap(), "18");
    assert_eq!(fs::read_to_string(kept("absent").join("now/there")).unwrap(), "18");
    assert_eq!(tree(&kept("web")), tree_below(&new, "web"));
    assert_eq!(query(&kept("jobs.db"), "SELECT count(*) FROM job"), 4, "its -wal is kept beside it");
    assert!(restored.differed >= 8 && restored.files >= 5, "{restored:?}");
}

fn tree_below(tree: &snapshot_world::Tree, name: &str) -> snapshot_world::Tree {
    let below = tree
        .iter()
        .filter_map(|(path, found)| Some((path.strip_prefix(name).ok()?.to_owned(), found.clone())));
    below.filter(|(path, _)| !path.as_os_str().is_empty()).collect()
}

#[test]
fn a_left_over_wal_cannot_bring_new_rows_back() {
    let world = World::new();
    let database = world.live("app.db");
    Connection::open(&database)
        .unwrap()
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(a); INSERT INTO t VALUES ('old')")
        .unwrap();
    let taken = take(&[sqlite(&database)], &world.snapshot_dir(), &now()).unwrap();
    write_and_die(&database, "INSERT INTO t VALUES ('new')");
    assert!(with(&database, "-wal").exists());
    fs::write(with(&database, "-shm"), "stale").unwrap();

    restore(&taken, "cutover-run-1").unwrap();
    for suffix in ["-wal", "-shm", "-journal"] {
        assert!(!with(&database, suffix).exists(), "{suffix}");
    }
    let rows: i64 = Connection::open(&database)
        .unwrap()
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 1);
    assert_eq!(query(&world.live("app.db.cutover-run-1-replaced"), "SELECT count(*) FROM t"), 2);
}

#[test]
fn what_was_absent_is_absent_again() {
    let world = World::new();
    let state = [files(&world.live("dir")), files(&world.live("file")), sqlite(&world.live("app.db"))];
    let taken = take(&state, &world.snapshot_dir(), &now()).unwrap();
    assert_eq!(compare(&taken), Comparison::Equal);
    world.write("dir/inner", "x");
    world.write("file", "x");
    Connection::open(world.live("app.db")).unwrap().execute_batch("CREATE TABLE t(a)").unwrap();
    assert!(matches!(compare(&taken), Comparison::Migrated(_)), "a new database is no mere change");

    assert_eq!(restore(&taken, "cutover-run-1").unwrap().replaced.len(), 3);
    for name in ["dir", "file", "app.db"] {
        assert!(!world.live(name).exists());
        assert!(world.live(&format!("{name}.cutover-run-1-replaced")).exists());
    }
}

#[test]
fn modes_links_times_names_and_attributes_are_kept_and_sockets_are_listed() {
    use std::os::unix::ffi::OsStringExt;
    let world = World::new();
    world.write("web/run.sh", "#!/bin/sh\n");
    world.write("web/locked/secret", "x");
    symlink("/nowhere/at all", world.live("web/dangling")).unwrap();
    let odd = world.live("web").join(std::ffi::OsString::from_vec(b"odd \xff\\\n\"".to_vec()));
    fs::write(&odd, "odd").unwrap();
    let _socket = UnixListener::bind(world.live("web/socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        world.live("web/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let attributed = ["web/run.sh", "web/locked"].map(|name| world.live(name));
    let no_flags = rustix::fs::XattrFlags::empty();
    let has_attributes =
        attributed.iter().all(|path| rustix::fs::setxattr(path, "user.origin", b"here", no_flags).is_ok());
    fs::set_permissions(world.live("web/run.sh"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(world.live("web/locked/secret"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(world.live("web/locked"), fs::Permissions::from_mode(0o500)).unwrap();
    let old = std::time::UNIX_EPOCH + Duration::new(1_000_000_007, 123_456_789);
    fs::File::open(world.live("web/run.sh")).unwrap().set_modified(old).unwrap();
    fs::File::open(world.live("web/locked")).unwrap().set_modified(old).unwrap();
    let mut before = world.tree();

    let state = [files(&world.live("web"))];
    warm(&state, &world.snapshot_dir(), &now(), PATIENCE).unwrap();
    let taken = take(&state, &world.snapshot_dir(), &now()).unwrap();
    assert_eq!(taken.skipped(), [world.live("web/pipe"), world.live("web/socket")]);
    fs::rename(world.live("web"), world.live("gone")).unwrap();
    restore(&taken, "cutover-run-1").unwrap();

    before.retain(|path, _| !path.ends_with("pipe") && !path.ends_with("socket"));
    assert_eq!(only(&world.tree(), &["web"]), before);
    assert_eq!(fs::read(&odd).unwrap(), b"odd");
    for name in ["web/run.sh", "web/locked"] {
        assert_eq!(fs::metadata(world.live(name)).unwrap().modified().unwrap(), old, "{name}");
    }
    if has_attributes {
        for path in &attributed {
            let mut value = [0; 16];
            let length = rustix::fs::getxattr(path, "user.origin", &mut value[..]).unwrap();
            assert_eq!(&value[..length], b"here");
        }
    } else {
        println!("attributes not checked: the file system has none");
    }
    for part in ["gone/locked", "web/locked"] {
        fs::set_permissions(world.live(part), fs::Permissions::from_mode(0o700)).unwrap();
    }
    discard(taken.dir()).unwrap();
    assert!(!taken.dir().exists(), "a directory that nobody may write to is no obstacle");
}

#[test]
fn owners_are_kept_by_root() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can give files away");
        return;
    }
    let world = World::new();
    world.write("web/theirs", "x");
    symlink("theirs", world.live("web/link")).unwrap();
    for name in ["web", "web/theirs", "web/link"] {
        std::os::unix::fs::lchown(world.live(name), Some(4242), Some(4343)).unwrap();
    }
    let taken = take(&[files(&world.live("web"))], &world.snapshot_dir(), &now()).unwrap();
    fs::remove_file(world.live("web/theirs")).unwrap();
    restore(&taken, "cutover-run-1").unwrap();
    for name in ["web", "web/theirs", "web/link"] {
        let meta = fs::symlink_metadata(world.live(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (4242, 4343), "{name}");
    }
    std::os::unix::fs::lchown(world.live("web/theirs"), Some(1), None).unwrap();
    assert!(matches!(compare(&taken), Comparison::Changed(_)), "another owner is a change");
}

#[test]
fn only_what_changed_since_the_warm_copy_is_copied_while_stopped() {
    let world = World::new();
    for name in ["same", "edited", "deleted", "now a directory", "sub/same", "gone/inner"] {
        world.write(&format!("web/{name}"), format!("{name} at first"));
    }
    world.write("web/open", "at first");
    let state = [files(&world.live("web"))];
    let mut open = fs::File::options().append(true).open(world.live("web/open")).unwrap();
    let warmed = warm(&state, &world.snapshot_dir(), &later(), PATIENCE).unwrap();
    assert_eq!((warmed.files, warmed.unsettled), (7, 1), "{warmed:?}");
    let copy = |name: &str| world.snapshot_dir().join("copy/0/web").join(name);
    // Whatever is copied again loses this mark.
    for name in ["same", "sub/same", "open"] {
        let length = fs::metadata(copy(name)).unwrap().len();
        fs::write(copy(name), vec![b'#'; usize::try_from(length).unwrap()]).unwrap();
    }

    // The same size, and the old modification time set back: only the change time tells.
    let path = world.live("web/edited");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "EDITED at first").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    fs::remove_file(world.live("web/deleted")).unwrap();
    fs::remove_dir_all(world.live("web/gone")).unwrap();
    fs::remove_file(world.live("web/now a directory")).unwrap();
    world.write("web/now a directory/inner", "x");
    open.flush().unwrap();
    drop(open);

    let taken = take(&state, &world.snapshot_dir(), &later()).unwrap();
    for name in ["same", "sub/same"] {
        assert!(
            fs::read(copy(name)).unwrap().starts_with(b"###"),
            "{name} did not change and was left alone"
        );
        fs::copy(world.live("web").join(name), copy(name)).unwrap();
    }
    assert_eq!(tree(&taken.dir().join("copy/0")), world.tree(), "what was open for writing was not believed");
}

#[test]
fn a_file_that_changed_just_before_the_copy_is_copied_again() {
    let world = World::new();
    world.write("web/fresh", "x");
    let state = [files(&world.live("web"))];
    assert_eq!(warm(&state, &world.snapshot_dir(), &now(), PATIENCE).unwrap().unsettled, 1);
    let copy = world.snapshot_dir().join("copy/0/web/fresh");
    fs::write(&copy, "#").unwrap();
    take(&state, &world.snapshot_dir(), &now()).unwrap();
    assert_eq!(fs::read_to_string(copy).unwrap(), "x");
}

#[test]
fn a_large_database_is_brought_up_to_date_by_the_blocks_that_differ() {
    let world = World::new();
    let database = world.live("app.db");
    let connection = Connection::open(&database).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE t(a);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
             INSERT INTO t SELECT randomblob(2000) FROM n",
        )
        .unwrap();
    drop(connection);
    let state = [sqlite(&database)];
    let warmed = warm(&state, &world.snapshot_dir(), &now(), PATIENCE).unwrap();
    assert!(warmed.bytes > 8_000_000, "{warmed:?}");
    let copy = world.snapshot_dir().join("copy/0/app.db");
    let created = fs::metadata(&copy).unwrap().created().ok();
    take(&state, &world.snapshot_dir(), &now()).unwrap();
    assert_eq!(fs::metadata(&copy).unwrap().created().ok(), created, "the online copy was the base");
    assert_eq!(fs::read(&copy).unwrap(), fs::read(&database).unwrap());
}

#[test]
fn a_frozen_snapshot_never_changes_and_another_is_taken_again() {
    let world = World::new();
    world.write("web/a", "1");
    let state = [files(&world.live("web"))];
    take(&state, &world.snapshot_dir(), &now()).unwrap();
    world.write("web/a", "2");
    let taken = take(&state, &world.snapshot_dir(), &now()).unwrap();
    assert_eq!(fs::read_to_string(taken.dir().join("copy/0/web/a")).unwrap(), "2");
    freeze(&taken).unwrap();
    freeze(&taken).unwrap();
    let before = tree(taken.dir());

    world.write("web/a", "written by the target");
    let again = take(&state, &world.snapshot_dir(), &now()).unwrap();
    warm(&state, &world.snapshot_dir(), &now(), PATIENCE).unwrap();
    assert!(again.is_frozen().unwrap());
    assert_eq!(again.moment(), taken.moment());
    assert_eq!(tree(taken.dir()), before);
    assert!(matches!(compare(&again), Comparison::Changed(_)));
}

#[test]
fn a_warm_copy_of_another_boot_is_not_believed() {
    let world = World::new();
    world.write("web/a", "right");
    let state = [files(&world.live("web"))];
    warm(&state, &world.snapshot_dir(), &later(), PATIENCE).unwrap();
    // What a power cut can leave: the length is there, the bytes are not.
    fs::write(world.snapshot_dir().join("copy/0/web/a"), [0; 5]).unwrap();
    let moment = Moment { boot_id: BootId("boot-2".into()), ..later() };
    let taken = take(&state, &world.snapshot_dir(), &moment).unwrap();
    assert_eq!(fs::read_to_string(taken.dir().join("copy/0/web/a")).unwrap(), "right");
}

#[test]
fn comparison_tells_form_rows_and_schema_apart() {
    let world = World::new();
    let database = world.live("app.db");
    Connection::open(&database)
        .unwrap()
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(a); INSERT INTO t VALUES (1)")
        .unwrap();
    write_and_die(&database, "INSERT INTO t VALUES (2)");
    let state = [sqlite(&database)];
    let taken = take(&state, &world.snapshot_dir(), &now()).unwrap();
    assert_eq!(compare(&taken), Comparison::Equal);
    assert_eq!(class(&[], &Comparison::Equal), Class::None);

    // Opening and closing it moves the rows of -wal into the database: other bytes, the same rows.
    let bytes = fs::read(&database).unwrap();
    drop(
        Connection::open(&database)
            .and_then(|c| c.query_row("SELECT count(*) FROM t", [], |r| r.get::<_, i64>(0))),
    );
    assert_ne!(fs::read(&database).unwrap(), bytes);
    assert_eq!(compare(&taken), Comparison::Equal);

    write_and_die(&database, "INSERT INTO t VALUES (3)");
    let rows = compare(&taken);
    assert!(
        matches!(&rows, Comparison::Changed(changes) if changes.databases[0].rows_now == Some(3)),
        "{rows:?}"
    );
    assert_eq!(class(&state, &rows), Class::Neutral);

    write_and_die(&database, "CREATE INDEX i ON t(a)");
    let schema = compare(&taken);
    assert!(matches!(schema, Comparison::Migrated(_)), "{schema:?}");
    assert_eq!(class(&state, &schema), Class::Migrated);

    fs::remove_file(with(&database, "-wal")).unwrap();
    fs::write(&database, "this is no database, and was one").unwrap();
    let unknown = compare(&taken);
    assert!(matches!(unknown, Comparison::Unknown { .. }), "{unknown:?}");
    assert_eq!(class(&state, &unknown), Class::Migrated);
    fs::remove_file(&database).unwrap();
    assert!(matches!(compare(&taken), Comparison::Migrated(_)));
}

#[test]
fn changed_files_count_as_migrated_because_nobody_can_tell() {
    let world = World::new();
    world.write("web/a", "1");
    let state = [files(&world.live("web"))];
    let taken = take(&state, &world.snapshot_dir(), &now()).unwrap();
    world.write("web/a", "2");
    world.write("web/b", "new");
    let Comparison::Changed(changes) = compare(&taken) else { panic!() };
    assert_eq!(changes.files, [world.live("web/a"), world.live("web/b")]);
    assert_eq!(class(&state, &Comparison::Changed(changes)), Class::Migrated);
}

#[test]
fn a_shared_memory_file_is_no_state() {
    let world = World::new();
    let state = world.fill_as_version_17();
    let taken = take(&state, &world.snapshot_dir(), &now()).unwrap();
    world.write("jobs.db-shm", vec![1; 32768]);
    world.write("web/app.db-shm", vec![1; 32768]);
    assert_eq!(compare(&taken), Comparison::Equal);
    assert_eq!(restore(&taken, "cutover-run-1").unwrap().differed, 0);
}

#[test]
fn a_restore_run_again_does_nothing_and_a_later_one_keeps_both() {
    let world = World::new();
    let state = world.fill_as_version_17();
    let taken = take(&state, &world.snapshot_dir(), &now()).unwrap();
    assert_eq!(restore(&taken, "cutover-run-1").unwrap().replaced, Vec::<std::path::PathBuf>::new());
    world.migrate_to_18();
    let first = restore(&taken, "cutover-run-1").unwrap();
    let after = world.tree();
    assert_eq!(restore(&taken, "cutover-run-1").unwrap(), first);
    assert_eq!(world.tree(), after);
    assert!(taken.is_frozen().unwrap(), "what was put back once is never taken again");

    world.write("stamp", "17 went on writing");
    let second = restore(&taken, "cutover-run-1").unwrap();
    assert_eq!(second.replaced.len(), first.replaced.len() + 1);
    assert_eq!(fs::read_to_string(world.live("stamp")).unwrap(), "17");
    assert_eq!(fs::read_to_string(world.live("stamp.cutover-run-1-replaced")).unwrap(), "18");
    assert_eq!(
        fs::read_to_string(world.live("stamp.cutover-run-1-replaced-2")).unwrap(),
        "17 went on writing"
    );
}

#[test]
fn a_snapshot_whose_bytes_rotted_is_not_put_back() {
    let world = World::new();
    let state = world.fill_as_version_17();
    let taken = take(&state, &world.snapshot_dir(), &now()).unwrap();
    world.migrate_to_18();
    let before = world.tree();
    let copies: Vec<_> =
        walkdir::WalkDir::new(taken.dir().join("copy")).into_iter().map(Result::unwrap).collect();
    let rotten = copies.iter().find(|entry| entry.file_name() == "config.json").unwrap();
    let length = fs::metadata(rotten.path()).unwrap().len();
    fs::write(rotten.path(), vec![b' '; usize::try_from(length).unwrap()]).unwrap();
    let error = restore(&taken, "cutover-run-1").unwrap_err();
    assert!(
        matches!(&error, Error::SnapshotDiffers { path, .. } if path.ends_with("web/config.json")),
        "{error}"
    );
    assert_eq!(world.tree(), before, "nothing live was touched, no candidate is left");
    discard(taken.dir()).unwrap();
    assert_eq!(world.tree(), before);
}

#[test]
fn damage_is_found_before_anything_is_stopped_and_makes_no_snapshot() {
    let world = World::new();
    let database = world.live("app.db");
    Connection::open(&database)
        .unwrap()
        .execute_batch(
            "PRAGMA page_size = 4096; CREATE TABLE t(a); CREATE INDEX i ON t(a);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
             INSERT INTO t SELECT randomblob(100) FROM n",
        )
        .unwrap();
    let mut bytes = fs::read(&database).unwrap();
    let page = bytes.len() / 4096 / 2 * 4096;
    bytes[page..page + 4096].fill(0);
    fs::write(&database, bytes).unwrap();
    let state = [sqlite(&database)];
    let error = warm(&state, &world.snapshot_dir(), &now(), PATIENCE).unwrap_err();
    assert!(matches!(&error, Error::Damaged { path, .. } if *path == database), "{error}");
    let error = take(&state, &world.snapshot_dir(), &now()).unwrap_err();
    assert!(matches!(&error, Error::Damaged { .. }), "{error}");
    assert!(Snapshot::open(&world.snapshot_dir()).unwrap().is_none());
}

#[test]
fn a_locked_database_is_left_for_the_stopped_copy_within_the_patience_given() {
    let world = World::new();
    let database = world.live("app.db");
    let holder = Connection::open(&database).unwrap();
    holder.execute_batch("CREATE TABLE t(a); PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    let state = [sqlite(&database)];
    let started = Instant::now();
    let warmed = warm(&state, &world.snapshot_dir(), &now(), Duration::from_millis(50)).unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(warmed.cold.len(), 1, "{warmed:?}");
    drop(holder);
    let taken = take(&state, &world.snapshot_dir(), &now()).unwrap();
    assert_eq!(taken.fingerprints().count(), 1);
}

#[test]
fn state_that_is_still_written_to_makes_no_snapshot() {
    let world = World::new();
    let path = world.write("web/busy", vec![1; 4 << 20]);
    let state = [files(&world.live("web"))];
    let is_done = AtomicBool::new(false);
    let limit = Instant::now() + Duration::from_secs(10);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::File::options().append(true).open(&path).unwrap();
            while !is_done.load(Ordering::Relaxed) && Instant::now() < limit {
                file.write_all(b"x").unwrap();
            }
        });
        let error = loop {
            match take(&state, &world.snapshot_dir(), &now()) {
                Err(error) => break error,
                Ok(_) => assert!(Instant::now() < limit, "never noticed"),
            }
        };
        is_done.store(true, Ordering::Relaxed);
        assert!(matches!(&error, Error::Changing { path: found } if *found == path), "{error}");
        assert!(Snapshot::open(&world.snapshot_dir()).unwrap().is_none());
    });
}

#[test]
fn a_database_that_is_still_written_to_makes_no_snapshot() {
    let world = World::new();
    let database = world.live("app.db");
    Connection::open(&database).unwrap().execute_batch("CREATE TABLE t(a)").unwrap();
    let mut running = writer(&database, "WAL", "INSERT INTO t VALUES (randomblob(100000))");
    running.line("committed 20");
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        match take(&[sqlite(&database)], &world.snapshot_dir(), &now()) {
            Err(Error::Changing { path }) => {
                break assert!(path.starts_with(world.live("")), "{}", path.display());
            }
            Err(other) => panic!("{other}"),
            Ok(_) => assert!(Instant::now() < limit, "never noticed"),
        }
    }
    running.kill();
}

#[test]
fn a_service_that_died_unnoticed_keeps_its_evidence_through_a_warm_copy() {
    let world = World::new();
    let state = world.fill_as_version_17();
    let before = world.tree();
    assert!(before.contains_key(Path::new("jobs.db-wal")));
    assert_eq!(warm(&state, &world.snapshot_dir(), &now(), PATIENCE).unwrap().cold, []);
    assert_eq!(only(&world.tree(), &["jobs.db", "jobs.db-wal"]), only(&before, &["jobs.db", "jobs.db-wal"]));
    assert_eq!(query(&world.snapshot_dir().join("copy/3/jobs.db"), "SELECT count(*) FROM job"), 3);
}

#[test]
fn the_files_of_a_database_must_be_of_one_moment() {
    let world = World::new();
    let database = world.live("app.db");
    Connection::open(&database).unwrap().execute_batch("CREATE TABLE t(a)").unwrap();
    world.write("app.db-wal", vec![1; 64 << 20]);
    let copy_of_wal = world.snapshot_dir().join("copy/0/app.db-wal");
    let limit = Instant::now() + Duration::from_secs(10);
    let error = std::thread::scope(|scope| {
        // A write to the database when that was copied already, and its -wal is being copied.
        scope.spawn(|| {
            while !copy_of_wal.exists() && Instant::now() < limit {}
            fs::File::options().append(true).open(&database).unwrap().write_all(&[0; 4096]).unwrap();
        });
        take(&[sqlite(&database)], &world.snapshot_dir(), &now()).unwrap_err()
    });
    assert!(matches!(&error, Error::Changing { path } if *path == database), "{error}");
}

#[test]
fn an_unreadable_file_is_named_before_and_during() {
    if rustix::process::geteuid().is_root() {
        println!("skipped: root reads everything");
        return;
    }
    let world = World::new();
    let path = world.write("web/secret", "x");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let state = [files(&world.live("web"))];
    let findings = check(&state, &world.snapshot_dir());
    assert!(
        matches!(&findings[..], [one] if one.path == path && matches!(one.problem, Problem::Unreadable { .. }))
    );
    let error = take(&state, &world.snapshot_dir(), &now()).unwrap_err();
    assert!(matches!(&error, Error::Denied { path: found, .. } if *found == path), "{error}");
}

#[test]
fn a_full_disk_is_called_a_full_disk() {
    let world = World::new();
    let small = world.base.join("service");
    fs::create_dir(&small).unwrap();
    let Some(_mounted) = Mounted::at(&small, "tmpfs", "size=256k") else {
        println!("skipped: no small file system can be mounted here");
        return;
    };
    world.write("web/large", vec![1; 1 << 20]);
    let database = world.live("app.db");
    Connection::open(&database)
        .unwrap()
        .execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES (randomblob(1000000))")
        .unwrap();
    for state in [files(&world.live("web")), sqlite(&database)] {
        let needs = space(std::slice::from_ref(&state), &world.snapshot_dir()).unwrap();
        assert!(!needs.is_enough(), "{needs:?}");
        for error in [
            warm(std::slice::from_ref(&state), &world.snapshot_dir(), &now(), PATIENCE)
                .map(drop)
                .unwrap_err(),
            take(std::slice::from_ref(&state), &world.snapshot_dir(), &now()).map(drop).unwrap_err(),
        ] {
            assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
        }
        assert!(Snapshot::open(&world.snapshot_dir()).unwrap().is_none());
        discard(&world.snapshot_dir()).unwrap();
    }
}

#[test]
fn a_file_of_another_layer_of_an_overlay_is_no_mount() {
    let world = World::new();
    let [lower, top, merged] = ["lower", "top", "merged"].map(|name| world.base.join(name));
    for directory in [&lower.join("web"), &top, &merged] {
        fs::create_dir_all(directory).unwrap();
    }
    fs::write(lower.join("web/a"), "x").unwrap();
    let skipped = "skipped: no overlay with layers on two file systems can be mounted here";
    let Some(_top) = Mounted::at(&top, "tmpfs", "size=1m") else { return println!("{skipped}") };
    for name in ["up", "work"] {
        fs::create_dir(top.join(name)).unwrap();
    }
    let [below, above] = [&lower, &top].map(|path| path.display());
    let layers = format!("lowerdir={below},upperdir={above}/up,workdir={above}/work");
    let Some(_merged) = Mounted::at(&merged, "overlay", &layers) else { return println!("{skipped}") };
    fs::write(merged.join("web/b"), "x").unwrap();
    let device = |path: &str| fs::metadata(merged.join(path)).unwrap().dev();
    if device("web/a") == device("web") && device("web/b") == device("web") {
        return println!("{skipped}");
    }
    let findings = check(&[files(&merged.join("web"))], &world.snapshot_dir());
    let is_a_mount = |problem: &Problem| matches!(problem, Problem::MountInside { .. } | Problem::MountPoint);
    assert!(!findings.iter().any(|finding| is_a_mount(&finding.problem)), "{findings:?}");
    // What is mounted there is found all the same.
    let inside = merged.join("web/inside");
    fs::create_dir(&inside).unwrap();
    let _inside = Mounted::at(&inside, "tmpfs", "size=64k").unwrap();
    let findings = check(&[files(&merged.join("web"))], &world.snapshot_dir());
    assert!(findings.iter().any(|finding| is_a_mount(&finding.problem)), "{findings:?}");
}

/// Unmounts even if the test fails.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    /// A file system of that kind there, if this process may mount it.
    fn at(place: &'a Path, kind: &str, options: &str) -> Option<Self> {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", kind, "-o", options, kind]).arg(place).stderr(std::process::Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(Self(place))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg("-l").arg(self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn check_names_every_obstacle_and_its_reason() {
    let world = World::new();
    world.write("dir/a", "x");
    world.write("not a db/a", "x");
    symlink("dir", world.live("link")).unwrap();
    let good = [files(&world.live("dir")), sqlite(&world.live("dir/app.db")), files(&world.live("absent"))];
    assert_eq!(check(&good, &world.snapshot_dir()), []);

    let problem = |state: &[snapshot::StatePath]| {
        let findings = check(state, &world.snapshot_dir());
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings.into_iter().next().unwrap().problem
    };
    let of_a_mount = check(&[files(Path::new("/proc"))], &world.snapshot_dir());
    assert!(of_a_mount.iter().any(|finding| finding.problem == Problem::MountPoint), "{of_a_mount:?}");
    assert_eq!(problem(&[files(&world.live("link"))]), Problem::Link { target: world.live("dir") });
    assert_eq!(problem(&[files(&world.live("no/such"))]), Problem::ParentMissing);
    assert_eq!(problem(&[files(&world.base)]), Problem::HoldsSnapshots);
    assert!(matches!(problem(&[sqlite(&world.live("not a db"))]), Problem::WrongKind { .. }));
    assert_eq!(
        problem(&[files(&world.live("dir")), files(&world.live("dir/a"))]),
        Problem::Overlaps { other: world.live("dir") }
    );
    if !rustix::process::geteuid().is_root() {
        fs::set_permissions(world.base.join("live"), fs::Permissions::from_mode(0o500)).unwrap();
        let found = check(&[files(&world.live("dir"))], &world.snapshot_dir());
        fs::set_permissions(world.base.join("live"), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(
            matches!(&found[..], [one] if matches!(one.problem, Problem::CannotRename { .. })),
            "{found:?}"
        );
    }
}

#[test]
fn room_is_measured_for_copy_and_restore_with_a_tenth_more() {
    let world = World::new();
    world.write("web/a", vec![1; 1 << 20]);
    let holes = world.write("web/holes", "x");
    fs::File::options().write(true).open(holes).unwrap().set_len(1 << 33).unwrap();
    let state = [files(&world.live("web"))];
    let size = estimate(&state).unwrap();
    assert!((1 << 20..1 << 24).contains(&size.bytes), "holes take no room: {size:?}");
    assert_eq!(size.files, 3);
    let measured = space(&state, &world.snapshot_dir()).unwrap();
    let needed: u64 = measured.needs.iter().map(|need| need.needed.bytes).sum();
    assert!(needed >= size.bytes * 22 / 10, "{measured:?}");
    assert!(measured.is_enough(), "{measured:?}");
    let database = world.write("app.db", vec![1; 1 << 20]);
    let measured = space(&[sqlite(&database)], &world.snapshot_dir()).unwrap();
    let needed: u64 = measured.needs.iter().map(|need| need.needed.bytes).sum();
    assert!(needed >= (1 << 20) * 33 / 10, "the check of a database may need a duplicate: {measured:?}");
    take(&state, &world.snapshot_dir(), &now()).unwrap();
    let copy = fs::metadata(world.snapshot_dir().join("copy/0/web/holes")).unwrap();
    assert_eq!((copy.len(), copy.blocks() < 1 << 12), (1 << 33, true), "a hole is copied as a hole");
}

#[test]
fn a_snapshot_that_was_never_finished_does_not_exist() {
    let world = World::new();
    world.write("web/a", "1");
    let state = [files(&world.live("web"))];
    warm(&state, &world.snapshot_dir(), &now(), PATIENCE).unwrap();
    assert!(Snapshot::open(&world.snapshot_dir()).unwrap().is_none());
    let taken = take(&state, &world.snapshot_dir(), &now()).unwrap();
    assert_eq!(fs::metadata(taken.dir()).unwrap().permissions().mode() & 0o777, 0o700);
    discard(taken.dir()).unwrap();
    discard(taken.dir()).unwrap();
    assert!(matches!(freeze(&taken), Err(Error::Missing { .. })));
    assert_eq!(fs::read_to_string(world.live("web/a")).unwrap(), "1");
}

#[test]
fn what_is_given_anew_before_each_start_is_no_difference_and_everything_else_is() {
    let world = World::new();
    world.write("npm/one/node_modules/extra/index.mjs", "theirs");
    let seat = Seat { project: world.live("npm/one"), package: "extra".into() };
    let taken = take(&[files(&world.live("npm"))], &world.snapshot_dir(), &now()).unwrap();
    let link = seat.link();
    fs::rename(&link, link.with_file_name(".extra.cutover-aside")).unwrap();
    symlink("/generations/0002", &link).unwrap();
    assert!(matches!(compare(&taken), Comparison::Changed(_)));
    assert_eq!(compare_without(&taken, std::slice::from_ref(&seat)), Comparison::Equal);
    fs::write(seat.project.join("other"), "").unwrap();
    let Comparison::Changed(changes) = compare_without(&taken, &[seat]) else { panic!() };
    assert_eq!(changes.files, [world.live("npm/one/other")]);
}
