//! Settings as this machine has them: homes filled in, and of a gateway's configuration, whether it is taken back with the
//! state. Whoever plans or checks asks the same as the daemon that begins.

use super::environment::{at_home, environment};
use crate::config::{self, ServiceSettings};
use crate::store::snapshot::{self, StateKind, StatePath};
use crate::supervisor::Identity;
use anyhow::Context;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

/// Settings as this machine has them.
pub(crate) struct Resolved {
    pub settings: ServiceSettings,
    /// The service's environment, without what each start adds.
    pub env: BTreeMap<String, String>,
    /// Why its configuration is not taken back with its state.
    pub uncovered: Option<String>,
}

/// Resolves settings. Copies of state would lie in `snapshots`.
///
/// # Errors
/// What is missing, with its key and what to do about it.
pub(crate) fn resolved(
    mut settings: ServiceSettings,
    identity: Option<&Identity>,
    inherited: &[(OsString, OsString)],
    snapshots: &Path,
) -> anyhow::Result<Resolved> {
    let name = settings.name.clone();
    let env = environment(&settings, identity, inherited)?;
    for state in &mut settings.state {
        state.path = at_home(&state.path, &env).with_context(|| {
            format!("service.{name}.state: nothing says where {} is; write absolute paths", config::HOME)
        })?;
    }
    for file in settings.repair.iter_mut().flat_map(|repair| &mut repair.files) {
        *file = at_home(file, &env).with_context(|| {
            format!("service.{name}.preflight.repair.files: nothing says where {} is", config::HOME)
        })?;
    }
    for project in settings.plugins.iter_mut().filter_map(|plugin| plugin.project.as_mut()) {
        *project = at_home(project, &env)
            .with_context(|| format!("service.{name}.plugins: nothing says where {} is", config::HOME))?;
    }
    let covered = config::cover(&mut settings, &env, |path| obstacle(path, snapshots));
    let uncovered = covered.map_err(anyhow::Error::msg)?;
    Ok(Resolved { settings, env, uncovered })
}

/// Why files could not be laid back.
fn obstacle(files: &Path, snapshots: &Path) -> Option<String> {
    let path = StatePath { path: files.to_owned(), kind: StateKind::Files };
    snapshot::check(&[path], snapshots).first().map(ToString::to_string)
}
