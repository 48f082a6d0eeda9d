//! What npm may know of its caller's environment.

use super::super::source::{Npm, Scripts};
use std::ffi::{OsStr, OsString};
use std::path::Path;

const PLAIN_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Names, in lower case, that are passed on as they are.
const PASSED_ON: [&str; 15] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "proxy",
    "node_extra_ca_certs",
    "node_auth_token",
    "node_use_system_ca",
    "ssl_cert_file",
    "ssl_cert_dir",
    "git_ssl_cainfo",
    "curl_ca_bundle",
    "tmpdir",
    "lang",
    "tz",
];

/// Chooses from the caller's environment, and lets the service's node come first.
pub(super) fn of(npm: &Npm, home: &Path) -> Vec<(OsString, OsString)> {
    let given =
        |wanted: &str| npm.env.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_os_str());
    let replaced = |name: &OsStr| npm.registry.is_some() && lower(name) == "npm_config_registry";
    let mut chosen: Vec<_> =
        npm.env.iter().filter(|(name, _)| passes(name) && !replaced(name)).cloned().collect();

    let mut path = OsString::new();
    if let Some(dir) = npm.node.as_deref().and_then(Path::parent) {
        path.push(dir);
        path.push(":");
    }
    path.push(given("PATH").unwrap_or(OsStr::new(PLAIN_PATH)));
    chosen.push(("PATH".into(), path));
    chosen.push(("HOME".into(), given("HOME").unwrap_or(home.as_os_str()).to_owned()));
    // Not as an argument: an address may hold a password, and arguments are public.
    chosen.extend(npm.registry.iter().map(|registry| ("npm_config_registry".into(), registry.into())));
    if npm.scripts == Scripts::On {
        // Newer npm asks for a list of packages beside `--ignore-scripts=false`; older ones ignore this.
        chosen.push(("npm_config_dangerously_allow_all_scripts".into(), "true".into()));
    }
    chosen
}

/// `npm_config_*` is configuration, other `npm_*` in capitals are tokens that an npmrc refers to.
fn passes(name: &OsStr) -> bool {
    let plain = lower(name);
    plain.starts_with("npm_config_")
        || name.as_encoded_bytes().starts_with(b"NPM_")
        || plain.starts_with("lc_")
        || PASSED_ON.contains(&plain.as_str())
}

fn lower(name: &OsStr) -> String {
    name.to_string_lossy().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::super::super::Limits;
    use super::*;

    fn npm(env: &[(&str, &str)]) -> Npm {
        Npm {
            package: "toy".into(),
            plugins: Vec::new(),
            linked: Vec::new(),
            registry: Some("http://new/".into()),
            npm: vec!["npm".into()],
            node: Some("/opt/node/bin/node".into()),
            env: env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            identity: None,
            scripts: Scripts::Off,
            cache: "/cache".into(),
            limits: Limits::default(),
        }
    }

    #[test]
    fn npm_is_told_its_own_settings_and_nothing_that_changes_what_node_runs() {
        let given = [
            ("PATH", "/bin"),
            ("NODE_OPTIONS", "--require evil"),
            ("NODE_PATH", "/evil"),
            ("LD_PRELOAD", "evil"),
            ("AWS_SECRET", "x"),
            ("NPM_TOKEN", "t"),
            ("NPM_CONFIG_REGISTRY", "http://old/"),
            ("npm_config_cafile", "/ca"),
            ("HTTPS_PROXY", "p"),
            ("https_proxy", "q"),
            ("NODE_EXTRA_CA_CERTS", "/ca"),
        ];
        let told = of(&npm(&given), Path::new("/private"));
        let told: Vec<String> =
            told.iter().map(|(name, value)| format!("{}={}", name.display(), value.display())).collect();
        assert_eq!(
            told,
            [
                "NPM_TOKEN=t",
                "npm_config_cafile=/ca",
                "HTTPS_PROXY=p",
                "https_proxy=q",
                "NODE_EXTRA_CA_CERTS=/ca",
                "PATH=/opt/node/bin:/bin",
                "HOME=/private",
                "npm_config_registry=http://new/",
            ]
        );
    }

    #[test]
    fn a_home_that_was_given_is_used() {
        let told = of(&npm(&[("HOME", "/home/claw")]), Path::new("/private"));
        assert!(told.contains(&("HOME".into(), "/home/claw".into())));
    }
}
