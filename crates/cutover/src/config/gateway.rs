//! What is known of OpenClaw's gateway alone: which services are one, and what would go wrong with one.
//!
//! Knows its variables and signals. Must not know what an update is.

use super::complaint::Complaint;
use super::fragment::{ButtonFragment, DeclaredBy, Preset, Service, StrategyFragment};
use super::settings::{Button, ServiceSettings, StateSettings, VersionSettings};
use super::template::located;
use crate::resolved::real;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where its state lies.
pub(crate) const STATE: &str = "OPENCLAW_STATE_DIR";
/// Where its configuration lies, if not in its state.
pub(crate) const CONFIGURATION: &str = "OPENCLAW_CONFIG_PATH";

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

/// Where the state of a service lies that is one, by its whole environment.
pub(crate) fn state_of(service: &ServiceSettings, env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let state = env.get(STATE).filter(|path| is_gateway(service) && !path.is_empty())?;
    Some(located(Path::new(state), env))
}

/// What a file says of a gateway that would go wrong.
pub(super) fn refused(service: &Service) -> Option<Complaint> {
    (is_openclaw(service) && matches!(service.strategy, Some(StrategyFragment::Signal))).then(|| {
        let problem = "an OpenClaw gateway is not restarted by SIGUSR1 or SIGUSR2: depending on its version that opens a \
                       debugger in it, or has it begin anew in the same process, with the same code; write \"stop-start\", or leave \
                       this key out";
        Complaint::new("strategy", problem)
    })
}

