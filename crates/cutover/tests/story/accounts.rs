//! Whose processes they are: a plain user's daemon without root, and a service of another account under root's.

use crate::stage::{
    LIMIT, assert_told, executable, get, post, reported, serving, unserved, update, with_policy,
};
use cutover::demo::{Plan, World};
use cutover_core::{Resolution, Status};
use sample_gateway::Knobs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

const STATE: &str = r#"env = { SAMPLE_STATE = "{world}/data" }
state = [{ path = "{world}/data/state.db", kind = "sqlite" }]"#;

/// `nobody` and its group, by number.
const NOBODY: u32 = 65_534;

/// Whether the story can be told here, or why not.
fn can_drop(story: &str) -> bool {
    let why = if !rustix::process::geteuid().is_root() {
        "it takes root to become another account"
    } else if Command::new("setpriv").arg("--version").output().is_err() {
        "setpriv is not installed"
    } else {
        return true;
    };
    println!("skipped: {story}: {why}");
    false
}

/// A directory that every account can reach, with a copy of the program in it.
fn common_ground() -> anyhow::Result<(tempfile::TempDir, PathBuf)> {
    let ground = tempfile::Builder::new().prefix("cutover-ground-").tempdir()?;
    std::fs::set_permissions(ground.path(), std::fs::Permissions::from_mode(0o777))?;
    let program = ground.path().join("cutover");
    std::fs::copy(executable(), &program)?;
    Ok((ground, program))
}

fn owner_of(pid: u32) -> anyhow::Result<u32> {
    Ok(std::fs::metadata(format!("/proc/{pid}"))?.uid())
}

