//! The environment of a service and of the package manager, and where homes in paths are.

use crate::config::{self, ServiceSettings};
use crate::supervisor::Identity;
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The service's environment, without what each start adds.
pub(super) fn environment(
    settings: &ServiceSettings,
    identity: Option<&Identity>,
    inherited: &[(OsString, OsString)],
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut env = BTreeMap::new();
    for name in ["PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "HOME", "USER"] {
        let given = inherited.iter().find(|(given, _)| given == name).and_then(|(_, value)| value.to_str());
        if let Some(value) = given {
            env.insert(name.to_owned(), value.to_owned());
        }
    }
    if let Some(identity) = identity {
        env.insert("HOME".into(), identity.home.clone().unwrap_or_else(|| "/".into()).display().to_string());
        env.insert("USER".into(), settings.user.clone().unwrap_or_default());
    }
    let secret = match &settings.env_file {
        Some(path) => {
            config::variables(path).with_context(|| format!("service.{}.env_file", settings.name))?
        }
        None => BTreeMap::new(),
    };
    env.extend(secret.clone());
    for (name, value) in &settings.env {
        let filled = env.get("HOME").map_or_else(|| value.clone(), |home| value.replace(config::HOME, home));
        // Where the state lies is read from `env`: a file that says otherwise would be right about the process only.
        let differs = secret.get(name).is_some_and(|other| *other != filled);
        if differs && !value.is_empty() && settings.state.iter().any(|state| state.path.starts_with(value)) {
            let service = &settings.name;
            bail!(
                "service.{service}: `env_file` and `env` differ about {name}, where the state lies; name it in `env` alone"
            );
        }
        env.insert(name.clone(), filled);
    }
    Ok(env)
}

/// A path with the home of the service's user filled in; `None` if it has none.
pub(super) fn at_home(path: &Path, env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let Ok(below) = path.strip_prefix(config::HOME) else { return Some(path.to_owned()) };
    let home = env.get("HOME").map(Path::new).filter(|home| home.is_absolute())?;
    Some(home.join(below))
}

/// The daemon's own environment, in which proxies, certificates and npm's settings are, below the service's.
pub(super) fn npm_environment(
    inherited: &[(OsString, OsString)],
    service: &BTreeMap<String, String>,
) -> Vec<(OsString, OsString)> {
    let mut env: BTreeMap<OsString, OsString> = inherited.iter().cloned().collect();
    env.extend(service.iter().map(|(name, value)| (name.into(), value.into())));
    env.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npm_finds_the_machine_s_own_settings_and_the_service_s_before_them() {
        let inherited = [("HTTPS_PROXY", "machine"), ("HOME", "/root"), ("npm_config_cafile", "/ca")];
        let inherited = inherited.map(|(name, value)| (name.into(), value.into()));
        let service = BTreeMap::from([("HOME".to_owned(), "/home/claw".to_owned())]);
        let given = npm_environment(&inherited, &service);
        let expected = [("HOME", "/home/claw"), ("HTTPS_PROXY", "machine"), ("npm_config_cafile", "/ca")];
        assert_eq!(given, expected.map(|(name, value)| (name.into(), value.into())));
    }
}
