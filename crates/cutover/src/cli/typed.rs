//! What a person has to type for a command to find the same places as this one.

use super::arguments::Arguments;
use super::{account, config_file, layout, variable};
use crate::config::{Directories, Layout};
use crate::shell;
use std::path::{Path, PathBuf};

/// The flags, quoted for a shell: those that differ from what is usual, whether they came from the command line or from the
/// environment of this one command. Empty where nothing differs.
pub(super) fn flags(arguments: &Arguments, file: &Directories) -> String {
    let mut flags = Vec::new();
    let mut add = |flag: &str, path: &Path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        flags.push(format!("{flag} {}", shell::quoted(&path.to_string_lossy())));
    };
    let usual = Layout::config_file(&variable, account()).ok();
    // Where nobody can tell what is usual, whoever types needs none, or names it.
    if let Some(path) = config_file(arguments).ok().filter(|path| usual.as_ref() != Some(path)) {
        add("--config", &path);
    }
    let usual = layout(None, None, file).ok();
    let usual = |of: fn(&Layout) -> &PathBuf| usual.as_ref().map(of);
    let state = arguments.state.as_ref().filter(|path| usual(|layout| &layout.state) != Some(path));
    if let Some(path) = state {
        add("--state", path);
    }
    let is_runtime_usual = |path: &&PathBuf| state.is_none() && usual(|layout| &layout.runtime) == Some(path);
    if let Some(path) = arguments.runtime.as_ref().filter(|path| !is_runtime_usual(path)) {
        add("--runtime", path);
    }
    flags.join(" ")
}
