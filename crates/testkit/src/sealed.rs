//! Sealed trees are read-only: whoever is not root must open them up before they can be removed.

use std::fs::{Permissions, read_dir, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Gives the owner every right to all directories of a tree, from the top down; links are not followed. What cannot be
/// opened is left as it is: its removal says why.
pub fn open_up(dir: &Path) {
    let _ = set_permissions(dir, Permissions::from_mode(0o755));
    let Ok(entries) = read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
