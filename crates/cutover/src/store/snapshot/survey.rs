//! Reading a tree without copying it. Knows nothing of what the reading is compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::Error;
use super::content::{self, Named};
use super::place::{Place, kind};
use super::record::{Entry, Node};
use super::trust::{Known, entry, identity};

/// Reads a tree as entries without copying it; bytes are read only where `known` does not vouch for them.
pub(super) struct Survey<'a> {
    pub(super) known: Known<'a>,
    /// Paths that are no state: the `-shm` of databases.
    pub(super) ignored: BTreeSet<PathBuf>,
    pub(super) entries: BTreeMap<PathBuf, Entry>,
}

impl<'a> Survey<'a> {
    pub(super) fn new(known: Known<'a>, ignored: BTreeSet<PathBuf>) -> Self {
        Self { known, ignored, entries: BTreeMap::new() }
    }

    /// Reads what lies at a name. Sockets, pipes and devices are not state.
    pub(super) fn read(&mut self, from: &Place, name: &OsStr, path: &Path) -> Result<(), Error> {
        if self.ignored.contains(path) {
            return Ok(());
        }
        let Some(stat) = from.stat(name)? else { return Ok(()) };
        let node = match kind(&stat) {
            FileType::Directory => {
                let inner = from.enter(name)?;
                for child in inner.names()? {
                    self.read(&inner, &child, &path.join(&child))?;
                }
                Node::Directory
            }
            FileType::RegularFile => match self.known.same_version(path, identity(&stat)) {
                Some(known) => known.node.clone(),
                None => {
                    let file = from.read_file(name)?;
                    let read = content::digest(Named { file: &file, path: &from.path.join(name) })?;
                    Node::File { size: read.size, digest: read.digest }
                }
            },
            FileType::Symlink => Node::Link { target: from.read_link(name)? },
            _ => return Ok(()),
        };
        self.entries.insert(path.to_owned(), entry(path, node, &stat, None));
        Ok(())
    }
}
