//! Who is told of a service's runs and alarms: how the file names them.

use super::amount::Span;
use super::complaint::Complaint;
use super::settings::ServiceSettings;
use crate::causes::told;
use crate::notify::{Endpoint, Secret};
use cutover_core::{Target, TargetId};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one try may take without a word about it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a notice is tried without a word about it.
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);

/// Somebody who is told when a run ends, when one begins that nobody ordered, and when an alarm is raised or over.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NotifyFragment {
    /// Where the notice is posted as JSON: an https address, or an http one on this machine.
    pub webhook: Option<String>,
    /// A file with the secret that the post is signed with; only its owner may be able to read it.
    pub secret_file: Option<PathBuf>,
    /// A program, by its absolute path, and its arguments instead: it gets the notice as its standard input.
    pub exec: Option<Vec<String>>,
    /// Limit of one try (default 10s).
    pub timeout: Option<Span>,
    /// How long a notice is tried before it is given up (default 24h).
    pub give_up: Option<Span>,
}

/// Somebody who is told, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct NotifySettings {
    /// Who.
    pub target: Target,
    /// By which way.
    pub way: WaySettings,
    /// Limit of one try.
    pub timeout: Duration,
    /// How long a notice is tried.
    pub give_up: Duration,
}

/// Ways to somebody.
#[derive(Clone, Debug, PartialEq)]
pub enum WaySettings {
    /// A POST.
    Webhook {
        /// Where.
        endpoint: Endpoint,
        /// What it is signed with.
        secret_file: Option<PathBuf>,
    },
    /// A program.
    Exec {
        /// It and its arguments.
        words: Vec<String>,
    },
}

/// Checks what the file says of those who are told. `key` is where it says it.
pub(super) fn notify(key: &str, fragments: &[NotifyFragment]) -> Result<Vec<NotifySettings>, Complaint> {
    let mut found: Vec<NotifySettings> = Vec::new();
    for (at, fragment) in fragments.iter().enumerate() {
        let complaint = |name: &str, problem: String| {
            let dot = if name.is_empty() { "" } else { "." };
            Complaint::new(format!("{key}[{at}]{dot}{name}"), problem)
        };
        let (way, target) = way(fragment).map_err(|(name, problem)| complaint(name, problem))?;
        if found.iter().any(|known| known.target.id == target.id) {
            return Err(complaint("", "it is named twice, and would be told twice".into()));
        }
        let timeout = fragment.timeout.map_or(TIMEOUT, |span| span.0);
        if timeout.is_zero() {
            return Err(complaint(
                "timeout",
                "nothing is taken in no time; write for example \"10s\"".into(),
            ));
        }
        let give_up = fragment.give_up.map_or(GIVE_UP, |span| span.0);
        found.push(NotifySettings { target, way, timeout, give_up });
    }
    Ok(found)
}

fn way(fragment: &NotifyFragment) -> Result<(WaySettings, Target), (&'static str, String)> {
    match (&fragment.webhook, &fragment.exec) {
        (Some(address), None) => {
            let endpoint = Endpoint::parse(address).map_err(|error| ("webhook", told(&error)))?;
            if fragment.secret_file.as_ref().is_some_and(|file| !file.is_absolute()) {
                return Err(("secret_file", "write an absolute path".into()));
            }
            let target = target(format!("webhook {endpoint}"), &["webhook", &endpoint.address()]);
            Ok((WaySettings::Webhook { endpoint, secret_file: fragment.secret_file.clone() }, target))
        }
        (None, Some(words)) => {
            let program = words.first().filter(|program| Path::new(program).is_absolute());
            let program = program.ok_or(("exec", "name a program by its absolute path".to_owned()))?;
            if fragment.secret_file.is_some() {
                return Err(("secret_file", "only a webhook is signed; leave it out".into()));
            }
            let parts: Vec<&str> = ["exec"].into_iter().chain(words.iter().map(String::as_str)).collect();
            Ok((WaySettings::Exec { words: words.clone() }, target(format!("program {program}"), &parts)))
        }
        _ => Err(("", "name exactly one of `webhook` and `exec`".into())),
    }
}

/// A target is the same as long as it is written the same. Its id tells nothing of an address, which may be a secret.
fn target(name: String, parts: &[&str]) -> Target {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(part.as_bytes());
    }
    Target { id: TargetId(hex::encode(&digest.finalize()[..8])), name }
}

