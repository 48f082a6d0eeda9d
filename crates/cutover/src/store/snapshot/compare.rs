//! What the live, stopped state is against a snapshot. Reads only: a live database is read by copying its bytes away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::{self, StateKind, StatePath};
use super::place::Place;
use super::record::{DatabaseRecord, Entry, RootRecord};
use super::seat::Seat;
use super::survey::Survey;
use super::tree::{Mirror, Source};
use super::trust::{Known, Trust};
use super::{Error, Snapshot, database, found};

/// What the live state is against a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
#[must_use = "a target must not start on state that its snapshot does not hold"]
pub enum Comparison {
    /// The same files, and in every database the same rows.
    Equal,
    /// Other contents, but every database still has the snapshot's schema and migration ledger: the source may have
    /// written this. Of files nobody can tell who could read them.
    Changed(Changes),
    /// A database has another schema or ledger: only other code can have done that.
    Migrated(Changes),
    /// It could not be established.
    Unknown {
        /// What failed.
        why: String,
    },
}

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Files, links and directories that are not as in the snapshot; the first [`Changes::NAMED_MAX`] by name.
    pub files: Vec<PathBuf>,
    /// How many they are.
    pub files_count: u64,
    /// Databases.
    pub databases: Vec<DatabaseChange>,
}

impl Changes {
    /// How many files are named.
    pub const NAMED_MAX: usize = 100;
}

/// A database that is not as in the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseChange {
    /// Its live path.
    pub path: PathBuf,
    /// Rows in the snapshot; none if it did not exist.
    pub rows_then: Option<u64>,
    /// Rows now; none if it does not exist.
    pub rows_now: Option<u64>,
    /// `PRAGMA user_version` in the snapshot and now, where they differ.
    pub user_version: Option<(i64, i64)>,
}

/// Whether code of the source can go on with what the target wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// No state is declared.
    None,
    /// Only rows changed: a rollback of code alone keeps the writes.
    Neutral,
    /// Old code may be unable to read it. What is unknown counts as this.
    Migrated,
}

/// The class of what a target did to the state, from the comparison afterwards. Files have no schema by which to tell, so
/// changed files count as migrated.
#[must_use]
pub fn class(state: &[StatePath], comparison: &Comparison) -> Class {
    match comparison {
        _ if state.is_empty() => Class::None,
        Comparison::Equal => Class::Neutral,
        Comparison::Changed(changes) if changes.files_count == 0 => Class::Neutral,
        Comparison::Changed(_) | Comparison::Migrated(_) | Comparison::Unknown { .. } => Class::Migrated,
    }
}

/// Compares the live state with a snapshot. Must be called only while nothing writes to the state. Trouble of any kind is
/// an answer too: unknown.
pub fn compare(snapshot: &Snapshot) -> Comparison {
    compare_without(snapshot, &[])
}

/// The same, leaving out what lies in these seats: before each start they are given anew.
pub fn compare_without(snapshot: &Snapshot, seats: &[Seat]) -> Comparison {
    let mut total = Changes::default();
    let mut is_migrated = false;
    for (number, root) in snapshot.record.roots.iter().enumerate() {
        match compare_root((snapshot, number, root), seats, &mut total) {
            Ok(migrated) => is_migrated |= migrated,
            Err(error) => return Comparison::Unknown { why: with_causes(&error) },
        }
    }
    if is_migrated {
        Comparison::Migrated(total)
    } else if total == Changes::default() {
        Comparison::Equal
    } else {
        Comparison::Changed(total)
    }
}

fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn compare_root(
    (snapshot, number, root): (&Snapshot, usize, &RootRecord),
    seats: &[Seat],
    total: &mut Changes,
) -> Result<bool, Error> {
    let mut is_migrated = false;
    let mut differing = differences(root)?;
    let parent = layout::parent_of(&root.path);
    differing.retain(|path, _| !seats.iter().any(|seat| seat.has(&parent.join(path))));
    let undeclared = undeclared(snapshot, number, root, &differing)?;
    for database in root.databases.iter().chain(&undeclared) {
        let unit = unit_of(database);
        if !differing.keys().any(|path| unit.contains(path)) {
            continue;
        }
        differing.retain(|path, _| !unit.contains(path));
        let path = layout::parent_of(&root.path).join(&database.path);
        let then = database.fingerprint.as_ref();
        let now = live_fingerprint(snapshot, root, database)?;
        let (has_same_schema, has_same_rows) = match (then, &now) {
            (None, None) => (true, false),
            (Some(then), Some(now)) => (now.has_schema_of(then), now.proves_same_rows_as(then)),
            _ => (false, false),
        };
        is_migrated |= !has_same_schema;
        if !has_same_rows {
            let versions = then.zip(now.as_ref()).map(|(then, now)| (then.user_version, now.user_version));
            total.databases.push(DatabaseChange {
                path,
                rows_then: then.map(database::Fingerprint::rows),
                rows_now: now.as_ref().map(database::Fingerprint::rows),
                user_version: versions.filter(|(then, now)| then != now),
            });
        }
    }
    total.files_count += differing.len() as u64;
    for path in differing.into_keys() {
        if total.files.len() < Changes::NAMED_MAX {
            total.files.push(layout::parent_of(&root.path).join(path));
        }
    }
    Ok(is_migrated)
}

