//! The command line: arguments, wiring, exit codes, words for people. Must not decide anything about an update.

mod adopt;
mod arguments;
mod check;
mod client;
mod doors;
mod exit;
mod follow;
mod offline;
mod orders;
pub(crate) mod outlet;
mod print;
mod serve;
mod typed;

pub use client::Client;
pub use exit::ExitStatus;
pub use serve::{Serving, serve};

use crate::config::{Account, Directories, Layout, ServiceSettings};
use crate::supervisor::Identity;
use anyhow::bail;
use arguments::{Arguments, Command, ConfigCommand};
use clap::Parser;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the program. Hidden halves (keeper, exec, child, front, sandbox, rehearsal, sample gateway) come before anything is set up.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    let rest = || args.iter().skip(2).cloned().collect::<Vec<_>>();
    match args.get(1).and_then(|word| word.to_str()) {
        Some("keeper") => return crate::supervisor::keeper::main(rest()),
        Some("exec") => return crate::supervisor::launch::main(rest()),
        Some("child") => return crate::preflight::child(),
        Some("front") => return crate::front_process::main(rest()),
        Some(crate::rehearsal::NAME) => return crate::rehearsal::main(),
        Some(crate::sandbox::NAME) => return crate::sandbox::main(&rest()),
        Some("sample-gateway") => return sample_gateway::process::main(rest()),
        _ => {}
    }
    let arguments = match Arguments::try_parse_from(&args) {
        Ok(arguments) => arguments,
        Err(error) => {
            let help = !error.use_stderr();
            // Nothing better can be done about a closed terminal.
            let _ = error.print();
            return if help { ExitStatus::Done } else { ExitStatus::Usage }.into();
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(arguments)),
        Err(error) => Err(anyhow::Error::from(error).context("starting the event loop")),
    };
    match outcome {
        Ok(status) => match outlet::trouble() {
            // What was asked for is done; what is printed of it is what its caller waits for.
            Some(error) if status == ExitStatus::Done => {
                outlet::aside(format_args!(
                    "cutover: the result could not be written: {error}; free space there or name another place"
                ));
                ExitStatus::Bug.into()
            }
            _ => status.into(),
        },
        Err(error) => {
            outlet::aside(format_args!("cutover: {error:#}"));
            exit::of_error(&error).into()
        }
    }
}

/// Where things lie and how results are printed, as arguments, file and environment name it.
#[derive(Clone)]
pub(crate) struct Scene {
    pub layout: Layout,
    pub json: arguments::Output,
}

impl Scene {
    /// Arguments go before the file, the file before what is usual.
    fn of(arguments: &Arguments, file: &Directories) -> Result<Self, crate::config::Error> {
        let mut layout = layout(arguments.state.as_ref(), arguments.runtime.as_ref(), file)?;
        layout.flags = typed::flags(arguments, file);
        let json = if arguments.json { arguments::Output::Json } else { arguments::Output::Text };
        Ok(Self { layout, json })
    }
}

