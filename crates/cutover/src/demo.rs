//! The demonstration: the whole story on the sample service, on a temporary state directory, with a real daemon process.
//! It is also a test: `--scripted` runs every scenario under load and says whether all came out right.

mod guided;
mod hunt;
mod killing;
mod scenario;
mod script;
mod world;

pub use hunt::{Hunt, PHASES, Phase, interrupted};
pub use world::{Plan, Reach, SERVICE, World, free_address};

use crate::cli::{ExitStatus, outlet};
use anyhow::Context;
use std::future::Future;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Flags of `cutover demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Run every scenario under load, print a table, and end.
    #[arg(long)]
    pub scripted: bool,
    /// Only these scenarios of the script.
    #[arg(long, value_name = "NAME", requires = "scripted")]
    pub only: Vec<String>,
    /// Print one JSON line a scenario instead of the table.
    #[arg(long, requires = "scripted")]
    pub lines: bool,
    /// Where raw request logs are kept; thrown away otherwise.
    #[arg(long, value_name = "DIR", requires = "scripted")]
    pub logs: Option<std::path::PathBuf>,
}

pub(crate) async fn command(arguments: &Arguments) -> anyhow::Result<ExitStatus> {
    let story = async { if arguments.scripted { script::run(arguments).await } else { guided::run().await } };
    // However the person goes, nothing that was started stays: worlds end what they started when they are dropped.
    tokio::select! {
        ended = story => ended,
        told = told_to_end() => {
            outlet::result("\nEnding everything …");
            told.map(|()| ExitStatus::Done)
        }
        () = outlet::unread() => Ok(ExitStatus::Done),
    }
}

async fn told_to_end() -> anyhow::Result<()> {
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<Result<Vec<Signal>, _>>()
        .context("listening for signals")?;
    let mut waiting: Vec<_> = signals.iter_mut().map(|signal| Box::pin(signal.recv())).collect();
    std::future::poll_fn(|context| {
        let told = waiting.iter_mut().any(|signal| signal.as_mut().poll(context).is_ready());
        if told { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    Ok(())
}
