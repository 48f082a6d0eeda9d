//! Verified copies of a service's declared state, and putting them back. Knows files and databases; must not know whether
//! anything runs, which version wrote what, or why a copy is wanted: "while stopped" below is the caller's to establish.
//!
//! A snapshot lives in a directory of its own (`snapshots/<run>/`, 0700) and exists from the moment its record is durable:
//!
//! ```text
//! copy/<n>/…       the n-th root, under its own name; databases as their raw files
//! warm.json        what `warm` copied: the base of the delta that `take` copies while the service is stopped
//! snapshot.json    written last; without it there is no snapshot
//! frozen           from here on the snapshot is immutable
//! restore.json     what a restore moves where, durable before the first move
//! mended.json      contents of files that the target's own command mended on a copy
//! ```
//!
//! Every function blocks, and may be run again with the same arguments after a crash at any line.

mod check;
mod compare;
mod content;
mod database;
mod error;
mod found;
mod layout;
mod mended;
mod place;
mod record;
mod restore;
mod seat;
mod survey;
mod tree;
mod trust;
mod writers;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use check::{Finding, Need, Problem, Size, Space, check, estimate, space};
pub use compare::{Changes, Class, Comparison, DatabaseChange, class, compare, compare_without};
pub use content::Digest;
pub use database::{Fingerprint, Table};
pub use error::Error;
pub use layout::{StateKind, StatePath};
pub use mended::{Content, Lying, Mended, at_home, exchange, keep_mended, mended, text_of};
pub use record::Moment;
pub use restore::{Restored, restore, restore_has_begun};
pub use seat::{Seat, Seating, Sight, note_seats, seats};

use database::Inspected;
use layout::Root;
use place::Place;
use record::{DatabaseRecord, Entry, FORMAT, Record, RootRecord};
use tree::{Mirror, Source};
use trust::{Known, Trust, identity};

const COPY: &str = "copy";
const SCRATCH: &str = "scratch";
const WARM: &str = "warm.json";
const SNAPSHOT: &str = "snapshot.json";
const FROZEN: &str = "frozen";
const RESTORE: &str = "restore.json";

/// A complete copy of declared state, as it was while nothing wrote to it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    dir: PathBuf,
    record: Record,
    copied: u64,
}

impl Snapshot {
    /// Opens the snapshot in `dir`; `None` if there is no complete one.
    ///
    /// # Errors
    /// If its record cannot be read or understood.
    pub fn open(dir: &Path) -> Result<Option<Self>, Error> {
        let record = record::read(dir, SNAPSHOT)?;
        Ok(record.map(|record| Self { dir: dir.to_owned(), record, copied: 0 }))
    }

    /// Where it lies.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// When it was taken.
    #[must_use]
    pub fn moment(&self) -> &Moment {
        &self.record.moment
    }

    /// Files in the copy (links and directories not counted), and their length.
    #[must_use]
    pub fn size(&self) -> Size {
        let mut size = Size::default();
        for entry in self.record.entries().filter(|entry| matches!(entry.node, record::Node::File { .. })) {
            size.files += 1;
            size.bytes += entry.size();
        }
        size
    }

    /// Bytes that [`take`] wrote for it; none for one that was there already.
    #[must_use]
    pub fn copied(&self) -> u64 {
        self.copied
    }

    /// Every database that existed, with what it held.
    pub fn fingerprints(&self) -> impl Iterator<Item = (PathBuf, &Fingerprint)> {
        self.record.roots.iter().flat_map(|root| {
            root.databases.iter().filter_map(|database| {
                let path = layout::parent_of(&root.path).join(&database.path);
                database.fingerprint.as_ref().map(|fingerprint| (path, fingerprint))
            })
        })
    }

    /// Sockets, pipes and devices in the declared state: neither copied nor put back.
    #[must_use]
    pub fn skipped(&self) -> Vec<PathBuf> {
        let roots = self.record.roots.iter();
        roots
            .flat_map(|root| root.skipped.iter().map(|path| layout::parent_of(&root.path).join(path)))
            .collect()
    }

    /// Is it immutable?
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        is_frozen(&self.dir)
    }

    fn slot(&self, number: usize) -> PathBuf {
        slot(&self.dir, number)
    }
}

fn is_frozen(dir: &Path) -> Result<bool, Error> {
    let mark = dir.join(FROZEN);
    mark.try_exists().map_err(Error::io("examine", mark))
}

fn slot(dir: &Path, number: usize) -> PathBuf {
    dir.join(COPY).join(number.to_string())
}