/// Sees to it that a gateway's configuration, where its whole environment `env` has it elsewhere than in its state, is taken back
/// with the state. `service` has every home filled in. An entry for one that lies in other state is none, and so is one that
/// nobody could lay back, as `obstacle` tells of a path, unless the file itself has it: that is for the preflight to refuse.
/// Answers why it is not taken back.
///
/// # Errors
/// It would be neither copied nor taken back, in words with its key.
pub fn cover(
    service: &mut ServiceSettings,
    env: &BTreeMap<String, String>,
    obstacle: impl Fn(&Path) -> Option<String>,
) -> Result<Option<String>, String> {
    let configuration = env.get(CONFIGURATION).filter(|path| is_gateway(service) && !path.is_empty());
    let Some(configuration) = configuration.map(|path| real(&located(Path::new(path), env))) else {
        return Ok(None);
    };
    // What is mended is the configuration, by its real name; the preset takes it to lie in the state.
    let usual = state_of(service, env).map(|state| state.join("openclaw.json"));
    for file in service.repair.iter_mut().flat_map(|repair| &mut repair.files) {
        if real(file) == configuration || usual.as_ref() == Some(file) {
            file.clone_from(&configuration);
        }
    }
    let is_own = |state: &StateSettings| real(&state.path) == configuration;
    let holds_it = |state: &StateSettings| configuration.starts_with(real(&state.path));
    if service.state.iter().any(|state| holds_it(state) && !is_own(state)) {
        service.state.retain(|state| !is_own(state));
        return Ok(None);
    }
    // By its real name: a link in its place is not what is laid back.
    for state in service.state.iter_mut().filter(|state| real(&state.path) == configuration) {
        state.path.clone_from(&configuration);
    }
    let is_declared = |state: &StateSettings| is_own(state) && state.by == DeclaredBy::File;
    // Where nothing is declared nothing else is taken back either.
    if service.state.is_empty() || service.state.iter().any(is_declared) {
        return Ok(None);
    }
    if let Some(why) = obstacle(&configuration) {
        service.state.retain(|state| !is_own(state));
        service.repair = service
            .repair
            .take()
            .filter(|repair| repair.files.iter().all(|file| real(file) != configuration));
        return Ok(Some(why));
    }
    if service.state.iter().any(is_own) {
        return Ok(None);
    }
    Err(format!(
        "service.{0}.state: {CONFIGURATION} is {1}, which lies in no declared `state`: it would be neither copied nor taken back. Add \
         {{ path = \"{1}\", kind = \"files\" }} to `state`; or, where the preset declares all of it, leave `state` out and let `env` have \
         {CONFIGURATION} = \"{1}\"",
        service.name,
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
    fn a_configuration_is_taken_back_with_the_state_wherever_it_lies_or_nothing_is_begun() {
        let ground = tempfile::tempdir().unwrap();
        let claw = ground.path().join("claw");
        std::fs::create_dir(&claw).unwrap();
        let link = ground.path().join("link");
        std::os::unix::fs::symlink(&claw, &link).unwrap();
        let (claw, link) = (claw.display().to_string(), link.display().to_string());
        let covered = |states: &[&str], configuration: &str, obstacle: Option<&str>| {
            let entry = |path: &&str| format!("{{ path = \"{path}\", kind = \"files\" }}");
            let states = states.iter().map(entry).collect::<Vec<_>>().join(", ");
            let settings =
                parse(Path::new("cutover.toml"), &format!("{STATELESS}{HELLO}state = [{states}]\n"));
            let mut gate = settings.unwrap_or_else(|error| panic!("{error}")).services["gate"].clone();
            let env = [(STATE, claw.as_str()), (CONFIGURATION, configuration)];
            let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            cover(&mut gate, &env, |_| obstacle.map(str::to_owned))
                .map(|why| (gate.state.len(), why.is_none()))
        };
        let inside = format!("{link}/own.json");
        assert_eq!(covered(&[&claw], &inside, None), Ok((1, true)), "it is in it, by another name");
        assert_eq!(
            covered(&[&link, &inside], &inside, None),
            Ok((1, true)),
            "an entry within another is none"
        );
        assert_eq!(covered(&[&claw], "{env:OPENCLAW_STATE_DIR}/x.json", None), Ok((1, true)));
        assert_eq!(covered(&[&claw, "/etc/claw.json"], "/etc/claw.json", None), Ok((2, true)));
        let why = covered(&[&claw], "/etc/claw.json", None).unwrap_err();
        assert!(why.starts_with("service.gate.state: OPENCLAW_CONFIG_PATH is /etc/claw.json"), "{why}");
        assert!(why.contains("{ path = \"/etc/claw.json\", kind = \"files\" }"), "{why}");
        assert!(why.contains("OPENCLAW_CONFIG_PATH = \"/etc/claw.json\""), "{why}");
        let mounted = Some("a mount point");
        let told = covered(&[&claw], "/etc/claw.json", mounted);
        assert_eq!(told, Ok((1, false)), "nobody could lay it back, and nobody has said that one could");
        let told = covered(&[&claw, "/etc/claw.json"], "/etc/claw.json", mounted);
        assert_eq!(told, Ok((2, true)), "the preflight refuses what is declared");
        assert_eq!(covered(&[&claw], "", None), Ok((1, true)));
    }

    #[test]
    fn a_link_to_the_configuration_is_led_to_the_file_that_is_laid_back() {
        let ground = tempfile::tempdir().unwrap();
        let ground = ground.path().canonicalize().unwrap();
        let (claw, file) = (ground.join("claw"), ground.join("claw.json"));
        std::fs::create_dir(&claw).unwrap();
        std::fs::write(&file, "{}").unwrap();
        for link in [claw.join("openclaw.json"), ground.join("link.json")] {
            std::os::unix::fs::symlink(&file, &link).unwrap();
            let text = format!(
                "{PRESET}state = [{{ path = \"{{env:{STATE}}}\", kind = \"files\" }}, {{ path = \"{{env:{CONFIGURATION}}}\", kind = \"files\" }}]\n\
                 [service.gate.env]\n{STATE} = \"{}\"\n{CONFIGURATION} = \"{}\"\n",
                claw.display(),
                link.display()
            );
            let mut gate = parse(Path::new("cutover.toml"), &text).unwrap().services["gate"].clone();
            let env = gate.env.clone();
            assert_eq!(cover(&mut gate, &env, |_| None), Ok(None));
            let paths: Vec<&Path> = gate.state.iter().map(|state| state.path.as_path()).collect();
            assert_eq!(paths, [claw.as_path(), &file]);
            assert_eq!(gate.repair.unwrap().files, [file.as_path()]);
        }
    }

    #[test]
    fn a_configuration_that_only_a_file_of_variables_names_is_what_is_mended() {
        let declared = format!(
            "{PRESET}state = [{{ path = \"/srv/claw\", kind = \"files\" }}, {{ path = \"/srv/claw.json\", kind = \"files\" }}]\n\
             [service.gate.env]\n{STATE} = \"/srv/claw\"\n"
        );
        let mut gate = parse(Path::new("cutover.toml"), &declared).unwrap().services["gate"].clone();
        let mut env = gate.env.clone();
        env.insert(CONFIGURATION.to_owned(), "/srv/claw.json".to_owned());
        let files = gate.repair.as_mut().map(|repair| &mut repair.files).unwrap();
        files.iter_mut().for_each(|file| *file = located(file, &env));
        assert_eq!(*files, [Path::new("/srv/claw/openclaw.json")]);
        assert_eq!(cover(&mut gate, &env, |_| None), Ok(None));
        assert_eq!(gate.repair.unwrap().files, [Path::new("/srv/claw.json")]);
    }

    #[test]
    fn what_the_preset_alone_declares_is_told_where_nobody_could_lay_it_back() {
        let covered = |more: &str| {
            let text = format!("{PRESET}{more}[service.gate.env]\n{CONFIGURATION} = \"/etc/claw.json\"\n");
            let settings = parse(Path::new("cutover.toml"), &text);
            let mut gate = settings.unwrap_or_else(|error| panic!("{error}")).services["gate"].clone();
            let env = gate.env.clone();
            let why = cover(&mut gate, &env, |_| Some("a mount point".to_owned())).unwrap();
            (gate.state.len(), gate.repair.is_some(), why)
        };
        assert_eq!(covered(""), (1, false, Some("a mount point".to_owned())));
        let own = format!(
            "state = [{{ path = \"{{env:{STATE}}}\", kind = \"files\" }}, {{ path = \"{{env:{CONFIGURATION}}}\", kind = \"files\" }}]\n"
        );
        assert_eq!(covered(&own), (2, true, None));
    }
}
