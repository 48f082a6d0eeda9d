//! From a fragment to the settings of a service.

use super::clearance::clearance;
use super::complaint::{Complaint, keep};
use super::fragment::{
    ButtonFragment, ForwardedFragment, InputsFragment, OneOrMany, PolicyFragment, PortFragment,
    ScriptsFragment, Service, Source, StateFragment, StateKind, StrategyFragment, WebSocketFragment,
};
use super::idle::idle;
use super::notify::notify;
use super::plugins::plugins;
use super::policy::policy;
use super::question::questions;
use super::repair::repair;
use super::settings::{
    Button, Port, Scripts, ServiceSettings, SourceSettings, StateSettings, VersionSettings, WebSocketSettings,
};
use super::template::{HOME, located};
use super::weight::weights;
use cutover_core::{Clearance, Intake, Policy, Strategy};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How often the followed channel is looked at without a word about it.
const CHECK_EVERY: Duration = Duration::from_secs(3600);

/// Checks one service; what is wrong is named by its keys.
pub(super) fn service(name: &str, fragment: Service) -> Result<ServiceSettings, Vec<Complaint>> {
    let mut complaints = Vec::new();
    name_is_plain(name, &mut complaints);
    let source = keep(source(&fragment.source), &mut complaints);
    let plugins = keep(plugins(&fragment), &mut complaints);
    let version = keep(version(&fragment), &mut complaints);
    let notify = keep(notify("notify", &fragment.notify), &mut complaints).unwrap_or_default();
    let websocket = keep(websocket(&fragment), &mut complaints).flatten();
    let listen = keep(addresses(fragment.listen.as_ref()), &mut complaints).unwrap_or_default();
    let port = keep(port(fragment.port.as_ref()), &mut complaints).unwrap_or(Port::Auto);
    let entry = keep(entry(&fragment), &mut complaints).unwrap_or_default();
    rules(&fragment, &listen, port, &mut complaints);
    complaints.extend(super::trust::exposed(&fragment, &listen));
    complaints.extend(super::gateway::refused(&fragment));
    let intake = intake(fragment.inputs, &listen);
    let clearance = clearance(&fragment.policy).unwrap_or_else(|more| {
        complaints.extend(more);
        Clearance::default()
    });
    let policy = Policy { clearance, ..policy(&fragment.policy, &fragment) };
    let questions = keep(questions(&fragment.preflight.data), &mut complaints).unwrap_or_default();
    let idle = keep(idle(&fragment), &mut complaints).flatten();
    let repair = keep(repair(&fragment), &mut complaints).flatten();
    let state = fragment.state.iter().map(|state| state_settings(state, &fragment.env)).collect();
    let (Some(source), Some(version), true) = (source, version, complaints.is_empty()) else {
        return Err(complaints);
    };
    Ok(ServiceSettings {
        name: name.to_owned(),
        source,
        plugins: plugins.unwrap_or_default(),
        command: fragment.command,
        entry,
        listen,
        port,
        user: fragment.user,
        group: fragment.group,
        cwd: fragment.cwd.unwrap_or_else(|| "{root}".into()),
        env: fragment.env,
        env_file: fragment.env_file,
        node: fragment.node,
        strategy: strategy(fragment.strategy),
        forwarded: forwarded(fragment.forwarded),
        intake,
        button: button(fragment.update_button),
        check_every: Some(fragment.check_every.map_or(CHECK_EVERY, |span| span.0))
            .filter(|every| !every.is_zero()),
        live: fragment.probe.live,
        ready: fragment.probe.ready,
        page: fragment.probe.page,
        websocket,
        version,
        idle,
        probe_headers: fragment.probe.headers,
        probe_timeout: fragment.probe.timeout.map_or(Duration::from_secs(5), |span| span.0),
        state,
        notify,
        policy,
        restart_prevent_exit_status: fragment.policy.restart_prevent_exit_status,
        restart_force_exit_status: fragment.policy.restart_force_exit_status,
        preflight: weights(&fragment.preflight),
        validate: fragment.preflight.validate,
        repair,
        questions,
        held_max: fragment.policy.held_max.unwrap_or(4096),
        log_size: fragment.policy.log_size.map_or(10 << 20, |size| size.0),
        log_files: fragment.policy.log_files.unwrap_or(5),
    })
}

fn intake(inputs: Option<InputsFragment>, listen: &[SocketAddr]) -> Intake {
    match inputs {
        _ if listen.is_empty() => Intake::Direct,
        Some(InputsFragment::Own) => Intake::Own,
        Some(InputsFragment::Front) | None => Intake::Front,
    }
}