/// What [`warm`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warmed {
    /// Files that were read and written.
    pub files: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// Files that [`take`] must read again in any case: in use, or changed just now.
    pub unsettled: u64,
    /// Databases that could not be copied online, and why: `take` must copy them whole.
    pub cold: Vec<(PathBuf, String)>,
}

/// Copies the bulk while the service runs: files as they are, databases through SQLite's backup API, the declared ones and
/// those that are found in use in a declared directory (declared ones then must pass their integrity check, so that damage
/// is found before anything is stopped). Must run with the rights to open the
/// databases. `patience` bounds, per database, waiting for its locks. A frozen snapshot is left alone.
///
/// # Errors
/// If the state cannot be covered, read or copied, or a database is damaged.
pub fn warm(state: &[StatePath], dir: &Path, moment: &Moment, patience: Duration) -> Result<Warmed, Error> {
    let roots = covered(state, dir)?;
    if is_frozen(dir)? {
        return Ok(Warmed::default());
    }
    let (file_system, base) = begin(dir, &roots, moment)?;
    let mut warmed = Warmed::default();
    let mut records = Vec::new();
    let written = writers::open_for_writing();
    for (number, root) in roots.iter().enumerate() {
        let trust = Trust::since(moment.at, written.clone());
        let found = found::in_use(root, &written)?;
        let whole = Root { databases: [root.databases.clone(), found.clone()].concat(), ..root.clone() };
        let (mut mirror, to) = mirror(Source::Live, &whole, number, base.as_ref(), trust, dir)?;
        let from = Place::open(root.parent())?;
        mirror.copy((&from, root.name()), (&to, root.name()), Path::new(root.name()))?;
        let mut databases = Vec::new();
        for path in &root.databases {
            let fingerprint = warm_database(root, path, &to, dir, patience, &mut warmed)?;
            databases.push(DatabaseRecord { path: path.clone(), members: Vec::new(), fingerprint });
        }
        for path in found {
            match warm_database(root, &path, &to, dir, patience, &mut warmed) {
                // Without a fingerprint it is copied as bytes, like every other file, when nothing writes to it any more.
                Ok(None) => {}
                Ok(fingerprint) => databases.push(DatabaseRecord { path, members: Vec::new(), fingerprint }),
                // Nobody has declared that it can be read by others than the service.
                Err(error @ (Error::Damaged { .. } | Error::Sqlite { .. })) => {
                    warmed.cold.push((root.parent().join(&path), error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        warmed.files += mirror.copied_files;
        warmed.bytes += mirror.copied_bytes;
        let is_unsettled =
            |entry: &&Entry| matches!(entry.node, record::Node::File { .. }) && entry.seen.is_none();
        warmed.unsettled += mirror.entries.iter().filter(is_unsettled).count() as u64;
        let Mirror { entries, skipped, .. } = mirror;
        records.push(RootRecord { path: root.path.clone(), kind: root.kind, entries, databases, skipped });
    }
    sync_copy(&file_system, dir)?;
    record::write_durably(dir, WARM, &Record { format: FORMAT, moment: moment.clone(), roots: records })?;
    Ok(warmed)
}

fn warm_database(
    root: &Root,
    path: &Path,
    to: &Place,
    dir: &Path,
    patience: Duration,
    warmed: &mut Warmed,
) -> Result<Option<Fingerprint>, Error> {
    let live = root.parent().join(path);
    let Some(place) = to.enter_parent_of(path)? else { return Ok(None) };
    let name = layout::name_of(path);
    for suffix in database::UNIT {
        place.remove(database::member(Path::new(name), suffix).as_os_str())?;
    }
    if !live.is_file() {
        return Ok(None);
    }
    if let Err(error) = database::back_up(&live, &place.path.join(name), patience) {
        place.remove(name)?;
        if let Some(error) = database::fatal(&live, &error) {
            return Err(error);
        }
        warmed.cold.push((live, error.to_string()));
        return Ok(None);
    }
    let Inspected { fingerprint, duplicated } =
        database::inspect(&place.path, name, &dir.join(SCRATCH), &live)?;
    let size = place.stat(name)?.map_or(0, |stat| identity(&stat).size);
    warmed.files += 1;
    warmed.bytes += size + duplicated;
    Ok(fingerprint)
}

/// Copies what changed since [`warm`] (or everything, without it), checks every database on a recovered duplicate, and
/// makes the whole durable before its record. Must be called only while nothing writes to the state; what changes
/// nevertheless is an error. A frozen snapshot is returned as it is; one that is not frozen is taken again.
///
/// # Errors
/// If the state cannot be covered, read or copied, changes meanwhile, or a database is damaged: there is then no snapshot.
pub fn take(state: &[StatePath], dir: &Path, moment: &Moment) -> Result<Snapshot, Error> {
    if is_frozen(dir)? {
        return Snapshot::open(dir)?.ok_or_else(|| Error::Missing { dir: dir.to_owned() });
    }
    let roots = covered(state, dir)?;
    let (file_system, base) = begin(dir, &roots, moment)?;
    let (mut records, mut copied) = (Vec::new(), 0);
    for (number, root) in roots.iter().enumerate() {
        let trust = Trust::since(moment.at, Default::default());
        let root = with_found(root, number, base.as_ref());
        let (mirror, to) = mirror(Source::Still, &root, number, base.as_ref(), trust, dir)?;
        let (record, bytes) = take_root(&root, mirror, &to, dir)?;
        records.push(record);
        copied += bytes;
        crate::crash_point!("root taken");
    }
    let record = Record { format: FORMAT, moment: moment.clone(), roots: records };
    sync_copy(&file_system, dir)?;
    crate::crash_point!("copy durable");
    record::write_durably(dir, SNAPSHOT, &record)?;
    crate::crash_point!("snapshot recorded");
    record::remove_durably(dir, WARM)?;
    Ok(Snapshot { dir: dir.to_owned(), record, copied })
}

/// The root with the databases that were found in it while they were in use: their copy is brought up to date as theirs.
fn with_found(root: &Root, number: usize, base: Option<&Record>) -> Root {
    let known = base.and_then(|base| base.roots.get(number)).into_iter().flat_map(|root| &root.databases);
    let found = known.map(|database| &database.path).filter(|path| !root.databases.contains(path));
    Root { databases: root.databases.iter().chain(found).cloned().collect(), ..root.clone() }
}

/// The root's record, and how many bytes were written for it, duplicates of databases included.
fn take_root(
    root: &Root,
    mut mirror: Mirror<'_>,
    to: &Place,
    dir: &Path,
) -> Result<(RootRecord, u64), Error> {
    let from = Place::open(root.parent())?;
    let names = match root.kind {
        StateKind::Files => vec![PathBuf::from(root.name())],
        StateKind::Sqlite => {
            database::UNIT.map(|suffix| database::member(Path::new(root.name()), suffix)).to_vec()
        }
    };
    for name in &names {
        mirror.copy((&from, name.as_os_str()), (to, name.as_os_str()), name)?;
    }
    // The files of a unit are copied one after the other: they are of one moment only if none changed since.
    for (path, seen) in &mirror.units_seen {
        let now =
            from.enter_parent_of(path)?.map(|place| place.stat(layout::name_of(path))).transpose()?.flatten();
        if now.is_none_or(|now| identity(&now) != *seen) {
            return Err(Error::Changing { path: root.parent().join(path) });
        }
    }
    let (mut members, entries): (Vec<_>, Vec<_>) =
        mirror.entries.into_iter().partition(|entry| mirror.unit_files.contains(&entry.path));
    let (mut databases, mut copied) = (Vec::new(), mirror.copied_bytes);
    for path in &root.databases {
        let (copy, live) = (to.path.join(path), root.parent().join(path));
        let Inspected { fingerprint, duplicated } =
            database::inspect(layout::parent_of(&copy), layout::name_of(path), &dir.join(SCRATCH), &live)?;
        copied += duplicated;
        let unit = database::MEMBERS.map(|suffix| database::member(path, suffix));
        let (own, others) = members.into_iter().partition(|entry| unit.contains(&entry.path));
        members = others;
        databases.push(DatabaseRecord { path: path.clone(), members: own, fingerprint });
    }
    let skipped = mirror.skipped;
    Ok((RootRecord { path: root.path.clone(), kind: root.kind, entries, databases, skipped }, copied))
}

/// The roots of the declared state, or why there can be no snapshot of them in `dir`.
fn covered(state: &[StatePath], dir: &Path) -> Result<Vec<Root>, Error> {
    let roots = layout::roots(state).map_err(Error::Refused)?;
    let findings = check::snapshots_inside(&roots, dir);
    if findings.is_empty() { Ok(roots) } else { Err(Error::Refused(findings)) }
}

/// Makes `dir` ready to be copied into: no snapshot exists in it any more. Returns the directory, opened before the first
/// write so that a later sync reports every failed one, and what the copy in it may be trusted to hold.
fn begin(dir: &Path, roots: &[Root], moment: &Moment) -> Result<(Place, Option<Record>), Error> {
    fs::DirBuilder::new().mode(0o700).recursive(true).create(dir).map_err(Error::io("create", dir))?;
    let place = Place::open(dir)?;
    if dir.join(SNAPSHOT).exists() {
        fs::rename(dir.join(SNAPSHOT), dir.join(WARM)).map_err(Error::io("rename", dir.join(SNAPSHOT)))?;
        place.sync()?;
        crate::crash_point!("snapshot withdrawn");
    }
    database::remove_scratch(&dir.join(SCRATCH))?;
    let base = record::read::<Record>(dir, WARM).unwrap_or(None).filter(|base| {
        let is_same = |(root, old): (&Root, &RootRecord)| {
            let has = |path: &PathBuf| old.databases.iter().any(|database| database.path == *path);
            root.path == old.path && root.kind == old.kind && root.databases.iter().all(has)
        };
        base.format == FORMAT
            // After a reboot, a copy whose record survived may itself be full of holes.
            && base.moment.boot_id == moment.boot_id
            && base.roots.len() == roots.len()
            && roots.iter().zip(&base.roots).all(is_same)
    });
    if base.is_none() {
        place.remove(COPY.as_ref())?;
        record::remove_durably(dir, WARM)?;
    }
    for number in 0..roots.len() {
        let slot = slot(dir, number);
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&slot)
            .map_err(Error::io("create", &slot))?;
    }
    Ok((place, base))
}

/// Makes the copy durable. After a failure the page cache still shows bytes that never reached the disk, and the next sync
/// would succeed: nothing copied so far may be the base of another attempt.
fn sync_copy(file_system: &Place, dir: &Path) -> Result<(), Error> {
    let synced = file_system.sync_file_system();
    if synced.is_err() {
        record::remove_durably(dir, WARM)?;
    }
    synced
}

fn mirror<'a>(
    source: Source,
    root: &Root,
    number: usize,
    base: Option<&'a Record>,
    trust: Trust,
    dir: &Path,
) -> Result<(Mirror<'a>, Place), Error> {
    let known = base.and_then(|base| base.roots.get(number)).into_iter().flat_map(|root| &root.entries);
    Ok((Mirror::new(source, Known::new(known), trust, root.unit_files()), Place::open(&slot(dir, number))?))
}

/// Where [`warm`] put the copy of each root, and what it is a copy of, for somebody who looks at the copy as the state's
/// owner does. A root that did not exist has none. The copy is no snapshot any more once it was written to.
///
/// # Errors
/// If the state cannot be covered, or a copied database cannot be given to the owner of the original.
pub fn copies(state: &[StatePath], dir: &Path) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
    let mut copies = Vec::new();
    let warmed: Option<Record> = record::read(dir, WARM)?;
    for (number, root) in covered(state, dir)?.iter().enumerate() {
        let (slot, root) = (slot(dir, number), with_found(root, number, warmed.as_ref()));
        for database in &root.databases {
            // Written by SQLite, and so its maker's; everything else was copied with its owner and mode.
            let (live, copy) = (root.parent().join(database), slot.join(database));
            if copy.exists() {
                tree::take_after(&live, &copy)?;
            }
        }
        let copy = slot.join(root.name());
        if copy.symlink_metadata().is_ok() {
            copies.push((copy, root.path.clone()));
        }
    }
    Ok(copies)
}

/// Makes a snapshot immutable. Must be durable before the target is first spawned: from then on the state on disk may be
/// the target's, and must never again be taken for the source's.
///
/// # Errors
/// If there is no complete snapshot, or the mark cannot be made durable.
pub fn freeze(snapshot: &Snapshot) -> Result<(), Error> {
    if Snapshot::open(&snapshot.dir)?.is_none() {
        return Err(Error::Missing { dir: snapshot.dir.clone() });
    }
    if snapshot.is_frozen()? {
        // The mark of an interrupted call may be readable and not yet durable.
        return record::sync_dir(&snapshot.dir);
    }
    record::write_bytes_durably(&snapshot.dir, FROZEN, b"")
}

/// Deletes a snapshot and what an unfinished preparation of a restore left beside the state. What restores replaced is the
/// operator's and stays. Nothing if there is nothing.
///
/// # Errors
/// If a restore has begun to move live state and has not finished, or something cannot be removed.
pub fn discard(dir: &Path) -> Result<(), Error> {
    let Some(parent) = dir.parent().filter(|_| dir.exists()) else { return Ok(()) };
    restore::forget(dir)?;
    record::remove_durably(dir, SNAPSHOT)?;
    crate::crash_point!("snapshot forgotten");
    let parent = Place::open(parent)?;
    parent.remove(layout::name_of(dir))?;
    parent.sync()
}
