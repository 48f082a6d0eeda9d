//! What the findings of a preflight weigh for a service.

use super::fragment::{LevelFragment, PreflightFragment};
use cutover_core::{Finding, Level};
use std::collections::BTreeMap;

pub(super) fn weights(fragment: &PreflightFragment) -> BTreeMap<String, Level> {
    let kinds = [
        ("import", fragment.import),
        ("files", fragment.files),
        ("lock", fragment.lock),
        ("engines", fragment.engines),
        ("native", fragment.native),
        ("empty", fragment.empty),
        ("link", fragment.link),
        ("access", fragment.access),
        ("port", fragment.port),
        ("supervisor", fragment.supervisor),
        ("version", fragment.version),
        ("configuration", fragment.configuration),
        ("group", fragment.group),
        ("plugins", fragment.plugins),
        ("schema", fragment.schema),
    ];
    let level = |fragment| match fragment {
        LevelFragment::Block => Level::Block,
        LevelFragment::Warn => Level::Warn,
        LevelFragment::Note => Level::Note,
    };
    kinds.into_iter().filter_map(|(kind, given)| Some((kind.to_owned(), level(given?)))).collect()
}

/// Findings as a policy weighs them. What is only good to know stays so.
#[must_use]
pub fn weighed(findings: Vec<Finding>, policy: &BTreeMap<String, Level>) -> Vec<Finding> {
    let weigh = |finding: Finding| match policy.get(&finding.kind) {
        Some(level) if finding.level > Level::Note => Finding { level: *level, ..finding },
        _ => finding,
    };
    findings.into_iter().map(weigh).collect()
}
