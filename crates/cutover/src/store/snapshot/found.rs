//! Databases that nobody declared and that lie in declared directories. Knows by what a database is recognised; must not
//! know what is done with it.

use std::collections::{BTreeSet, HashSet};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};

use super::database::{MEMBERS, UNIT, member};
use super::layout::Root;
use super::place::{Place, kind};
use super::{Error, layout};

/// How every database file of SQLite begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Its length is a multiple of its page size, and no page is smaller.
const PAGE_MIN: i64 = 512;

/// The databases in a declared directory that are open for writing in some process (`written`: device and inode), relative
/// to the directory's parent. Copied file by file, such a database would be torn. What nobody writes to is copied as bytes
/// like every other file: to open it would leave traces in live state.
pub(super) fn in_use(root: &Root, written: &HashSet<(u64, u64)>) -> Result<Vec<PathBuf>, Error> {
    let mut search = Search { declared: root.unit_files(), written, found: Vec::new() };
    let parent = Place::open(root.parent())?;
    if parent.stat(root.name())?.is_some_and(|stat| kind(&stat) == FileType::Directory) {
        search.visit(&parent.enter(root.name())?, Path::new(root.name()));
    }
    Ok(search.found)
}

struct Search<'a> {
    declared: BTreeSet<PathBuf>,
    written: &'a HashSet<(u64, u64)>,
    found: Vec<PathBuf>,
}

impl Search<'_> {
    /// What cannot be looked at, or has gone meanwhile, is the copy's to tell.
    fn visit(&mut self, here: &Place, path: &Path) {
        for name in here.names().unwrap_or_default() {
            let (Ok(Some(stat)), path) = (here.stat(&name), path.join(&name)) else { continue };
            match kind(&stat) {
                FileType::Directory => {
                    if let Ok(inner) = here.enter(&name) {
                        self.visit(&inner, &path);
                    }
                }
                FileType::RegularFile if !self.declared.contains(&path) && is_whole(&stat) => {
                    let is_written = MEMBERS.iter().any(|suffix| {
                        let member = member(Path::new(&name), suffix);
                        here.stat(member.as_os_str())
                            .is_ok_and(|stat| stat.is_some_and(|stat| self.written.contains(&key(&stat))))
                    });
                    if is_written && begins_as_one(here, Path::new(&name)) {
                        self.found.push(path);
                    }
                }
                _ => {}
            }
        }
    }
}

fn key(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn is_whole(stat: &Stat) -> bool {
    stat.st_size >= PAGE_MIN && stat.st_size % PAGE_MIN == 0
}

/// Whether a database lies at this name.
pub(super) fn begins_as_one(here: &Place, name: &Path) -> bool {
    let mut head = [0; MAGIC.len()];
    here.read_file(name.as_os_str()).is_ok_and(|file| file.read_exact_at(&mut head, 0).is_ok())
        && head == *MAGIC
}

/// The databases that `differing` files belong to, by the name that each has with or without its suffix.
pub(super) fn of_files<'a>(
    differing: impl Iterator<Item = &'a PathBuf>,
    places: &[&Place],
) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for path in differing {
        let text = path.as_os_str().as_encoded_bytes();
        for suffix in UNIT.iter().filter(|suffix| text.ends_with(suffix.as_bytes())) {
            let name = &text[..text.len() - suffix.len()];
            let database = PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
            let is_one = places.iter().any(|place| {
                let here = place.enter_parent_of(&database).ok().flatten();
                let last = database.file_name().is_some();
                last && here.is_some_and(|here| begins_as_one(&here, Path::new(layout::name_of(&database))))
            });
            if is_one {
                found.insert(database);
            }
        }
    }
    found
}
