//! x
use crate::cli::ExitStatus;
pub(super) async fn run(_: &super::Arguments) -> anyhow::Result<ExitStatus> {
    anyhow::bail!("not yet")
}