/// What keeps those who are told of a service from being told, as far as this machine says so now: keys and what to do.
#[must_use]
pub fn untellable(service: &ServiceSettings) -> Vec<String> {
    let problem = |settings: &NotifySettings| match &settings.way {
        WaySettings::Webhook { secret_file: Some(file), .. } => {
            Secret::read(file).err().map(|error| told(&error))
        }
        WaySettings::Webhook { secret_file: None, .. } => None,
        WaySettings::Exec { words } => {
            let program = words.first().map(Path::new).filter(|program| !program.is_file())?;
            Some(format!("{} is not there; install it, or name another program", program.display()))
        }
    };
    let problems = service.notify.iter().filter_map(problem);
    problems.map(|problem| format!("service.{}.notify: {problem}", service.name)).collect()
}

#[cfg(test)]
mod tests {
    use crate::config::{Settings, parse, untellable};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    fn parsed(daemon: &str, service: &str) -> Result<Settings, String> {
        let text = format!(
            "[daemon]\nnotify = [{daemon}]\n[service.web]\nsource = {{ directory = \"/srv/releases\" }}\n\
             command = [\"{{root}}/bin/server\", \"{{port}}\"]\nlisten = \"127.0.0.1:8080\"\n\
             probe = {{ ready = \"/readyz\", version = {{ http = \"/version\" }} }}\nnotify = [{service}]\n"
        );
        parse(Path::new("cutover.toml"), &text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_told_is_refused_by_its_key() {
        for (notify, key, word) in [
            ("{}", "service.web.notify[0]: ", "exactly one"),
            ("{ webhook = \"https://a.example/\", exec = [\"/bin/true\"] }", "notify[0]: ", "exactly one"),
            ("{ webhook = \"http://a.example/x\" }", "notify[0].webhook: ", "https://"),
            ("{ webhook = \"a.example\" }", "notify[0].webhook: ", "begins with"),
            ("{ exec = [\"notify\"] }", "notify[0].exec: ", "absolute path"),
            ("{ exec = [] }", "notify[0].exec: ", "absolute path"),
            ("{ exec = [\"/bin/true\"], secret_file = \"/k\" }", "notify[0].secret_file: ", "only a webhook"),
            ("{ webhook = \"https://a.example/\", secret_file = \"k\" }", "secret_file: ", "absolute path"),
            ("{ exec = [\"/bin/true\"], timeout = \"0\" }", "notify[0].timeout: ", "10s"),
            ("{ exec = [\"/bin/true\"] }, { exec = [\"/bin/true\"] }", "notify[1]: ", "twice"),
        ] {
            let told = parsed("", notify).expect_err(notify);
            assert!(told.contains(key) && told.contains(word), "{notify}: {told}");
        }
        assert!(parsed("{}", "").unwrap_err().contains("  daemon.notify[0]: "));
    }

    #[test]
    fn who_is_told_of_every_service_is_told_of_each_once() {
        let (all, one) = ("{ exec = [\"/bin/true\"] }", "{ webhook = \"https://a.example/sesame\" }");
        let settings = parsed(all, &format!("{one}, {all}")).unwrap();
        let notify = &settings.services["web"].notify;
        let names: Vec<&str> = notify.iter().map(|settings| settings.target.name.as_str()).collect();
        assert_eq!(names, ["webhook https://a.example", "program /bin/true"]);
        assert!(notify[0].target.id != notify[1].target.id);
        assert!(!format!("{notify:?}").contains("sesame"), "an address may be a secret");
        let again = parsed("", one).unwrap();
        assert_eq!(again.services["web"].notify[0].target, notify[0].target);
    }

    #[test]
    fn a_secret_that_others_can_read_and_a_program_that_is_not_there_are_told_before_anything_happens() {
        let ground = tempfile::tempdir().unwrap();
        let secret = ground.path().join("secret");
        std::fs::write(&secret, "0123456789abcdef").unwrap();
        let told = |mode: u32| {
            std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
            let webhook =
                format!("{{ webhook = \"https://a.example/\", secret_file = \"{}\" }}", secret.display());
            let program = "{ exec = [\"/nowhere/notify\"] }";
            untellable(&parsed("", &format!("{webhook}, {program}")).unwrap().services["web"])
        };
        let open = told(0o644);
        assert_eq!(open.len(), 2, "{open:?}");
        assert!(open[0].starts_with("service.web.notify: ") && open[0].contains("chmod 600"), "{open:?}");
        assert!(open[1].contains("/nowhere/notify is not there"), "{open:?}");
        assert_eq!(told(0o600).len(), 1);
    }
}
