//! Which slow tests are asked for. Knows the variable and how a test that was not asked for says so.

use std::io::Write as _;

/// Names the slow sets to run, separated by commas: `CUTOVER_TEST=real,browser,faults`.
pub const VARIABLE: &str = "CUTOVER_TEST";

/// Whether the slow set was asked for. If not, says so in a line `skipped: TEST: WHY` that the test harness does not
/// keep to itself, so that a test that did nothing is counted as skipped and not as passed.
#[must_use = "a slow test that is not asked for must return"]
pub fn is_asked_for(set: &str, test: &str) -> bool {
    is_one_asked_for(&[set], test)
}

/// The same for a test that belongs to more than one set.
#[must_use = "a slow test that is not asked for must return"]
pub fn is_one_asked_for(sets: &[&str], test: &str) -> bool {
    let asked = std::env::var(VARIABLE).unwrap_or_default();
    if sets.iter().any(|set| names(&asked, set)) {
        return true;
    }
    let line = format!("skipped: {test}: {VARIABLE} does not name the slow set {}\n", sets.join(" or "));
    // One write, past the harness's capture: lines of tests that run at the same time stay whole.
    std::io::stderr().write_all(line.as_bytes()).expect("a test can write to its standard error");
    false
}

fn names(asked: &str, set: &str) -> bool {
    asked.split(',').any(|name| name.trim() == set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_asked_for_by_its_whole_name() {
        assert!(names("real", "real"));
        assert!(names("browser, real", "real"));
        assert!(!names("", "real"));
        assert!(!names("unreal,realm", "real"));
    }
}
