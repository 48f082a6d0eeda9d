//! Getting in and out.

use crate::viewer::{House, Viewer, is_asked_for, rules};
use sample_gateway::Knobs;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_or_used_token_is_told_and_how_to_get_in_is_said() -> anyhow::Result<()> {
    if !is_asked_for("a wrong token is told") {
        return Ok(());
    }
    let house = House::new(&rules("", &[]), &[("1.0.0", Knobs::default())]).await?;
    let page = format!("http://{}/", house.address);
    let mut viewer = house.tab(&page).await?;
    viewer.reads("cutover open").await?;
    viewer.pictures("login").await?;
    viewer.is_usable().await?;
    viewer.is_content();
    let mut wrong = house.tab(&format!("{page}#token=guess")).await?;
    wrong.reads("this token is not valid").await?;
    assert_eq!(wrong.tab.evaluate("location.href").await?, json!(page), "the token is taken out");
    // A used one is as wrong as a guessed one.
    let opened = house.opened().await?;
    let mut first = house.tab(&opened).await?;
    first.sees("the services", "document.querySelector('.card')").await?;
    assert_eq!(first.tab.evaluate("location.href").await?, json!(page));
    let readable = first.tab.evaluate("document.cookie").await?;
    assert_eq!(readable, json!(""), "no script reads the cookie");
    first.is_content();
    let mut second = house.tab(&opened).await?;
    second.reads("this token is not valid").await?;
    // The long-lived one is pasted into the field.
    let own = std::fs::read_to_string(house.world.state().join("token"))?;
    second.tab.press("#token").await?;
    second.tab.enter(own.trim()).await?;
    second.press("Log in").await?;
    second.sees("the services", "document.querySelector('.card')").await?;
    second.complains_of_answers_alone();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_in_one_tab_ends_what_the_other_one_shows() -> anyhow::Result<()> {
    if !is_asked_for("logging out ends every tab") {
        return Ok(());
    }
    let house = House::new(&rules("", &[]), &[("1.0.0", Knobs::default())]).await?;
    let mut one = house.visit().await?;
    // The same browser needs no second token.
    let mut two = house.tab(&format!("http://{}/#/web", house.address)).await?;
    two.marked("nothing installed").await?;
    logs_out(&mut one, &mut two).await
}

/// Logs out in one tab, which ends what the other one shows.
async fn logs_out(here: &mut Viewer, there: &mut Viewer) -> anyhow::Result<()> {
    here.press("Log out").await?;
    here.reads("You are logged out.").await?;
    there.reads("not logged in any more").await?;
    let known = there.text_of(".card").await? + &there.text_of("dl").await?;
    assert_eq!(known, "", "nothing is left of what it knew");
    here.complains_of_answers_alone();
    there.complains_of_answers_alone();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tab_goes_on_under_a_later_login_of_its_browser_and_ends_with_it() -> anyhow::Result<()> {
    if !is_asked_for("a later login takes every tab along") {
        return Ok(());
    }
    let house = House::new(&rules("", &[]), &[("1.0.0", Knobs::default())]).await?;
    let mut one = house.visit().await?;
    one.marked("nothing installed").await?;
    // A token of its own, in the same browser.
    let mut two = house.visit().await?;
    two.marked("nothing installed").await?;
    house.world.install("1.0.0").await?;
    assert_eq!(one.marked("verified").await?, "good", "it hears the daemon still, or again");
    logs_out(&mut two, &mut one).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_means_nothing_leads_in_all_the_same() -> anyhow::Result<()> {
    if !is_asked_for("an address that means nothing leads in") {
        return Ok(());
    }
    let house = House::new(&rules("", &[]), &[("1.0.0", Knobs::default())]).await?;
    let mut viewer = house.tab(&format!("http://{}/#/%", house.address)).await?;
    viewer.reads("cutover open").await?;
    viewer.is_content();
    let mut viewer = house.visit().await?;
    viewer.tab.evaluate("void (location.hash = '#/%/run/%')").await?;
    viewer.reads("There is no such service.").await?;
    viewer.is_content();
    Ok(())
}
