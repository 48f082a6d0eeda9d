//! The hidden half `cutover front`: arguments in, the front's own loop on.

use clap::Parser;
use cutover_front::{Limits, Notice, Options, Patience};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(name = "cutover front", no_binary_name = true)]
struct Arguments {
    #[arg(long)]
    service: String,
    #[arg(long)]
    control: PathBuf,
    #[arg(long)]
    probe: PathBuf,
    #[arg(long)]
    held_max: usize,
    #[arg(long)]
    hold_ms: u64,
}

/// Runs a front until it is told to end.
#[must_use]
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("CUTOVER_LOG").unwrap_or_else(|_| "warn".into());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    let notice = Notice::unexplained(&arguments.service);
    let options = Options {
        service: arguments.service,
        control: arguments.control,
        probe: arguments.probe,
        patience: Patience { limit: Duration::from_millis(arguments.hold_ms), notice },
        limits: Limits { held_max: arguments.held_max, ..Limits::default() },
    };
    match cutover_front::process::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the front ended");
            ExitCode::FAILURE
        }
    }
}