fn hand_over(world: &World) -> anyhow::Result<()> {
    for path in [world.path(), &world.releases(), &world.config(), &world.path().join("data")] as [&Path; 4] {
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_user_installs_updates_rolls_back_and_recovers_without_root() -> anyhow::Result<()> {
    if !can_drop("a_plain_user_installs_updates_rolls_back_and_recovers_without_root") {
        return Ok(());
    }
    let (_ground, program) = common_ground()?;
    let through = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"].map(str::to_owned);
    let state = r#"env = { SAMPLE_STATE = "{world}/data" }
state = [{ path = "{world}/data/state.db", kind = "sqlite" }]"#;
    let plan = Plan {
        through: through.into(),
        service: with_policy(state, &[("start_deadline", "\"4s\"")]),
        place: Some(_ground.path().to_owned()),
        ..Plan::new(program)
    };
    let broken = Knobs { never_ready: true, migrate_to: Some(2), ..Knobs::default() };
    let mut world =
        unserved(plan, &[("1.0.0", Knobs::default()), ("2.0.0", Knobs::default()), ("3.0.0", broken)])?;
    hand_over(&world)?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    let first = serving(&world, "1.0.0").await?;
    assert_eq!(owner_of(first.process.unwrap().pid)?, NOBODY);
    assert_eq!(post(&world, "/state", "mine").await?.status, 200);
    assert_told(&update(&world, "2.0.0").await?, Status::RestartVerified, Resolution::None, 0);
    assert_told(&update(&world, "3.0.0").await?, Status::RestartFailed, Resolution::OldVerified, 4);
    serving(&world, "2.0.0").await?;
    assert_eq!(get(&world, "/state").await?.json()["lastText"], "mine");
    // Its tree is changed and its source is gone: maintenance, and the way out.
    let (release, away) = (world.releases().join("2.0.0"), world.path().join("away"));
    std::fs::rename(&release, &away)?;
    let chunk = std::fs::read_dir(world.generation(2).join("core/chunks"))?.flatten().next().unwrap().path();
    std::fs::set_permissions(&chunk, std::fs::Permissions::from_mode(0o644))?;
    std::fs::write(&chunk, "a foreign hand")?;
    world
        .until("maintenance", |view| view.report.phase == "maintenance" || view.report.recovery.len() == 1)
        .await?;
    world.until("the command", |view| view.report.recovery == [world.typed("recover web --retry")]).await?;
    std::fs::rename(&away, &release)?;
    let retried = reported(&world, &["recover", "web", "--retry"]).await?;
    assert_told(&retried, Status::RestartVerified, Resolution::None, 0);
    tokio::time::timeout(LIMIT, serving(&world, "2.0.0")).await??;
    Ok(())
}

#[test]
fn a_plain_user_without_a_home_is_told_which_flag_to_use_and_nothing_is_guessed() -> anyhow::Result<()> {
    if !can_drop("a_plain_user_without_a_home_is_told_which_flag_to_use_and_nothing_is_guessed") {
        return Ok(());
    }
    let (ground, program) = common_ground()?;
    let config = ground.path().join("cutover.toml");
    std::fs::write(&config, "[service]\n")?;
    let temporary = ground.path().join("tmp");
    std::fs::create_dir(&temporary)?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o1777))?;
    let cutover = |words: &[&str]| {
        let mut command = Command::new("timeout");
        command
            .args(["20", "setpriv"])
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&program)
            .args(words);
        for name in ["HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "CUTOVER_CONFIG", "CUTOVER_STATE"] {
            command.env_remove(name);
        }
        command.env("TMPDIR", &temporary).output()
    };
    let config = config.display().to_string();
    let state = ground.path().join("state").display().to_string();
    for (words, code, told) in [
        (&["serve"][..], 2, "--config"),
        (&["--config", &config, "serve"], 2, "--state"),
        (&["status"], 2, "--state"),
        (&["--state", &state, "start", "web"], 7, "no daemon answers"),
        (&["--config", &config, "config", "check"], 0, "valid"),
        (&["config", "schema"], 0, "properties"),
    ] {
        let output = cutover(words)?;
        let said = crate::stage::told(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert!(said.contains(told), "{words:?}: {said}");
    }
    assert!(!temporary.join("cutover").exists(), "nothing where everybody would look");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_root_daemon_the_service_runs_as_its_own_account_and_the_front_knows_it() -> anyhow::Result<()>
{
    if !can_drop("under_a_root_daemon_the_service_runs_as_its_own_account_and_the_front_knows_it") {
        return Ok(());
    }
    let (ground, program) = common_ground()?;
    let plan = Plan {
        service: with_policy("user = \"nobody\"\nstrategy = \"signal\"", &[]),
        place: Some(ground.path().to_owned()),
        ..Plan::new(program)
    };
    let mut world = unserved(plan, &[("1.0.0", Knobs::default()), ("2.0.0", Knobs::default())])?;
    std::fs::set_permissions(world.path(), std::fs::Permissions::from_mode(0o755))?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    let first = serving(&world, "1.0.0").await?;
    assert_eq!(owner_of(first.process.unwrap().pid)?, NOBODY);
    assert_eq!(get(&world, "/").await?.status, 200, "the front's check of the listener's owner passes");
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let second = serving(&world, "2.0.0").await?;
    assert_eq!(owner_of(second.process.unwrap().pid)?, NOBODY);
    let log = crate::stage::service_log(&world);
    assert!(log.contains("authorized by the intent"), "the intent is its own: {log}");
    let private = std::fs::metadata(world.state().join("journal.sqlite"))?.permissions().mode();
    assert_eq!(private & 0o077, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_root_daemon_restored_state_is_still_the_services_own() -> anyhow::Result<()> {
    if !can_drop("under_a_root_daemon_restored_state_is_still_the_services_own") {
        return Ok(());
    }
    let (ground, program) = common_ground()?;
    let service = format!("user = \"nobody\"\n{STATE}");
    let plan = Plan {
        service: with_policy(&service, &[("start_deadline", "\"4s\"")]),
        place: Some(ground.path().to_owned()),
        ..Plan::new(program)
    };
    let broken = Knobs { never_ready: true, migrate_to: Some(2), ..Knobs::default() };
    let mut world = unserved(plan, &[("1.0.0", Knobs::default()), ("2.0.0", broken)])?;
    std::fs::set_permissions(world.path(), std::fs::Permissions::from_mode(0o755))?;
    chown(world.path().join("data"), Some(NOBODY), Some(NOBODY))?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    serving(&world, "1.0.0").await?;
    assert_eq!(post(&world, "/state", "one").await?.status, 200);
    assert_told(&update(&world, "2.0.0").await?, Status::RestartFailed, Resolution::OldVerified, 4);
    serving(&world, "1.0.0").await?;
    let written = post(&world, "/state", "two").await?;
    assert_eq!((written.status, &written.json()["rows"]), (200, &2.into()), "{written:?}");
    Ok(())
}

/// What the service writes is in a database beside which it makes files of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_runs_as_the_service_s_own_account_whoever_runs_the_daemon() -> anyhow::Result<()> {
    let story = "a_rehearsal_runs_as_the_service_s_own_account_whoever_runs_the_daemon";
    if !can_drop(story) || !crate::rehearsal::isolates(story) {
        return Ok(());
    }
    let dropped = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"].map(str::to_owned);
    for (through, user) in [(Vec::new(), "user = \"nobody\"\n"), (dropped.to_vec(), "")] {
        let (ground, program) = common_ground()?;
        let service = with_policy(&format!("{user}{STATE}"), &[("rehearse", "\"auto\"")]);
        let plan = Plan { through, service, place: Some(ground.path().to_owned()), ..Plan::new(program) };
        let owned = Knobs { append_at_start: Some("/etc/cutover-test".into()), ..Knobs::default() };
        let mut world = unserved(plan, &[("1.0.0", Knobs::default()), ("2.0.0", owned.clone())])?;
        world.publish("3.0.0", Knobs { crash_after_ms: Some(0), ..owned })?;
        match user {
            "" => hand_over(&world)?,
            _ => {
                std::fs::set_permissions(world.path(), std::fs::Permissions::from_mode(0o755))?;
                chown(world.path().join("data"), Some(NOBODY), Some(NOBODY))?;
            }
        }
        world.start_daemon().await?;
        world.install("1.0.0").await?;
        assert_eq!(post(&world, "/state", "one").await?.status, 200);
        let updated = update(&world, "2.0.0").await?;
        assert_told(&updated, Status::RestartVerified, Resolution::None, 0);
        let how = crate::rehearsal::outcome(&updated.0);
        assert!(how.starts_with("2.0.0 started in isolation on a copy of the state"), "{how}");
        let refused = update(&world, "3.0.0").await?;
        assert_told(&refused, Status::UpdateFailed, Resolution::OldVerified, 3);
        let detail = &refused.0.causes[0].fault.detail;
        let is_denied = |why: &&str| detail.contains(&format!("/etc/cutover-test: {why}"));
        assert!(["Permission denied", "Read-only file system"].iter().any(is_denied), "{detail}");
        assert_eq!(get(&world, "/state").await?.json()["rows"], 1);
    }
    Ok(())
}
