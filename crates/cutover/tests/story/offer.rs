//! What is on offer: when it is looked at, what it says of itself, and what is no offer any more.

use crate::stage::{serving, told, update, view, with_policy, world};
use cutover::demo::{SERVICE, World};
use sample_gateway::Knobs;
use serde_json::{Value, json};

/// 1.0.0 serves, 2.0.0 has notes. The channel is looked at when somebody asks, or something moved, and not by the clock.
async fn noted() -> anyhow::Result<World> {
    let releases = [("1.0.0", Knobs::default()), ("2.0.0", Knobs::default())];
    let world = world(&with_policy("check_every = \"100h\"", &[]), &releases).await?;
    let notes = "# Changelog\n\n## [2.0.0] - 2026-01-01\n\n- \u{1b}[1mfaster\n\n## [1.0.0]\n\n- began\n";
    std::fs::write(world.releases().join("2.0.0/CHANGELOG.md"), notes)?;
    Ok(world)
}

async fn look(world: &World) -> anyhow::Result<Value> {
    let answer = world.client().call("versions.available", json!({ "service": SERVICE })).await?;
    Ok(answer["available"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_release_says_is_new_in_it_is_told_with_the_offer_the_plan_and_what_is_kept()
-> anyhow::Result<()> {
    let world = noted().await?;
    world.name_latest("2.0.0")?;
    assert_eq!(look(&world).await?["notes"], "- [1mfaster", "without what a terminal would obey");
    let planned = told(&world.cutover(&["plan", SERVICE]).await?);
    assert!(planned.contains("\nwhat 2.0.0 says is new in it:\n  - [1mfaster"), "{planned}");
    let kept = world.client().call("generations.list", json!({ "service": SERVICE })).await?;
    let notes: Vec<&Value> =
        kept["generations"].as_array().unwrap().iter().map(|kept| &kept["notes"]).collect();
    assert_eq!(notes, [&Value::Null, &json!("- [1mfaster")], "{kept}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_to_another_version_is_none_and_what_became_current_is_looked_at_from() -> anyhow::Result<()>
{
    let world = noted().await?;
    world.publish("3.0.0", Knobs::default())?;
    world.name_latest("2.0.0")?;
    assert_eq!(look(&world).await?["version"], "2.0.0");
    assert!(view(&world).await?.available.is_some_and(|offer| offer.version == "2.0.0"));
    assert!(update(&world, "3.0.0").await?.0.ok);
    serving(&world, "3.0.0").await?;
    assert_eq!(
        view(&world).await?.available,
        None,
        "2.0.0 would be a step back, which an update does not take"
    );
    // Nobody asks again, and the clock does not come to it.
    world.publish("4.0.0", Knobs::default())?;
    world.publish("5.0.0", Knobs::default())?;
    world.name_latest("5.0.0")?;
    assert!(update(&world, "4.0.0").await?.0.ok);
    world
        .until("5.0.0", |view| view.available.as_ref().is_some_and(|offer| offer.version == "5.0.0"))
        .await?;
    Ok(())
}