fn name_is_plain(name: &str, complaints: &mut Vec<Complaint>) {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 40 || !name.chars().all(plain) || name.starts_with('-') {
        complaints.push(Complaint::new("", "a service's name is made of a-z, 0-9 and -, at most 40 of them"));
    }
}

fn source(source: &Source) -> Result<SourceSettings, Complaint> {
    let channel = source.channel.clone().unwrap_or_else(|| "latest".into());
    match (&source.directory, &source.npm) {
        (Some(directory), None) if directory.is_absolute() => {
            Ok(SourceSettings::Directory { directory: directory.clone(), channel })
        }
        (Some(_), None) => Err(Complaint::new("source.directory", "write an absolute path")),
        (None, Some(package)) => Ok(SourceSettings::Npm {
            package: package.clone(),
            channel,
            registry: source.registry.clone(),
            npm: source.npm_command.clone(),
            scripts: match source.scripts {
                Some(ScriptsFragment::On) => Scripts::On,
                Some(ScriptsFragment::Own) => Scripts::Own,
                Some(ScriptsFragment::Off) | None => Scripts::Off,
            },
        }),
        _ => Err(Complaint::new("source", "name exactly one of `directory` and `npm`")),
    }
}

fn version(service: &Service) -> Result<VersionSettings, Complaint> {
    let version = &service.probe.version;
    let (build, instance) = (version.build.clone(), version.instance.clone());
    let is_known =
        version.pointer.is_none() && build.is_none() && instance.is_none() && version.plugins.is_none();
    match (&version.http, &version.openclaw) {
        (Some(path), None) if path.starts_with('/') => Ok(VersionSettings::Http {
            path: path.clone(),
            pointer: version.pointer.clone().unwrap_or_else(|| "/version".into()),
            build,
            instance,
            plugins: version.plugins.clone(),
        }),
        (Some(_), None) => Err(Complaint::new("probe.version.http", "a path begins with /")),
        (None, Some(token)) if is_known => Ok(VersionSettings::OpenClaw { token: token.clone() }),
        (None, Some(_)) => Err(Complaint::new(
            "probe.version",
            "with `openclaw` leave the pointers out: it is known where its handshake has them",
        )),
        _ => Err(Complaint::new(
            "probe.version",
            "name exactly one of `http` and `openclaw`: without the service's own answer nothing can be proven",
        )),
    }
}

fn websocket(service: &Service) -> Result<Option<WebSocketSettings>, Complaint> {
    let Some(WebSocketFragment { path, pointer, equals }) = &service.probe.websocket else { return Ok(None) };
    let complaint = |key: &str, problem: &str| Err(Complaint::new(format!("probe.websocket{key}"), problem));
    if service.probe.version.openclaw.is_some() {
        return complaint(
            "",
            "leave it out: OpenClaw's handshake begins with that frame, and is asked already",
        );
    }
    if !path.starts_with('/') {
        return complaint(".path", "a path begins with /");
    }
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return complaint(".pointer", "a JSON pointer begins with /, for example \"/event\"");
    }
    Ok(Some(WebSocketSettings { path: path.clone(), pointer: pointer.clone(), equals: equals.clone() }))
}

fn addresses(listen: Option<&OneOrMany>) -> Result<Vec<SocketAddr>, Complaint> {
    let texts: Vec<String> = match listen {
        None => Vec::new(),
        Some(OneOrMany::One(text)) => vec![text.clone()],
        Some(OneOrMany::Many(texts)) => texts.clone(),
    };
    texts
        .iter()
        .map(|text| {
            text.parse().map_err(|_| {
                Complaint::new(
                    "listen",
                    format!("`{text}` is not an address; write for example \"127.0.0.1:8080\""),
                )
            })
        })
        .collect()
}

fn port(port: Option<&PortFragment>) -> Result<Port, Complaint> {
    match port {
        None => Ok(Port::Auto),
        Some(PortFragment::Word(word)) if word == "auto" => Ok(Port::Auto),
        Some(PortFragment::Number(number)) if *number > 0 => Ok(Port::Fixed(*number)),
        Some(_) => Err(Complaint::new("port", "write a number from 1 to 65535, or \"auto\"")),
    }
}

/// The first word below `{root}` is the code that runs.
fn entry(service: &Service) -> Result<String, Complaint> {
    if service.command.is_empty() {
        return Err(Complaint::new("command", "name a program"));
    }
    if let Some(entry) = &service.entry {
        return match entry.starts_with("{root}/") {
            true => Ok(entry.clone()),
            false => Err(Complaint::new(
                "entry",
                "begin it with `{root}/`: a file elsewhere does not prove which release runs",
            )),
        };
    }
    service.command.iter().find(|word| word.starts_with("{root}/")).cloned().ok_or_else(|| {
        Complaint::new(
            "command",
            "no word begins with `{root}/`: nothing would prove which code runs; or name `entry`",
        )
    })
}

