//! The page's files as files.

use crate::viewer::{LOOK, is_asked_for, runtime, tools};
use std::path::Path;
use tokio::process::Command;

#[tokio::test]
async fn the_page_s_files_keep_their_types() -> anyhow::Result<()> {
    if !is_asked_for("the page's files keep their types") {
        return Ok(());
    }
    let (runtime, modules) = (runtime().await?, tools().await?);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/page");
    let mut tsc = Command::new(runtime.node());
    tsc.arg(modules.join("typescript/bin/tsc")).arg("--project").arg(page).kill_on_drop(true);
    let checked = tokio::time::timeout(LOOK, tsc.output()).await??;
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    Ok(())
}
