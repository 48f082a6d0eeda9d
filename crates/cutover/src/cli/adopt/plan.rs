//! What `adopt` prints: what was found and where, what would be written, what would be done, and what it would cost.

use super::super::arguments::Output;
use super::super::exit::ExitStatus;
use super::super::outlet;
use super::Desk;
use super::plugins::{self, Taken};
use super::takeover::Takeover;
use crate::shell::shown;
use crate::store::ImportedPlugin;
use crate::store::snapshot::{self, StatePath};
use serde_json::json;
use std::fmt::Write as _;

/// Something found, and where.
struct Finding {
    what: &'static str,
    value: String,
    source: String,
}

/// Prints the plan. Nothing is changed.
pub(super) fn print(desk: &Desk, takeover: &Takeover, again: &str) -> ExitStatus {
    let findings = findings(takeover);
    let (applying, undoing) = (applying(desk, takeover), undoing(takeover));
    let gap = gap(takeover);
    if desk.scene.json == Output::Json {
        let found: Vec<_> = findings
            .iter()
            .map(|finding| json!({ "what": finding.what, "value": finding.value, "source": finding.source }))
            .collect();
        let plan = json!({
            "service": takeover.name,
            "found": found,
            "configuration": { "path": takeover.files[0].path, "text": takeover.files[0].text },
            "environment": {
                "path": takeover.files[1].path,
                "names": takeover.carried.variables.keys().collect::<Vec<_>>(),
                "left": takeover.carried.left,
                "unwritable": takeover.carried.unwritable,
            },
            "apply": applying,
            "undo": undoing,
            "gap": gap,
            "notes": takeover.notes(),
            "obstacle": takeover.obstacle,
        });
        outlet::result(format_args!("{plan:#}"));
    } else {
        outlet::result(text(takeover, &findings, &applying, &undoing, &gap, again));
    }
    if takeover.obstacle.is_none() { ExitStatus::Done } else { ExitStatus::UpdateFailed }
}

fn text(
    takeover: &Takeover,
    findings: &[Finding],
    applying: &[String],
    undoing: &[String],
    gap: &str,
    again: &str,
) -> String {
    let mut text = String::from("Found, from the running process\n");
    for Finding { what, value, source } in findings {
        let _ = writeln!(text, "  {what:<12} {value}  ({source})");
    }
    let (config, secret) = (&takeover.files[0], &takeover.files[1]);
    let _ = writeln!(text, "\nWould be written: {}\n", config.path.display());
    for line in config.text.lines() {
        let _ = writeln!(text, "  {line}");
    }
    let names: Vec<&str> = takeover.carried.variables.keys().map(String::as_str).collect();
    let _ = writeln!(
        text,
        "\nWould be written, for its owner only: {}\n  the token, and of its environment {}",
        secret.path.display(),
        names.join(", ")
    );
    if !takeover.carried.unwritable.is_empty() {
        let _ = writeln!(
            text,
            "  not carried over, since a line of a file cannot hold it: {}",
            takeover.carried.unwritable.join(", ")
        );
    }
    for (title, steps) in [("--apply would, in this order", applying), ("--undo would", undoing)] {
        let _ = writeln!(text, "\n{title}");
        for (at, step) in steps.iter().enumerate() {
            let _ = writeln!(text, "  {}. {step}", at + 1);
        }
    }
    for note in takeover.notes() {
        let _ = write!(text, "\nnote: {note}");
    }
    let _ = write!(text, "\n\nThe gap: {gap}\n\nNothing was changed. `{again}` does it.");
    text
}

fn findings(takeover: &Takeover) -> Vec<Finding> {
    let old = &takeover.predecessor;
    let pid = old.instance.pid;
    let proc = |name: &str| format!("/proc/{pid}/{name}");
    let addresses: Vec<String> = old.addresses.iter().map(ToString::to_string).collect();
    let mut found = Vec::new();
    let mut add = |what, value: String, source: String| found.push(Finding { what, value, source });
    add("process", format!("pid {pid}, uid {}", old.account.uid), proc("status"));
    add("listens on", addresses.join(", "), "the kernel's tables of sockets".into());
    add("program", old.program.display().to_string(), proc("exe"));
    add("script", old.entry.display().to_string(), format!("{}, resolved", takeover.command_source));
    add(
        "package",
        format!("{} {} in {}", old.package.name, old.package.version, old.package.root.display()),
        "its package.json".into(),
    );
    add("directory", old.cwd.display().to_string(), proc("cwd"));
    let lies = &takeover.whereabouts;
    add("state", lies.state.display().to_string(), lies.source.clone());
    if let Some(path) = lies.elsewhere() {
        let is = match &takeover.uncovered {
            None => "outside of its state, and copied and taken back with it".to_owned(),
            Some(why) => format!("outside of its state, and NOT COVERED: {why}"),
        };
        add("configured", format!("{}, {is}", path.display()), lies.source.clone());
    }
    add("token", "[hidden]".into(), takeover.token_source.clone());
    match &old.unit {
        Some(unit) => {
            let enabled = if unit.is_enabled { "enabled" } else { "not enabled" };
            let file = unit.file.as_ref().map_or_else(String::new, |file| format!(", {}", file.display()));
            add("kept by", format!("{} ({enabled}{file})", unit.name), unit.command("show"));
        }
        None => {
            let parent = old.parent.as_ref().map_or_else(|| "init".to_owned(), Clone::clone);
            add(
                "kept by",
                format!("nobody known; its parent is {parent}"),
                "systemctl --user show, systemctl show, /proc".into(),
            );
        }
    }
    let says = match &takeover.obstacle {
        None => format!("{}, ready", old.package.version),
        Some(why) => format!("NOT AS ITS PACKAGE: {why}; --apply refuses: restart it, then look again"),
    };
    add("says", says, "its hello, and /readyz".into());
    let source = |plugin: &ImportedPlugin| format!("its hello, and {}", plugin.project.display());
    for Taken { plugin, .. } in &takeover.plugins.taken {
        let ImportedPlugin { package, version, .. } = plugin;
        let follows = match *version == old.package.version {
            true => "follows the gateway's version from then on",
            false => "stays in this version until another is named in the file",
        };
        add("plugin", format!("{package} {version} comes along, and {follows}"), source(plugin));
    }
    for (plugin, why) in &takeover.plugins.left {
        add("plugin", plugins::stays(plugin, why), source(plugin));
    }
    if !takeover.options.is_empty() {
        add("options", takeover.options.join(" "), "carried over into `command`".into());
    }
    found
}

