//! The target's own repair of a configuration that it refuses: how the file names it, and when it is used.

use super::complaint::Complaint;
use super::fragment::Service;
use super::template::located;
use cutover_core::RepairRule;
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// A command of the target that mends a configuration which it refuses.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RepairFragment {
    /// The command, with placeholders as in `command`: exit code 0 says that it is done. Run in a sandbox, on a copy of `state`.
    pub run: Vec<String>,
    /// Files of `state` whose mended content counts. Whatever else the command changes ends with the copy.
    pub files: Vec<PathBuf>,
}

/// What becomes of a configuration that the target refuses and can mend by itself.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RepairRuleFragment {
    /// It is refused; nothing is tried.
    Never,
    /// It is refused. The repair is tried on a copy, and what it would change is told.
    Offer,
    /// What was mended on a copy, accepted by the target and rehearsed is laid down after the stop.
    Apply,
}

/// A repair, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairSettings {
    /// Program and arguments with placeholders.
    pub run: Vec<String>,
    /// The files that count.
    pub files: Vec<PathBuf>,
}

/// Whether a repair is used.
pub(super) fn repair_rule(given: Option<RepairRuleFragment>) -> RepairRule {
    match given {
        Some(RepairRuleFragment::Never) => RepairRule::Never,
        Some(RepairRuleFragment::Offer) | None => RepairRule::Offer,
        Some(RepairRuleFragment::Apply) => RepairRule::Apply,
    }
}

pub(super) fn repair(service: &Service) -> Result<Option<RepairSettings>, Complaint> {
    let Some(RepairFragment { run, files }) = service.preflight.repair.clone() else {
        return match repair_rule(service.policy.repair) {
            RepairRule::Apply => {
                Err(Complaint::new("policy.repair", "there is no `preflight.repair` to apply"))
            }
            RepairRule::Never | RepairRule::Offer => Ok(None),
        };
    };
    if run.is_empty() {
        return Err(Complaint::new("preflight.repair.run", "name a program"));
    }
    if service.preflight.validate.is_empty() {
        let problem =
            "name `preflight.validate` too: without it nobody says what is to be mended, and whether it is";
        return Err(Complaint::new("preflight.repair", problem));
    }
    let files: Vec<PathBuf> = files.iter().map(|file| located(file, &service.env)).collect();
    let states: Vec<PathBuf> = service.state.iter().map(|state| located(&state.path, &service.env)).collect();
    if files.is_empty() {
        return Err(Complaint::new("preflight.repair.files", "name the files whose mended content counts"));
    }
    if let Some(file) = files.iter().find(|file| !states.iter().any(|state| file.starts_with(state))) {
        let problem = format!("{} lies in no declared `state`, and could not be taken back", file.display());
        return Err(Complaint::new("preflight.repair.files", problem));
    }
    Ok(Some(RepairSettings { run, files }))
}
