//! The command line: arguments, wiring, exit codes, words for people. Must not decide anything about an update.

mod arguments;
mod client;
mod exit;
mod follow;
mod offline;
mod orders;
mod print;
mod serve;

pub use client::Client;
pub use exit::ExitStatus;
pub use serve::{Serving, serve};

use crate::config::{Account, Layout, Settings};
use arguments::{Arguments, Command, ConfigCommand};
use clap::Parser;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the program. Hidden halves (keeper, exec, front, sample gateway) are dispatched before anything else is set up.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    let rest = || args.iter().skip(2).cloned().collect::<Vec<_>>();
    match args.get(1).and_then(|word| word.to_str()) {
        Some("keeper") => return crate::supervisor::keeper::main(rest()),
        Some("exec") => return crate::supervisor::launch::main(rest()),
        Some("front") => return crate::front_process::main(rest()),
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
        Ok(status) => status.into(),
        Err(error) => {
            eprintln!("cutover: {error:#}");
            exit::of_error(&error).into()
        }
    }
}

/// Directories and settings as the arguments name them.
pub(crate) struct Scene {
    pub layout: Layout,
    pub config: PathBuf,
    pub json: arguments::Output,
}

impl Scene {
    fn of(arguments: &Arguments) -> Self {
        let env = |name: &str| std::env::var_os(name);
        let account = if rustix::process::geteuid().is_root() { Account::Root } else { Account::User };
        let mut layout = Layout::default_for(&env, account);
        if let Some(state) = &arguments.state {
            layout = Layout { state: state.clone(), runtime: state.join("run") };
        }
        if let Some(runtime) = &arguments.runtime {
            layout.runtime.clone_from(runtime);
        }
        let config = arguments.config.clone().unwrap_or_else(|| Layout::config_file(&env, account));
        let json = if arguments.json { arguments::Output::Json } else { arguments::Output::Text };
        Self { layout, config, json }
    }

    fn settings(&mut self, arguments: &Arguments) -> anyhow::Result<Settings> {
        let settings = crate::config::load(&self.config)?;
        if arguments.state.is_none()
            && let Some(state) = &settings.daemon.state
        {
            self.layout = Layout { state: state.clone(), runtime: state.join("run") };
        }
        if arguments.runtime.is_none()
            && let Some(runtime) = &settings.daemon.runtime
        {
            self.layout.runtime.clone_from(runtime);
        }
        Ok(settings)
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitStatus> {
    let mut scene = Scene::of(&arguments);
    match &arguments.command {
        Command::Serve { stop_services } => {
            let settings = scene.settings(&arguments)?;
            let end = if *stop_services { serve::End::StopServices } else { serve::End::LeaveServices };
            return serve::command(settings, scene.layout, end).await;
        }
        Command::Demo(demo) => return crate::demo::command(demo).await,
        Command::Config { command } => return config(&mut scene, &arguments, command),
        _ => {}
    }
    // The file says where the daemon's directories are; without one the defaults hold.
    if scene.config.exists() {
        scene.settings(&arguments)?;
    }
    orders::command(&scene, arguments.command).await
}

fn config(scene: &mut Scene, arguments: &Arguments, command: &ConfigCommand) -> anyhow::Result<ExitStatus> {
    match command {
        ConfigCommand::Check => {
            let settings = scene.settings(arguments)?;
            let names: Vec<&str> = settings.services.keys().map(String::as_str).collect();
            println!("{}: valid; services: {}", scene.config.display(), names.join(", "));
        }
        ConfigCommand::Schema => println!("{:#}", crate::config::schema()),
    }
    Ok(ExitStatus::Done)
}