/// Where things lie: as arguments name it, else as the file does, else as usual.
fn layout(
    state: Option<&PathBuf>,
    runtime: Option<&PathBuf>,
    file: &Directories,
) -> Result<Layout, crate::config::Error> {
    let state = state.or(file.state.as_ref());
    let runtime = runtime.or(file.runtime.as_ref());
    let mut layout = match state {
        Some(state) => Layout::at(state.clone(), state.join("run")),
        None => Layout::default_for(&variable, account())?,
    };
    if let Some(runtime) = runtime {
        layout.runtime.clone_from(runtime);
    }
    Ok(layout)
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn account() -> Account {
    if rustix::process::geteuid().is_root() { Account::Root } else { Account::User }
}

fn config_file(arguments: &Arguments) -> Result<PathBuf, crate::config::Error> {
    match &arguments.config {
        Some(path) => Ok(path.clone()),
        None => Ok(Layout::config_file(&variable, account())?),
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitStatus> {
    match &arguments.command {
        Command::Serve { stop_services } => {
            let settings = crate::config::load(&config_file(&arguments)?)?;
            let layout = Scene::of(&arguments, &settings.daemon.directories)?.layout;
            let end = if *stop_services { serve::End::StopServices } else { serve::End::LeaveServices };
            return serve::command(settings, layout, end).await;
        }
        Command::Demo(demo) => return crate::demo::command(demo).await,
        Command::Config { command } => return config(&arguments, command),
        Command::Adopt(adopt) => return adopt::command(&arguments, adopt).await,
        Command::Check(check) => {
            let output = if arguments.json { arguments::Output::Json } else { arguments::Output::Text };
            return check::command(check.clone(), output).await;
        }
        _ => {}
    }
    // The file says where the daemon's directories are; without one the defaults hold.
    let config = config_file(&arguments).ok().filter(|config| config.exists());
    let file = match config.map(|config| crate::config::directories(&config)).transpose() {
        Ok(file) => file.unwrap_or_default(),
        Err(_) if arguments.state.is_some() => Directories::default(),
        Err(error) => return Err(error.into()),
    };
    orders::command(&Scene::of(&arguments, &file)?, arguments.command).await
}

fn config(arguments: &Arguments, command: &ConfigCommand) -> anyhow::Result<ExitStatus> {
    match command {
        ConfigCommand::Check => {
            let path = config_file(arguments)?;
            let settings = crate::config::load(&path)?;
            // Where there is no place for state none is begun, which `serve` says.
            let scene = Scene::of(arguments, &settings.daemon.directories).ok();
            let mut problems: Vec<String> = settings.services.values().flat_map(unfit).collect();
            let mut notes: Vec<String> = settings.services.values().flat_map(crate::config::noted).collect();
            let looked = settings
                .services
                .values()
                .filter_map(|service| Some(uncovered(service, &scene.as_ref()?.layout)));
            for looked in looked {
                match looked {
                    Ok(note) => notes.extend(note),
                    Err(error) => problems.push(format!("  {error:#}")),
                }
            }
            if !problems.is_empty() {
                bail!(crate::config::Error::Check { path, problems });
            }
            let names: Vec<&str> = settings.services.keys().map(String::as_str).collect();
            outlet::result(format_args!("{}: valid; services: {}", path.display(), names.join(", ")));
            notes.iter().for_each(|note| outlet::result(format_args!("note: {note}")));
        }
        ConfigCommand::Show => outlet::raw(crate::config::shown(&config_file(arguments)?)?),
        ConfigCommand::Schema => outlet::result(format_args!("{:#}", crate::config::schema())),
    }
    Ok(ExitStatus::Done)
}

/// What this machine does not have as a service wants it, each with its key. Whether its account may be taken on, and what
/// is not for this one to read, is seen by whoever serves.
fn unfit(service: &ServiceSettings) -> Vec<String> {
    let mut problems = crate::config::untellable(service);
    problems.extend(crate::config::unreadable(service));
    problems.extend(account_missing(service));
    let search = std::env::var("PATH").ok().map(|search| ("PATH".to_owned(), search));
    let mut env: BTreeMap<String, String> = search.into_iter().collect();
    env.extend(service.env.clone());
    problems.extend(crate::config::scripted(service, &env));
    problems.iter().map(|problem| format!("  {problem}")).collect()
}

/// Why a service's configuration would not be taken back with its state, as far as this account may see.
///
/// # Errors
/// A daemon would not begin it.
fn uncovered(service: &ServiceSettings, layout: &Layout) -> anyhow::Result<Option<String>> {
    let is_read = service.env_file.as_deref().is_none_or(|path| crate::config::variables(path).is_ok());
    let identity = Identity::resolve(service.user.as_deref(), service.group.as_deref());
    let Some(identity) = identity.ok().filter(|_| is_read) else { return Ok(None) };
    let inherited: Vec<_> = std::env::vars_os().collect();
    let snapshots = layout.service(&service.name).join("snapshots");
    let resolved = crate::conductor::resolved(service.clone(), identity.as_ref(), &inherited, &snapshots)?;
    Ok(resolved.uncovered.map(|why| {
        format!(
            "service.{}.state: the configuration is not covered, neither copied nor taken back: {why}",
            service.name
        )
    }))
}

fn account_missing(service: &ServiceSettings) -> Option<String> {
    use crate::supervisor::Error;
    let error = Identity::resolve(service.user.as_deref(), service.group.as_deref()).err()?;
    let key = match &error {
        Error::NotRoot { .. } => return None,
        Error::UnknownGroup { .. } | Error::GroupMissing { .. } => "group",
        _ => "user",
    };
    Some(format!("service.{}.{key}: {}", service.name, crate::causes::told(&error)))
}
