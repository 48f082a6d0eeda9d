//! Plain-text log lines on standard output, one per call.
//!
//! A reader that went away (a keeper that was killed) must not take the service with it, so write errors are dropped.

use std::io::Write;
use std::path::Path;

/// Says one ordinary line.
pub(crate) fn say(line: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "[gateway {}] {}", std::process::id(), line.as_ref());
    let _ = out.flush();
}

/// Says, anchored at the line's start as node does, that a file of the own tree is gone.
pub(crate) fn say_module_not_found(path: &Path) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "Error [ERR_MODULE_NOT_FOUND]: Cannot find module '{}'", path.display());
    let _ = out.flush();
}
