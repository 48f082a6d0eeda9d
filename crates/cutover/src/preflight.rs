//! The preflight: what a sealed release and this machine would make fail, found while the old version still serves.
//!
//! This room reads trees, the kernel's tables and unit files, and runs short children as the service's user in a home
//! of their own. It changes nothing but its scratch directory. It must not know what an update is, nor what is done
//! about a finding: levels are its judgement, and a policy may have another.
//!
//! Wherever there is a running generation, the target is judged against it: what is wrong with both and runs all the
//! same keeps nobody from updating.

mod access;
mod cgroup;
mod child;
mod code;
mod configuration;
mod copied;
mod data;
mod declared;
mod engines;
mod group;
mod host;
mod lock;
mod manifest;
mod memory;
mod mending;
mod native;
mod packages;
mod platform;
mod port;
mod refusal;
mod rival;
mod secrets;
mod space;
mod stop;
mod tree;
mod unit;
mod version;

pub use child::Children;
pub(crate) use child::main as child;
pub use code::Code;
pub use configuration::{Conditions, Running, Validation, configuration};
pub use copied::{Copied, forget_copies};
pub use data::{Question, Told as DataTold, data};
pub use host::{Host, host};
pub use memory::Rehearsal;
pub use mending::{Mend, Mending, mend};
pub use packages::packages;
pub use rival::{Scope, Service, UnitDirectory};
pub use secrets::Secrets;
pub use space::Use;
pub use stop::{Interest, Stop};
pub use tree::Tree;
pub use version::Told;

use cutover_core::{Finding, Level};
use engines::Interpreter;
use std::time::Duration;

/// Longest time that one child may take, and all that load native modules together.
pub(crate) const CHILD: Duration = Duration::from_secs(20);
pub(crate) const CHILDREN: Duration = Duration::from_secs(120);

/// Looks at a release: its packages, as [`packages`], and without running any of it every import in every module. A missing
/// import that the running version has as well keeps nobody from updating. A look that is given up blocks.
#[must_use]
pub fn release(target: &Tree, running: Option<&Tree>, code: &Code, children: &Children) -> Vec<Finding> {
    let node = Interpreter::of(children);
    let mut findings = packages::look(target, running, children, &node);
    findings.extend(code::look(target, running, code, children, &node));
    if children.stop.is_asked() {
        findings.push(Finding::new(Level::Block, "preflight", "given up before everything was looked at"));
    }
    findings
}

/// So many names are told; of the rest, how many there are.
const NAMED_MAX: usize = 8;

/// Names in one line: all of few, the first of many and how many more there are.
fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED_MAX).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// `1 declared file is` or `8 declared files are`: how findings that name several things begin.
fn counted(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_names_the_first_are_told_and_how_many_more_there_are() {
        assert_eq!(listed(&["a", "b"]), "a, b");
        let many: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        assert_eq!(listed(&many), "0, 1, 2, 3, 4, 5, 6, 7 and 2 more");
    }
}