/// The databases among what differs that were copied as mere files, because nobody wrote to them: only what they hold
/// tells whether old code can go on with them.
fn undeclared(
    snapshot: &Snapshot,
    number: usize,
    root: &RootRecord,
    differing: &BTreeMap<PathBuf, &'static str>,
) -> Result<Vec<DatabaseRecord>, Error> {
    if root.kind != StateKind::Files {
        return Ok(Vec::new());
    }
    let (copy, live) = (Place::open(&snapshot.slot(number))?, Place::open(layout::parent_of(&root.path))?);
    let mut found = found::of_files(differing.keys(), &[&copy, &live]);
    found.retain(|path| !root.databases.iter().any(|known| unit_of(known).contains(path)));
    let mut records = Vec::new();
    for path in found {
        let (then, scratch) = (copy.path.join(&path), snapshot.dir.join(super::SCRATCH));
        let (dir, name) = (layout::parent_of(&then), layout::name_of(&path));
        let fingerprint = database::inspect(dir, name, &scratch, &live.path.join(&path))?.fingerprint;
        records.push(DatabaseRecord { path, members: Vec::new(), fingerprint });
    }
    Ok(records)
}

fn unit_of(database: &DatabaseRecord) -> BTreeSet<PathBuf> {
    database::UNIT.map(|suffix| database::member(&database.path, suffix)).into()
}

/// Every path at which the live state is not exactly what the snapshot recorded, with the first difference. Bytes of
/// databases count as they are; `-shm` does not.
pub(super) fn differences(root: &RootRecord) -> Result<BTreeMap<PathBuf, &'static str>, Error> {
    let recorded: BTreeMap<&Path, &Entry> =
        root.entries().map(|entry| (entry.path.as_path(), entry)).collect();
    let ignored = root.databases.iter().map(|database| database::member(&database.path, "-shm")).collect();
    let mut survey = Survey::new(Known::new(recorded.values().copied()), ignored);
    let parent = Place::open(layout::parent_of(&root.path))?;
    for suffix in root.suffixes() {
        let name = database::member(Path::new(layout::name_of(&root.path)), suffix);
        survey.read(&parent, name.as_os_str(), &name)?;
    }
    let mut differing = BTreeMap::new();
    for (path, then) in &recorded {
        match survey.entries.get(*path) {
            None => drop(differing.insert((*path).to_owned(), "missing")),
            Some(now) => drop(then.difference(now).map(|what| differing.insert((*path).to_owned(), what))),
        }
    }
    let added = survey.entries.into_keys().filter(|path| !recorded.contains_key(path.as_path()));
    differing.extend(added.map(|path| (path, "not in the snapshot")).collect::<Vec<_>>());
    Ok(differing)
}

/// Copies the bytes of a live database to scratch, and reads them there.
fn live_fingerprint(
    snapshot: &Snapshot,
    root: &RootRecord,
    database: &DatabaseRecord,
) -> Result<Option<database::Fingerprint>, Error> {
    let parent = Place::open(layout::parent_of(&root.path))?;
    let Some(from) = parent.enter_parent_of(&database.path)? else { return Ok(None) };
    let scratch = snapshot.dir.join(super::SCRATCH);
    database::make_scratch(&scratch)?;
    let to = Place::open(&scratch)?;
    let name = Path::new(layout::name_of(&database.path));
    let trust = Trust::since(snapshot.record.moment.at, Default::default());
    let unit = database::UNIT.map(|suffix| database::member(name, suffix)).into();
    let mut mirror = Mirror::new(Source::Still, Known::new([]), trust, unit);
    for suffix in database::MEMBERS {
        let member = database::member(name, suffix);
        mirror.copy((&from, member.as_os_str()), (&to, member.as_os_str()), &member)?;
    }
    let live = from.path.join(name);
    let found = if scratch.join(name).exists() {
        database::recover(&scratch.join(name), &live).map(Some)
    } else {
        Ok(None)
    };
    database::remove_scratch(&scratch)?;
    found
}
