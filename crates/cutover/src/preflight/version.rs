//! Whether the version probe works on the version that runs.
//!
//! Must not know how a version is asked for.

use cutover_core::{Finding, Level};

const KIND: &str = "version";

/// What a running, proven service said when it was asked for its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The version that is installed and runs.
    pub installed: String,
    /// The version that was read from its answer, or why none was.
    pub answer: Result<String, String>,
}

/// A probe that does not work on what runs would prove nothing of what comes.
pub(super) fn look(told: &Told) -> Finding {
    let installed = &told.installed;
    match &told.answer {
        Ok(version) if version == installed => {
            Finding::new(Level::Note, KIND, format!("the running service tells its version, {version}"))
        }
        Ok(version) => {
            let text = format!("the running service tells version {version}, {installed} is installed");
            Finding::new(Level::Warn, KIND, text).advised("its status says what runs; restart it first")
        }
        Err(why) => {
            let text = format!("the running {installed} does not tell its version: {why}");
            Finding::new(Level::Block, KIND, text)
                .advised("no update could be proven: set `probe.version` so that it works on what runs")
        }
    }
}
