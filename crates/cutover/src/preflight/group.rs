//! Whether what lies in the state belongs to those whom the service runs as.
//!
//! Knows owners, groups and modes, and lets the kernel judge what they leave open. Must not know what the files are for.

use super::{counted, listed};
use crate::store::Identity;
use cutover_core::{Finding, Level};
use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

const KIND: &str = "group";

/// So many entries of the state are looked at.
const LOOKED_MAX: usize = 200_000;

/// Looks for what the service's user could not write once it runs: files that others left, or another group. What it owns
/// is its own to open; the declared paths themselves are somebody else's look.
pub(super) fn look(state: &[PathBuf], identity: Option<&Identity>) -> Vec<Finding> {
    let own = identity.cloned().unwrap_or_else(own);
    if own.uid == 0 {
        return Vec::new();
    }
    let mut doubtful: Vec<(PathBuf, u32, u32)> = Vec::new();
    let entries = state.iter().flat_map(|root| WalkDir::new(root).min_depth(1)).flatten();
    for entry in entries.take(LOOKED_MAX) {
        let Ok(found) = entry.metadata() else { continue };
        let is_plain = found.is_dir() || found.is_file();
        // Most are cleared by what is known already; the kernel is asked for the rest, access lists included.
        if is_plain && found.uid() != own.uid && found.mode() & 0o002 == 0 {
            doubtful.push((entry.path().to_owned(), found.uid(), found.gid()));
        }
    }
    let denied = |doubtful: &mut Vec<(PathBuf, u32, u32)>| doubtful.retain(|(path, ..)| is_denied(path));
    match identity {
        Some(identity) => {
            let asked = identity.run(|| {
                denied(&mut doubtful);
                Ok(())
            });
            if let Err(error) = asked {
                let text = format!("whether uid {} may write the state cannot be told: {error}", own.uid);
                return vec![Finding::new(Level::Warn, KIND, text)];
            }
        }
        None => denied(&mut doubtful),
    }
    findings(&doubtful, &own)
}

fn own() -> Identity {
    let groups = rustix::process::getgroups().unwrap_or_default();
    Identity {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        groups: groups.into_iter().map(rustix::process::Gid::as_raw).collect(),
    }
}

/// Asks with the rights of the calling thread.
fn is_denied(path: &Path) -> bool {
    let asked = rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS);
    asked == Err(Errno::ACCESS)
}

fn findings(closed: &[(PathBuf, u32, u32)], own: &Identity) -> Vec<Finding> {
    if closed.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> =
        closed.iter().map(|(path, uid, gid)| format!("{} (uid {uid}, gid {gid})", path.display())).collect();
    let mut groups = own.groups.clone();
    groups.push(own.gid);
    groups.sort_unstable();
    groups.dedup();
    let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
    let foreign: BTreeSet<u32> = closed.iter().map(|(_, _, gid)| *gid).collect();
    let foreign: Vec<String> = foreign.iter().map(ToString::to_string).collect();
    let text = format!(
        "{} not writable by uid {} with groups {}: {}",
        counted(closed.len(), "entry of the state is", "entries of the state are"),
        own.uid,
        groups.join(", "),
        listed(&names)
    );
    let advice = format!(
        "give them to the service's user (`chown`), or let it be of the group that writes them (gid {}) with `group`",
        foreign.join(", ")
    );
    vec![Finding::new(Level::Warn, KIND, text).advised(advice)]
}
