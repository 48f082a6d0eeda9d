//! The demonstration: the whole story on the sample service, on a temporary state directory.

use crate::cli::ExitStatus;

/// Flags of `cutover demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Run every scenario under load, print a table, and end.
    #[arg(long)]
    pub scripted: bool,
}

pub(crate) async fn command(_arguments: &Arguments) -> anyhow::Result<ExitStatus> {
    anyhow::bail!("not yet")
}
