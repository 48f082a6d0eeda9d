//! Whether the service's user may write where the service writes.
//!
//! Knows paths and a user, and lets the kernel judge. Must not know what the paths are for.

use crate::causes::told;
use crate::store::{self, Identity};
use cutover_core::{Finding, Level};
use rustix::fs::{Access, AtFlags, CWD};
use std::io;
use std::path::{Path, PathBuf};

const KIND: &str = "access";

/// Asks for each path, or for the nearest directory above it that exists, whether the user may write there.
pub(super) fn look(paths: &[PathBuf], identity: Option<&Identity>) -> Vec<Finding> {
    paths.iter().filter_map(|path| refused(path, identity)).collect()
}

fn refused(path: &Path, identity: Option<&Identity>) -> Option<Finding> {
    let there = store::existing(path);
    let mut wanted = Access::WRITE_OK;
    if there.is_dir() {
        wanted |= Access::EXEC_OK;
    }
    let asked = match identity {
        Some(identity) => identity.run(|| Ok(rustix::fs::access(&there, wanted)?)),
        None => rustix::fs::accessat(CWD, &there, wanted, AtFlags::EACCESS).map_err(io::Error::from),
    };
    let error = asked.err()?;
    let uid = identity.map_or_else(|| rustix::process::geteuid().as_raw(), |identity| identity.uid);
    let through =
        if there == path { String::new() } else { format!(" (it would be made in {})", there.display()) };
    let place = format!("{}{through}", path.display());
    Some(match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let text = format!("uid {uid}, as which the service runs, may not write {place}");
            Finding::new(Level::Block, KIND, text)
                .advised(format!("`chown -R {uid} {}`, or set the service's `user`", path.display()))
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            let text = format!("uid {uid} cannot write {place}: its file system is read-only");
            Finding::new(Level::Block, KIND, text)
        }
        _ => {
            let text = format!("whether uid {uid} may write {place} cannot be told: {}", told(&error));
            Finding::new(Level::Warn, KIND, text)
        }
    })
}