/// Rules that concern several keys at once.
fn rules(service: &Service, listen: &[SocketAddr], port: Port, complaints: &mut Vec<Complaint>) {
    if listen.is_empty() && port == Port::Auto {
        complaints
            .push(Complaint::new("port", "without `listen` clients use the service's own port: name it"));
    }
    if listen.is_empty() && button(service.update_button).is_some() {
        complaints.push(Complaint::new(
            "update_button",
            "the button is answered in the front, which needs `listen`; name the addresses or leave this key out",
        ));
    }
    let port_is_passed =
        service.command.iter().chain(service.env.values()).any(|word| word.contains("{port}"));
    if port == Port::Auto && !port_is_passed {
        complaints.push(Complaint::new(
            "command",
            "`{port}` appears neither here nor in `env`: the service would not learn its port",
        ));
    }
    let asked = service.preflight.data.iter().map(|question| ("preflight.data", &question.ask));
    let commands = [("command", &service.command), ("preflight.validate", &service.preflight.validate)];
    let mends = service.preflight.repair.iter().map(|repair| ("preflight.repair.run", &repair.run));
    for (key, words) in commands.into_iter().chain(asked).chain(mends) {
        if words.iter().any(|word| word.contains("{node}")) && service.node.is_none() {
            let problem = format!("`{{node}}` is used in `{key}`: name the interpreter's path");
            complaints.push(Complaint::new("node", problem));
        }
    }
    if matches!(service.strategy, Some(StrategyFragment::Signal)) && !service.state.is_empty() {
        complaints.push(Complaint::new(
            "strategy",
            "`signal` cannot copy declared state while the service is stopped; use \"stop-start\"",
        ));
    }
    if service.probe.live.is_none() && service.probe.ready.is_none() {
        complaints.push(Complaint::new("probe", "name at least one of `live` and `ready`"));
    }
    if service.state.is_empty() && !service.preflight.data.is_empty() {
        complaints
            .push(Complaint::new("preflight.data", "no `state` is declared that it could be asked about"));
    }
    for (at, state) in service.state.iter().enumerate() {
        let path = located(&state.path, &service.env);
        if !path.is_absolute() && !path.starts_with(HOME) {
            let problem =
                "write an absolute path, or one that begins with {home}/ or {env:NAME}, a variable in `env`";
            complaints.push(Complaint::new(format!("state[{at}].path"), problem));
        }
    }
    let PolicyFragment { restart_prevent_exit_status: prevent, restart_force_exit_status: force, .. } =
        &service.policy;
    if let Some(code) = force.iter().find(|code| prevent.contains(code)) {
        let problem = format!("{code} stands in `restart_prevent_exit_status` too: it can mean one of them");
        complaints.push(Complaint::new("policy.restart_force_exit_status", problem));
    }
    if service.policy.streak == Some(0) {
        complaints.push(Complaint::new("policy.streak", "at least one passing round proves a process"));
    }
}

fn button(button: Option<ButtonFragment>) -> Option<Button> {
    match button {
        Some(ButtonFragment::OpenClaw) => Some(Button::OpenClaw),
        Some(ButtonFragment::None) | None => None,
    }
}

fn strategy(strategy: Option<StrategyFragment>) -> Strategy {
    match strategy {
        Some(StrategyFragment::Signal) => Strategy::Signal,
        Some(StrategyFragment::StopStart) | None => Strategy::StopStart,
    }
}

fn forwarded(forwarded: Option<ForwardedFragment>) -> cutover_front::Forwarded {
    match forwarded {
        None | Some(ForwardedFragment::None) => cutover_front::Forwarded::None,
        Some(ForwardedFragment::XForwarded) => cutover_front::Forwarded::XForwarded,
        Some(ForwardedFragment::XForwardedRemote) => cutover_front::Forwarded::XForwardedRemote,
        Some(ForwardedFragment::Rfc7239) => cutover_front::Forwarded::Rfc7239,
    }
}

fn state_settings(fragment: &StateFragment, env: &BTreeMap<String, String>) -> StateSettings {
    let kind = match fragment.kind {
        StateKind::Files => crate::store::snapshot::StateKind::Files,
        StateKind::Sqlite => crate::store::snapshot::StateKind::Sqlite,
    };
    StateSettings { path: located(&fragment.path, env), kind, by: fragment.by }
}
