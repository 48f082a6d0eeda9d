//! What is filled in where a configuration is used: placeholders of directories, ports and variables.

use super::settings::ServiceSettings;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Stands for the home of the service's user.
pub(crate) const HOME: &str = "{home}";

/// Replaces `{root}`, `{port}`, `{node}`, `{home}` and `{env:NAME}`.
#[must_use]
pub(crate) fn fill(
    template: &str,
    root: &Path,
    port: u16,
    settings: &ServiceSettings,
    env: &BTreeMap<String, String>,
) -> String {
    let mut text = template.replace("{root}", &root.to_string_lossy()).replace("{port}", &port.to_string());
    if let Some(node) = &settings.node {
        text = text.replace("{node}", &node.to_string_lossy());
    }
    if let Some(home) = env.get("HOME") {
        text = text.replace(HOME, home);
    }
    fill_env(&text, env)
}

/// A path with the service's own variables filled in. Whose home `{home}` is, is known where the service runs.
pub(super) fn located(path: &Path, env: &BTreeMap<String, String>) -> PathBuf {
    PathBuf::from(fill_env(&path.to_string_lossy(), env))
}

fn fill_env(template: &str, env: &BTreeMap<String, String>) -> String {
    let mut text = template.to_owned();
    while let Some(start) = text.find("{env:") {
        let Some(end) = text[start..].find('}') else { break };
        let value = env.get(&text[start + 5..start + end]).cloned().unwrap_or_default();
        text.replace_range(start..=start + end, &value);
    }
    text
}
