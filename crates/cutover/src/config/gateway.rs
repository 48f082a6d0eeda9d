//! What is known of OpenClaw's gateway alone: which services are one, and what would go wrong with one.
//!
//! Knows its variables and signals. Must not know what an update is.

use super::complaint::Complaint;
use super::fragment::{ButtonFragment, Preset, Service, StrategyFragment};
use super::settings::{Button, ServiceSettings, VersionSettings};
use super::template::located;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where its state lies.
pub(super) const STATE: &str = "OPENCLAW_STATE_DIR";
/// Where its configuration lies, if not in its state.
pub(super) const CONFIGURATION: &str = "OPENCLAW_CONFIG_PATH";

/// Whether a service is one, as the file says it.
pub(super) fn is_openclaw(service: &Service) -> bool {
    matches!(service.preset, Some(Preset::OpenClaw))
        || service.probe.version.openclaw.is_some()
        || matches!(service.update_button, Some(ButtonFragment::OpenClaw))
}

/// Whether a service is one.
pub(super) fn is_gateway(service: &ServiceSettings) -> bool {
    matches!(service.version, VersionSettings::OpenClaw { .. })
        || matches!(service.button, Some(Button::OpenClaw))
}

/// What a file says of a gateway that would go wrong.
pub(super) fn refused(service: &Service) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    if !is_openclaw(service) {
        return complaints;
    }
    if matches!(service.strategy, Some(StrategyFragment::Signal)) {
        let problem = "an OpenClaw gateway is not restarted by SIGUSR1 or SIGUSR2: depending on its version that opens a \
                       debugger in it, or has it begin anew in the same process, with the same code; write \"stop-start\", or leave \
                       this key out";
        complaints.push(Complaint::new("strategy", problem));
    }
    let states = service.state.iter().map(|state| located(&state.path, &service.env));
    let configuration = service.env.get(CONFIGURATION).map(|path| located(Path::new(path), &service.env));
    complaints.extend(uncopied(configuration, states).map(|problem| Complaint::new("state", problem)));
    complaints
}

/// What is wrong with where a gateway's whole environment, in which homes are filled in, has its configuration; with its key.
#[must_use]
pub fn uncovered(service: &ServiceSettings, env: &BTreeMap<String, String>) -> Option<String> {
    let configuration = env.get(CONFIGURATION).filter(|_| is_gateway(service)).map(PathBuf::from);
    let states = service.state.iter().map(|state| state.path.clone());
    let problem = uncopied(configuration, states)?;
    Some(format!("service.{}.state: {problem}", service.name))
}

/// A configuration in no declared state is neither copied nor taken back. Where nothing is declared nothing else is either.
fn uncopied(configuration: Option<PathBuf>, states: impl Iterator<Item = PathBuf>) -> Option<String> {
    let configuration = configuration.filter(|path| !path.as_os_str().is_empty())?;
    let states: Vec<PathBuf> = states.collect();
    if states.is_empty() || states.iter().any(|state| configuration.starts_with(state)) {
        return None;
    }
    Some(format!(
        "{CONFIGURATION} is {}, which lies in no declared `state`: it would be neither copied nor taken back. Name it in `env`, by \
         an absolute path, and let `state` have {{ path = \"{{env:{CONFIGURATION}}}\", kind = \"files\" }} (the preset has it where `env` \
         names it and `state` is left out)",
        configuration.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const PRESET: &str =
        "[service.gate]\npreset = \"openclaw\"\nnode = \"/opt/node\"\nlisten = \"127.0.0.1:18789\"\n";
    const STATELESS: &str = "[service.gate]\nsource = { npm = \"openclaw\" }\nlisten = \"127.0.0.1:18789\"\n\
         command = [\"/opt/node\", \"{root}/dist/index.js\", \"--port\", \"{port}\"]\n";
    const HELLO: &str = "probe = { ready = \"/readyz\", version = { openclaw = \"{env:TOKEN}\" } }\n";
    const OTHER: &str = "probe = { ready = \"/readyz\", version = { http = \"/version\" } }\n";

    fn told(text: &str) -> Option<String> {
        parse(Path::new("cutover.toml"), text).err().map(|error| error.to_string())
    }

    #[test]
    fn a_gateway_is_not_restarted_by_a_signal_with_and_without_state_and_preset() {
        let signal = "strategy = \"signal\"\n";
        for text in [format!("{PRESET}{signal}"), format!("{STATELESS}{HELLO}{signal}")] {
            let told = told(&text).expect("must be refused");
            assert!(
                told.contains("service.gate.strategy: an OpenClaw gateway is not restarted by"),
                "{told}"
            );
            assert!(told.contains("write \"stop-start\""), "{told}");
        }
        assert_eq!(told(&format!("{STATELESS}{OTHER}{signal}")), None, "others may be");
        assert_eq!(told(&format!("{PRESET}strategy = \"stop-start\"\n")), None);
    }

    #[test]
    fn a_configuration_that_would_not_be_taken_back_is_refused_with_what_to_write() {
        let named = "[service.gate.env]\nOPENCLAW_STATE_DIR = \"/var/claw\"\nOPENCLAW_CONFIG_PATH = \"/etc/claw.json\"\n";
        let state = |more: &str| {
            format!("{PRESET}state = [{{ path = \"/var/claw\", kind = \"files\" }}{more}]\n{named}")
        };
        let why = told(&state("")).expect("must be refused");
        assert!(why.contains("service.gate.state: OPENCLAW_CONFIG_PATH is /etc/claw.json"), "{why}");
        assert!(why.contains("{ path = \"{env:OPENCLAW_CONFIG_PATH}\", kind = \"files\" }"), "{why}");
        assert_eq!(told(&state(", { path = \"{env:OPENCLAW_CONFIG_PATH}\", kind = \"files\" }")), None);
        assert_eq!(told(&format!("{PRESET}{named}")), None, "the preset has it");
        assert_eq!(told(&format!("{STATELESS}{HELLO}{named}")), None, "nothing else is taken back either");
    }

    #[test]
    fn a_configuration_that_a_file_of_variables_names_is_covered_or_refused() {
        let settings = parse(
            Path::new("cutover.toml"),
            &format!("{PRESET}env = {{ OPENCLAW_STATE_DIR = \"/var/claw\" }}\n"),
        );
        let gate = settings.unwrap_or_else(|error| panic!("{error}")).services["gate"].clone();
        let with =
            |path: &str| uncovered(&gate, &BTreeMap::from([(CONFIGURATION.to_owned(), path.to_owned())]));
        assert!(with("/etc/claw.json").is_some_and(|why| why.starts_with("service.gate.state: ")));
        assert_eq!((with("/var/claw/own.json"), uncovered(&gate, &BTreeMap::new())), (None, None));
    }
}
