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

pub use client::Client;
pub use exit::ExitStatus;
pub use serve::{Serving, serve};

use crate::config::{Account, Layout, ServiceSettings, Settings};
use arguments::{Arguments, Command, ConfigCommand};
use clap::Parser;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
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
    fn of(arguments: &Arguments, settings: Option<&Settings>) -> Result<Self, crate::config::Error> {
        let layout = layout(arguments.state.as_ref(), arguments.runtime.as_ref(), settings)?;
        let json = if arguments.json { arguments::Output::Json } else { arguments::Output::Text };
        Ok(Self { layout, json })
    }
}

/// Where things lie: as arguments name it, else as the file does, else as usual.
fn layout(
    state: Option<&PathBuf>,
    runtime: Option<&PathBuf>,
    settings: Option<&Settings>,
) -> Result<Layout, crate::config::Error> {
    let daemon = settings.map(|settings| &settings.daemon);
    let state = state.or(daemon.and_then(|daemon| daemon.state.as_ref()));
    let runtime = runtime.or(daemon.and_then(|daemon| daemon.runtime.as_ref()));
    let mut layout = match state {
        Some(state) => Layout { state: state.clone(), runtime: state.join("run") },
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
            let layout = Scene::of(&arguments, Some(&settings))?.layout;
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
    let settings = config.map(|config| crate::config::load(&config)).transpose()?;
    orders::command(&Scene::of(&arguments, settings.as_ref())?, arguments.command).await
}

fn config(arguments: &Arguments, command: &ConfigCommand) -> anyhow::Result<ExitStatus> {
    match command {
        ConfigCommand::Check => {
            let path = config_file(arguments)?;
            let settings = crate::config::load(&path)?;
            scripts(&path, &settings)?;
            accounts(&path, &settings)?;
            tellings(&path, &settings)?;
            let names: Vec<&str> = settings.services.keys().map(String::as_str).collect();
            outlet::result(format_args!("{}: valid; services: {}", path.display(), names.join(", ")));
            settings
                .services
                .values()
                .flat_map(crate::config::noted)
                .for_each(|note| outlet::result(format_args!("note: {note}")));
        }
        ConfigCommand::Show => outlet::raw(crate::config::shown(&config_file(arguments)?)?),
        ConfigCommand::Schema => outlet::result(format_args!("{:#}", crate::config::schema())),
    }
    Ok(ExitStatus::Done)
}

/// Refuses users and groups that this machine does not have. Whether they may be taken on is seen by whoever serves.
fn accounts(path: &Path, settings: &Settings) -> Result<(), crate::config::Error> {
    use crate::supervisor::{Error, Identity};
    let problem = |service: &ServiceSettings| {
        let error = Identity::resolve(service.user.as_deref(), service.group.as_deref()).err()?;
        let key = match &error {
            Error::NotRoot { .. } => return None,
            Error::UnknownGroup { .. } | Error::GroupMissing { .. } => "group",
            _ => "user",
        };
        Some(format!("  service.{}.{key}: {}", service.name, crate::causes::told(&error)))
    };
    let problems: Vec<String> = settings.services.values().filter_map(problem).collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(crate::config::Error::Check { path: path.to_owned(), problems })
}

/// Refuses those who are told and could not be.
fn tellings(path: &Path, settings: &Settings) -> Result<(), crate::config::Error> {
    let problems: Vec<String> = settings.services.values().flat_map(crate::config::untellable).collect();
    if problems.is_empty() {
        return Ok(());
    }
    let problems = problems.into_iter().map(|problem| format!("  {problem}")).collect();
    Err(crate::config::Error::Check { path: path.to_owned(), problems })
}

/// Refuses programs that are scripts, as far as they lie outside a release.
fn scripts(path: &Path, settings: &Settings) -> Result<(), crate::config::Error> {
    let search = std::env::var("PATH").ok().map(|search| ("PATH".to_owned(), search));
    let problem = |service: &ServiceSettings| {
        let mut env: BTreeMap<String, String> = search.iter().cloned().collect();
        env.extend(service.env.clone());
        crate::config::scripted(service, &env)
    };
    let problems: Vec<String> =
        settings.services.values().filter_map(problem).map(|problem| format!("  {problem}")).collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(crate::config::Error::Check { path: path.to_owned(), problems })
}
