//! The update as its users order it: two programs with the public client press the gateway's own button at the same time.

use super::ground::{Ground, INSTALL};
use super::world::{RUN, TOKEN, World};
use cutover_core::{Report, RunId};
use cutover_testkit::openclaw::{self, StockClient};
use serde_json::{Value, json};

/// How often the daemon looks for what is published, from its next start on.
const LOOKS: &str = "5s";

/// Before the daemon is started: it offers what is published.
pub(crate) fn is_offering(world: &World) {
    world.configure(|service| {
        service.insert("check_every".into(), LOOKS.into());
    });
}

/// Publishes `version` as the latest, waits until the gateway's clients are offered it, and has two of them press. Both
/// are told the same of one run, which succeeds.
pub(crate) async fn by_two(world: &World, ground: &Ground, version: &str) -> Report {
    let client = StockClient::kept_in(&openclaw::cache(), &ground.runtime, INSTALL).await.unwrap();
    ground.registry.tag("openclaw", "latest", version);
    world.until("the offer", |view| view.available.as_ref().is_some_and(|it| it.version == version)).await;
    let homes = [(); 2].map(|()| tempfile::tempdir_in(world.path()).unwrap());
    let [one, two] = homes.each_ref().map(|home| client.press(world.front[0], TOKEN, home.path(), RUN));
    let (one, two) = tokio::join!(one, two);
    let [one, two] = [one, two].map(|told| followed(&told.unwrap(), version));
    assert_eq!(one, two, "each of them began a run");
    world.end_of(&one).await
}

/// The run that a client was told of, to its success.
fn followed(told: &[Value], version: &str) -> RunId {
    let under = |name: &str| {
        told.iter().find_map(|told| told.get(name)).unwrap_or_else(|| panic!("{name}: {told:#?}"))
    };
    let pressed = under("pressed");
    let scheduled = json!("package_updated_restart_scheduled");
    assert_eq!((&pressed["ok"], &pressed["status"]), (&json!(false), &scheduled), "{told:#?}");
    let run = under("run");
    assert_eq!((&run["runId"], &run["status"]), (&pressed["runId"], &json!("succeeded")), "{told:#?}");
    assert_eq!(run["after"]["version"], json!(version), "{told:#?}");
    serde_json::from_value(run["runId"].clone()).unwrap()
}