fn applying(desk: &Desk, takeover: &Takeover) -> Vec<String> {
    let old = &takeover.predecessor;
    let import = &takeover.import;
    let projects = import.plugins.iter().map(|plugin| plugin.project.as_path());
    let from: Vec<String> = std::iter::once(import.project().unwrap_or(&old.package.root))
        .chain(projects)
        .map(|path| path.display().to_string())
        .collect();
    let from = from.join(" and ");
    let size = import.size().map_or_else(
        |_| "of unknown size".to_owned(),
        |(bytes, files)| format!("{} MB, {files} files", bytes / 1_000_000),
    );
    let grace = takeover.settings.policy.stop_grace;
    let pid = old.instance.pid;
    let end = match &old.unit {
        Some(unit) => format!("`{}`", unit.command("stop")),
        None => format!("TERM to pid {pid}, KILL after {grace:?}"),
    };
    let unit = old.unit.as_ref().filter(|unit| unit.is_enabled);
    let settle = unit
        .map(|unit| format!("`{}`: it starts no more {}", unit.command("disable"), unit.manager.starts()));
    let state = takeover.settings.state.iter();
    let copied: Vec<String> = state.map(|state| state.path.display().to_string()).collect();
    let listen: Vec<String> = takeover.settings.listen.iter().map(ToString::to_string).collect();
    let mut steps = vec![
        format!(
            "begin a record beside the service, {}, which each further step is written to first",
            desk.service().join("predecessor.jsonl").display()
        ),
        "write the two files; one that is there already is not overwritten".into(),
        format!("copy {from} ({size}) to a sealed generation, while the old process serves"),
        "start the daemon (one that runs has to be ended first: it had no such service when it began)".into(),
        format!("begin a run: preflight of that generation, copy of {}", copied.join(" and ")),
        format!("(the gap begins) {end}; it is proven gone; no file of it is changed"),
        format!("put a front on {}: from here requests wait", listen.join(", ")),
    ];
    let aside = |plugin: &ImportedPlugin| {
        format!("put {} aside, beside a link to its copy; --undo puts it back", plugin.root().display())
    };
    steps.extend(import.plugins.iter().map(aside));
    steps.push(format!(
        "start the generation on a port of its own, prove that it is {} (the gap ends), watch it",
        old.package.version
    ));
    steps.extend(settle);
    steps.push("if anything fails: give it back, as --undo does".into());
    steps
}

fn undoing(takeover: &Takeover) -> Vec<String> {
    let old = &takeover.predecessor;
    let back = match &old.unit {
        Some(unit) if unit.is_enabled => {
            format!("`{}`, `{}`", unit.command("enable"), unit.command("start"))
        }
        Some(unit) => format!("`{}`", unit.command("start")),
        None => format!(
            "start `{}` again, in {} and with its own environment",
            shown(&old.command),
            old.cwd.display()
        ),
    };
    vec![
        "end the daemon, the front and the generation's process; the daemon is started again if it has other services".into(),
        back,
        format!("prove that {} answers on {} as {}", old.package.name, old.addresses[0], old.package.version),
        "remove the two files, if they are as they were written; the copied generation stays".into(),
    ]
}

fn gap(takeover: &Takeover) -> String {
    let paths = takeover.settings.state.iter();
    let paths: Vec<_> = paths.map(StatePath::from).collect();
    let state = snapshot::estimate(&paths).map_or_else(
        |_| "state of unknown size".to_owned(),
        |size| format!("{} files of state, {} MB, of which what changed", size.files, size.bytes / 1_000_000),
    );
    let policy = &takeover.settings.policy;
    format!(
        "the old process's stop ({:?} at most), {state}, is copied, a start and its first proof (2026.5: 4 s to 8 s, 2026.9: 10 s to \
         54 s). As soon as the old process gives its address up requests wait at the front, {:?} at most; what it had taken and not \
         answered is cut. --apply measures and tells it.",
        policy.stop_grace, policy.hold
    )
}
