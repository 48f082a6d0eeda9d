//! Putting a snapshot back: a complete copy is built beside the live state, then names are exchanged. Never overwrites and
//! never deletes live state; what it replaces is kept beside it. Every move is written down before the first is made, so a
//! restore that was interrupted is finished by running it again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::fs::RenameFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::compare::differences;
use super::layout::{name_of, parent_of};
use super::place::Place;
use super::record::{self, Entry, Node, RootRecord, path_text, path_texts};
use super::tree::{Mirror, Source};
use super::trust::{Known, Trust};
use super::{Error, RESTORE, Snapshot, database};

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Where the replaced state is kept now: the operator's to look at and to delete. Of a database its `-wal`, `-journal`
    /// and `-shm` are beside it under the same name.
    #[serde(with = "path_texts")]
    pub replaced: Vec<PathBuf>,
    /// Paths at which the replaced state was not the snapshot's.
    pub differed: u64,
    /// Files that were put back.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were written for that.
    #[serde(default)]
    pub copied: u64,
}

impl Restored {
    fn add(&mut self, pass: Self) {
        self.replaced.extend(pass.replaced);
        self.differed += pass.differed;
        self.files += pass.files;
        self.bytes += pass.bytes;
        self.copied += pass.copied;
    }
}

/// How far a restore has come; each is durable before the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    /// Candidates are being built under the names written here; nothing live was touched.
    Building,
    /// Candidates are complete and durable, names are being exchanged.
    Moving,
    /// Every name is where it belongs.
    Moved,
}

/// `restore.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Ledger {
    tag: String,
    phase: Phase,
    roots: Vec<RootMove>,
    /// By this pass.
    pass: Restored,
    /// By this pass too, once it has moved, and by earlier ones of the same tag.
    total: Restored,
}

/// The moves in one parent directory that make one root.
#[derive(Debug, Serialize, Deserialize)]
struct RootMove {
    number: usize,
    #[serde(with = "path_text")]
    parent: PathBuf,
    moves: Vec<Move>,
}

/// One name: what is live becomes kept, the candidate becomes live.
#[derive(Debug, Serialize, Deserialize)]
struct Move {
    #[serde(with = "path_text")]
    live: PathBuf,
    #[serde(with = "path_text")]
    candidate: PathBuf,
    #[serde(with = "path_text")]
    kept: PathBuf,
    /// Inode of the complete candidate, by which it is known under either name (both are in one directory, and a device's
    /// number may be another after a reboot); absent if the snapshot has nothing under this name.
    is: Option<u64>,
}

/// Puts the snapshot back where the live state is not exactly that. Must be called only while nothing uses the state.
/// `tag` (as `cutover-<run>`) names what is replaced: `<path>.<tag>-replaced`, with a number after it if that is taken.
///
/// # Errors
/// If the snapshot cannot be read or is not what was recorded (nothing live was touched then), or a move fails: run it
/// again to finish.
pub fn restore(snapshot: &Snapshot, tag: &str) -> Result<Restored, Error> {
    // What an interrupted call wrote may be readable and not yet durable; what follows from it must not come first.
    record::sync_dir(&snapshot.dir)?;
    let earlier: Option<Ledger> = record::read(&snapshot.dir, RESTORE)?;
    let earlier = match earlier {
        Some(ledger) if ledger.phase == Phase::Moving => Some(finish(snapshot, ledger)?),
        Some(mut ledger) if ledger.phase == Phase::Building => {
            remove_candidates(&ledger)?;
            // Those names are free again, and from here on not ours.
            (ledger.phase, ledger.pass) = (Phase::Moved, Restored::default());
            record::write_durably(&snapshot.dir, RESTORE, &ledger)?;
            Some(ledger)
        }
        earlier => earlier,
    };
    let total = earlier.filter(|ledger| ledger.tag == tag).map(|ledger| ledger.total).unwrap_or_default();
    let (mut differing, mut pass) = (Vec::new(), Restored::default());
    for (number, root) in snapshot.record.roots.iter().enumerate() {
        let count = differences(root)?.len() as u64;
        if count > 0 {
            pass.differed += count;
            differing.push((number, root));
        }
    }
    if differing.is_empty() {
        return Ok(total);
    }
    super::freeze(snapshot)?;
    let roots = moves(&differing, tag)?;
    let ledger = Ledger { tag: tag.to_owned(), phase: Phase::Building, roots, pass, total };
    let ledger = finish(snapshot, build(snapshot, ledger)?)?;
    for (_, root) in differing {
        if let Some((path, difference)) = differences(root)?.into_iter().next() {
            let path = parent_of(&root.path).join(path);
            return Err(Error::RestoreDiffers { path, difference: difference.to_owned() });
        }
    }
    Ok(ledger.total)
}

