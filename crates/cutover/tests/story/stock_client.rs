//! Programs of other people press the button through the public client, which nobody adapted to us.

use crate::button::{FOLLOWS, offering, presses, slow};
use crate::stage::{LIMIT, starts_of};
use cutover_testkit::openclaw::{self, Runtime, StockClient};
use cutover_testkit::slow as slow_set;
use sample_gateway::Knobs;
use serde_json::{Value, json};
use std::time::Duration;

const INSTALL: Duration = Duration::from_secs(300);

async fn stock_client() -> anyhow::Result<StockClient> {
    let cache = openclaw::cache();
    let runtime = Runtime::kept_in(&cache, INSTALL).await?;
    StockClient::kept_in(&cache, &runtime, INSTALL).await
}

/// What a client was told under a name, in order.
fn under<'t>(told: &'t [Value], name: &str) -> Vec<&'t Value> {
    told.iter().filter_map(|told| told.get(name)).collect()
}

/// Two programs press together: one run, both follow it to its end and are told the same by the same names.
async fn pressed_by_two(next: Knobs) -> anyhow::Result<(Vec<Value>, usize)> {
    let client = stock_client().await?;
    let world = offering(FOLLOWS, next).await?;
    let homes = [tempfile::tempdir()?, tempfile::tempdir()?];
    let press = |home: &tempfile::TempDir| {
        let (client, home) = (client.clone(), home.path().to_owned());
        async move { client.press(world.address, "", &home, LIMIT).await }
    };
    let (one, two) = tokio::join!(press(&homes[0]), press(&homes[1]));
    let told = [one?, two?];
    assert_eq!(presses(&world).await?, 1);
    for told in &told {
        let pressed = under(told, "pressed")[0];
        let (ok, status) = (&pressed["ok"], &pressed["status"]);
        assert_eq!((ok, status), (&json!(false), &json!("package_updated_restart_scheduled")), "{told:#?}");
        assert_eq!(under(told, "run").len(), 1, "{told:#?}");
        assert!(!under(told, "changed").is_empty(), "no event came: {told:#?}");
        assert!(!under(told, "disconnected").is_empty(), "it stayed with a process that is gone: {told:#?}");
    }
    let [one, two] = told.map(|told| under(&told, "run")[0].clone());
    assert_eq!(one["runId"], two["runId"]);
    Ok((vec![one, two], starts_of(&world, "2.0.0")))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_programs_with_the_public_client_press_together_and_see_the_run_succeed() -> anyhow::Result<()> {
    if !slow_set::is_asked_for("real", "the public client is installed by npm") {
        return Ok(());
    }
    let (runs, starts) = pressed_by_two(slow(FOLLOWS)).await?;
    assert_eq!(starts, 1);
    for run in runs {
        assert_eq!(
            (&run["status"], &run["after"]["version"]),
            (&json!("succeeded"), &json!("2.0.0")),
            "{run:#}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_does_not_prove_itself_is_told_to_the_public_client_as_rolled_back()
-> anyhow::Result<()> {
    if !slow_set::is_asked_for("real", "the public client is installed by npm") {
        return Ok(());
    }
    let wrong = Knobs { report_version: Some("1.9.9".into()), ..slow(FOLLOWS) };
    let (runs, starts) = pressed_by_two(wrong).await?;
    assert_eq!(starts, 1);
    for run in runs {
        assert_eq!(
            (&run["status"], &run["after"]["version"]),
            (&json!("rolled-back"), &json!(null)),
            "{run:#}"
        );
    }
    Ok(())
}
