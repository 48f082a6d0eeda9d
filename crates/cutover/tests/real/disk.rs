//! How much disk a world takes while something happens in it.

use super::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks, at least; a look at a tree that is being installed takes its time, and most of all others' time.
const PAUSE: Duration = Duration::from_secs(1);
/// A look may take one part in so many of all time.
const SHARE: u32 = 5;

/// Bytes that a world took: allocated ones, and what has several names counts once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    pub(crate) before: u64,
    /// Of all looks: what was there for a moment between two of them is not seen.
    pub(crate) peak: u64,
    pub(crate) after: u64,
}

/// Looks again and again.
pub(crate) struct Disk {
    ending: Sender<()>,
    watching: JoinHandle<Used>,
}

impl Disk {
    pub(crate) fn watched(world: &World) -> Disk {
        let (ending, ended) = mpsc::channel();
        let (place, generations) = (world.path().to_owned(), world.store().dir().join("generations"));
        let mut known = BTreeMap::new();
        let before = taken(&place, &generations, &mut known);
        let watching = std::thread::spawn(move || {
            let mut used = Used { before, peak: before, after: before };
            let mut pause = PAUSE;
            loop {
                let is_over = ended.recv_timeout(pause) != Err(RecvTimeoutError::Timeout);
                let begun = Instant::now();
                used.after = taken(&place, &generations, &mut known);
                used.peak = used.peak.max(used.after);
                pause = PAUSE.max(begun.elapsed() * SHARE);
                if is_over {
                    return used;
                }
            }
        });
        Disk { ending, watching }
    }

    pub(crate) fn end(self) -> Used {
        self.ending.send(()).unwrap();
        self.watching.join().unwrap()
    }
}

/// All of a place. What is sealed does not change and is looked at once. What vanishes meanwhile takes nothing.
fn taken(place: &Path, generations: &Path, known: &mut BTreeMap<PathBuf, u64>) -> u64 {
    let sealed = std::fs::read_dir(generations).into_iter().flatten().flatten();
    let sealed: BTreeSet<PathBuf> = sealed.map(|entry| entry.path()).collect();
    known.retain(|generation, _| sealed.contains(generation));
    let is_known = |path: &Path| path.parent() == Some(generations);
    let rest = allocated(place, &|path| !is_known(path));
    let all = sealed.into_iter().map(|generation| {
        *known.entry(generation).or_insert_with_key(|generation| allocated(generation, &|_| true))
    });
    rest + all.sum::<u64>()
}

fn allocated(tree: &Path, is_counted: &dyn Fn(&Path) -> bool) -> u64 {
    let mut linked = BTreeSet::new();
    let entries = walkdir::WalkDir::new(tree).into_iter().filter_entry(|entry| is_counted(entry.path()));
    let found = entries.flatten().filter_map(|entry| entry.metadata().ok());
    let blocks = found.filter(|found| found.nlink() == 1 || linked.insert((found.dev(), found.ino())));
    blocks.map(|found| found.blocks() * 512).sum()
}