/// Whether a restore under this tag has begun to move live state: then it must be brought to its end.
///
/// # Errors
/// If its record cannot be read.
pub fn restore_has_begun(snapshot: &Snapshot, tag: &str) -> Result<bool, Error> {
    let ledger: Option<Ledger> = record::read(&snapshot.dir, RESTORE)?;
    Ok(ledger.is_some_and(|ledger| {
        ledger.phase == Phase::Moving
            || (ledger.tag == tag && ledger.phase == Phase::Moved && !ledger.total.replaced.is_empty())
    }))
}

/// Chooses names for all roots. The number after a taken name is the same for all names of a root, so that the kept files
/// of a database are still one database.
fn moves(differing: &[(usize, &RootRecord)], tag: &str) -> Result<Vec<RootMove>, Error> {
    let mut all = Vec::new();
    for (number, root) in differing {
        let parent = Place::open(parent_of(&root.path))?;
        let taken = parent.names()?;
        let is_free = |path: &PathBuf| !taken.contains(path.as_os_str());
        let moves = (1_u32..)
            .map(|attempt| moves_of(root, tag, attempt))
            .find(|moves| moves.iter().all(|one| is_free(&one.candidate) && is_free(&one.kept)))
            .expect("a directory does not hold four billion names");
        all.push(RootMove { number: *number, parent: parent.path, moves });
    }
    Ok(all)
}

fn moves_of(root: &RootRecord, tag: &str, attempt: u32) -> Vec<Move> {
    let name = Path::new(name_of(&root.path));
    let number = if attempt == 1 { String::new() } else { format!("-{attempt}") };
    let candidate = database::member(name, &format!(".{tag}-candidate{number}"));
    let kept = database::member(name, &format!(".{tag}-replaced{number}"));
    let one = |suffix: &&str| Move {
        live: database::member(name, suffix),
        candidate: database::member(&candidate, suffix),
        kept: database::member(&kept, suffix),
        is: None,
    };
    root.suffixes().iter().map(one).collect()
}

fn remove_candidates(ledger: &Ledger) -> Result<(), Error> {
    for root in &ledger.roots {
        let parent = Place::open(&root.parent)?;
        for one in &root.moves {
            parent.remove(one.candidate.as_os_str())?;
        }
    }
    Ok(())
}

/// Builds every candidate, complete and durable. The names are durable before the first is created, so that nothing is
/// ever removed that is not surely ours.
fn build(snapshot: &Snapshot, mut ledger: Ledger) -> Result<Ledger, Error> {
    record::write_durably(&snapshot.dir, RESTORE, &ledger)?;
    crate::crash_point!("restore: names written");
    if let Err(error) = build_candidates(snapshot, &mut ledger) {
        // Half a candidate on a full disk is in the way of the service itself.
        remove_candidates(&ledger)?;
        return Err(error);
    }
    ledger.phase = Phase::Moving;
    record::write_durably(&snapshot.dir, RESTORE, &ledger)?;
    crate::crash_point!("restore: moves written");
    Ok(ledger)
}

fn build_candidates(snapshot: &Snapshot, ledger: &mut Ledger) -> Result<(), Error> {
    for root in &mut ledger.roots {
        let parent = Place::open(&root.parent)?;
        let recorded = &snapshot.record.roots[root.number];
        ledger.pass.add(build_root(snapshot, root, recorded, &parent)?);
        parent.sync_file_system()?;
        crate::crash_point!("restore: candidate durable");
    }
    Ok(())
}

fn build_root(
    snapshot: &Snapshot,
    root: &mut RootMove,
    recorded: &RootRecord,
    parent: &Place,
) -> Result<Restored, Error> {
    let from = Place::open(&snapshot.slot(root.number))?;
    let trust = Trust::since(snapshot.record.moment.at, Default::default());
    let mut mirror = Mirror::new(Source::Still, Known::new([]), trust, BTreeSet::new());
    for one in &mut root.moves {
        mirror.copy((&from, one.live.as_os_str()), (parent, one.candidate.as_os_str()), &one.live)?;
        one.is = identify(parent, &one.candidate)?;
        crate::crash_point!("restore: candidate built");
    }
    let differs = |entry: &Entry, difference: &str| Error::SnapshotDiffers {
        path: parent_of(&recorded.path).join(&entry.path),
        difference: difference.to_owned(),
    };
    let built = Known::new(&mirror.entries);
    for then in recorded.entries() {
        let difference = built.entry(&then.path).map_or(Some("missing"), |now| then.difference(now));
        if let Some(difference) = difference {
            return Err(differs(then, difference));
        }
    }
    if mirror.entries.len() != recorded.entries().count() {
        let known = Known::new(recorded.entries());
        let extra = mirror.entries.iter().find(|entry| known.entry(&entry.path).is_none());
        return Err(differs(extra.unwrap_or(&mirror.entries[0]), "not recorded"));
    }
    let files = mirror.entries.iter().filter(|entry| matches!(entry.node, Node::File { .. }));
    Ok(Restored {
        files: files.clone().count() as u64,
        bytes: files.map(Entry::size).sum(),
        copied: mirror.copied_bytes,
        ..Restored::default()
    })
}

