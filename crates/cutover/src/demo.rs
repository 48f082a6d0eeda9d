//! The demonstration: the whole story on the sample service, on a temporary state directory, with a real daemon process.
//! It is also a test: `--scripted` runs every scenario under load and says whether all came out right.

mod guided;
mod scenario;
mod script;
mod world;

use crate::cli::ExitStatus;

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
    if arguments.scripted { script::run(arguments).await } else { guided::run().await }
}