/// Makes the moves that are not made yet.
fn finish(snapshot: &Snapshot, mut ledger: Ledger) -> Result<Ledger, Error> {
    for root in &ledger.roots {
        let parent = Place::open(&root.parent)?;
        // All of a database's files are moved away before the first of its copy moves in: with a -wal of the replaced
        // database beside it, the restored one would silently hold the new rows again. The database itself goes first and
        // comes last, so that at no moment a database lies there without the journal that makes it whole.
        for one in &root.moves {
            set_aside(&parent, one, root.moves.len())?;
            crate::crash_point!("restore: set aside");
        }
        parent.sync()?;
        for one in root.moves.iter().rev() {
            put_in_place(&parent, one)?;
            crate::crash_point!("restore: put in place");
        }
        parent.sync()?;
        let names = parent.names()?;
        if root.moves.iter().any(|one| names.contains(one.kept.as_os_str())) {
            ledger.pass.replaced.push(root.parent.join(&root.moves[0].kept));
        }
    }
    ledger.total.add(std::mem::take(&mut ledger.pass));
    ledger.phase = Phase::Moved;
    record::write_durably(&snapshot.dir, RESTORE, &ledger)?;
    crate::crash_point!("restore: moved");
    Ok(ledger)
}

fn identify(parent: &Place, name: &Path) -> Result<Option<u64>, Error> {
    Ok(parent.stat(name.as_os_str())?.map(|stat| stat.st_ino))
}

/// Afterwards nothing but the candidate is under the live name, and what was is under the kept name.
fn set_aside(parent: &Place, one: &Move, moves: usize) -> Result<(), Error> {
    let Some(live) = identify(parent, &one.live)? else { return Ok(()) };
    if one.is == Some(live) {
        // Exchanged already; the replaced state may still be under the candidate's name.
        return match identify(parent, &one.candidate)? {
            Some(_) => rename_to_free(parent, &one.candidate, &one.kept),
            None => Ok(()),
        };
    }
    if one.is.is_some() && moves == 1 {
        if identify(parent, &one.candidate)? != one.is {
            return Err(Error::CandidateLost { path: parent.path.join(&one.candidate) });
        }
        if identify(parent, &one.kept)?.is_some() {
            return Err(Error::InTheWay { path: parent.path.join(&one.kept) });
        }
        if exchange(parent, &one.candidate, &one.live)? == Exchange::Done {
            crate::crash_point!("restore: exchanged");
            return rename_to_free(parent, &one.candidate, &one.kept);
        }
    }
    rename_to_free(parent, &one.live, &one.kept)
}

fn put_in_place(parent: &Place, one: &Move) -> Result<(), Error> {
    let Some(wanted) = one.is else { return Ok(()) };
    match identify(parent, &one.live)? {
        Some(live) if live == wanted => Ok(()),
        Some(_) => Err(Error::InTheWay { path: parent.path.join(&one.live) }),
        None if identify(parent, &one.candidate)? == Some(wanted) => {
            rename_to_free(parent, &one.candidate, &one.live)
        }
        None => Err(Error::CandidateLost { path: parent.path.join(&one.candidate) }),
    }
}

#[derive(PartialEq, Eq)]
enum Exchange {
    Done,
    Unsupported,
}

/// Exchanges two names in one step, where the file system can: at no moment is there nothing under the live name.
fn exchange(parent: &Place, a: &Path, b: &Path) -> Result<Exchange, Error> {
    if crate::fail_point!("restore: exchange") {
        return Ok(Exchange::Unsupported);
    }
    match rustix::fs::renameat_with(&parent.fd, a, &parent.fd, b, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(Exchange::Done),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(Exchange::Unsupported),
        Err(error) => Err(Error::io("rename", parent.path.join(b))(error)),
    }
}

/// Renames, and fails rather than replace anything.
fn rename_to_free(parent: &Place, from: &Path, to: &Path) -> Result<(), Error> {
    let renamed = rustix::fs::renameat_with(&parent.fd, from, &parent.fd, to, RenameFlags::NOREPLACE);
    let renamed = match renamed {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match parent.stat(to.as_os_str())? {
            Some(_) => Err(Errno::EXIST),
            None => rustix::fs::renameat(&parent.fd, from, &parent.fd, to),
        },
        renamed => renamed,
    };
    match renamed {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(Error::InTheWay { path: parent.path.join(to) }),
        Err(error) => Err(Error::io("rename", parent.path.join(from))(error)),
    }
}

/// Before a snapshot is discarded: removes what an unfinished preparation left; an unfinished restore forbids it.
pub(super) fn forget(dir: &Path) -> Result<(), Error> {
    match record::read::<Ledger>(dir, RESTORE)? {
        Some(ledger) if ledger.phase == Phase::Moving => {
            Err(Error::RestoreUnfinished { dir: dir.to_owned() })
        }
        Some(ledger) if ledger.phase == Phase::Building => remove_candidates(&ledger),
        _ => Ok(()),
    }
}
