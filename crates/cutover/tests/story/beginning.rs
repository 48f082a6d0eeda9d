//! How a daemon begins and ends: nothing is touched before it can be reached, what it cannot use is told with what to type,
//! and what it could not stop is told.

use crate::stage::{
    LIMIT, assert_told, configure, get, is_alive, processes, serving, signal, told, update, with_policy,
    world,
};
use cutover::demo::{SERVICE, World, free_address};
use cutover_core::{Resolution, Status};
use rustix::fs::{FileType, Mode};
use rustix::process::Signal;
use sample_gateway::Knobs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

fn entries(world: &World) -> anyhow::Result<i64> {
    let journal = rusqlite::Connection::open(world.state().join("journal.sqlite"))?;
    Ok(journal.query_row("SELECT count(*) FROM entry", [], |row| row.get(0))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_address_is_taken_touches_no_run_however_often_it_is_started() -> anyhow::Result<()> {
    let slow = Knobs { boot_delay_ms: 1500, ..Knobs::default() };
    let mut world = world(&with_policy("", &[]), &[("1.0.0", Knobs::default()), ("2.0.0", slow)]).await?;
    serving(&world, "1.0.0").await?;
    let run = world.update("2.0.0").await?;
    world.until("the proof", |view| view.report.phase == "cutting over: prove").await?;
    world.kill_daemon()?;
    let before = entries(&world)?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let listen = format!("listen = \"{}\"", taken.local_addr()?);
    configure(&world, "listen = \"off\"", &listen)?;
    // Beginning another service takes as long as somebody writes to this: time enough for the first one to act.
    let pipe = world.path().join("slow.env");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR, 0)?;
    let config = std::fs::read_to_string(world.config())?;
    let web = config.split_once("[service.web]").unwrap().1;
    let other = free_address()?.to_string();
    let other = web.replace(&world.address.to_string(), &other);
    let slow = format!("{config}\n[service.zoo]\nenv_file = \"{}\"{other}", pipe.display());
    std::fs::write(world.config(), slow)?;
    for _ in 0..3 {
        let refused = tokio::time::timeout(Duration::from_secs(20), world.cutover(&["serve"])).await??;
        assert_eq!(refused.status.code(), Some(2), "{}", told(&refused));
        let address = taken.local_addr()?.to_string();
        assert!(told(&refused).contains(&address) && told(&refused).contains("name another address"));
    }
    assert_eq!(entries(&world)?, before, "no fact about the run was written");
    drop(taken);
    std::fs::write(world.config(), config)?;
    world.start_daemon().await?;
    let report = world.end_of(&run).await?;
    assert_eq!(report.status, Some(Status::RestartVerified), "{report:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_daemon_cannot_use_is_a_matter_of_usage_with_what_to_do_next() -> anyhow::Result<()> {
    let mut world = world(&with_policy("", &[]), &[("1.0.0", Knobs::default())]).await?;
    let second = world.cutover(&["serve"]).await?;
    assert_eq!(second.status.code(), Some(2), "{}", told(&second));
    assert!(told(&second).contains("another daemon runs on"), "{}", told(&second));
    let before = serving(&world, "1.0.0").await?.process;
    world.kill_daemon()?;
    let long = world.path().join("l".repeat(100)).display().to_string();
    let refused = world.cutover(&["--runtime", &long, "serve"]).await?;
    assert_eq!(refused.status.code(), Some(2), "{}", told(&refused));
    assert!(told(&refused).contains("name a shorter directory with --runtime"), "{}", told(&refused));
    std::fs::set_permissions(world.state(), std::fs::Permissions::from_mode(0o775))?;
    let refused = world.cutover(&["serve"]).await?;
    assert_eq!(refused.status.code(), Some(2), "{}", told(&refused));
    let command = format!("chmod go-w {}", world.state().display());
    assert!(told(&refused).contains(&command), "{}", told(&refused));
    std::fs::set_permissions(world.state(), std::fs::Permissions::from_mode(0o755))?;
    world.start_daemon().await?;
    assert_eq!(serving(&world, "1.0.0").await?.process, before, "nothing was touched meanwhile");
    Ok(())
}

/// The daemon's exit code after TERM.
async fn terminated(world: &mut World) -> anyhow::Result<Option<i32>> {
    let daemon = world.daemon_mut().expect("a daemon was started");
    signal(daemon.id(), Signal::TERM)?;
    let begun = Instant::now();
    loop {
        if let Some(status) = daemon.try_wait()? {
            return Ok(status.code());
        }
        anyhow::ensure!(begun.elapsed() < LIMIT, "the daemon does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_could_not_stop_its_service_says_so_and_leaves_the_front() -> anyhow::Result<()> {
    let mut world = world(&with_policy("", &[]), &[("1.0.0", Knobs::default())]).await?;
    let service = serving(&world, "1.0.0").await?.process.unwrap();
    let front = processes(&world, "front");
    // As long as the journal takes no entry no order to stop is taken either.
    let journal = rusqlite::Connection::open(world.state().join("journal.sqlite"))?;
    journal.execute_batch("BEGIN IMMEDIATE")?;
    assert_eq!(terminated(&mut world).await?, Some(8), "{}", world.tail_of_daemon_log());
    journal.execute_batch("ROLLBACK")?;
    drop(journal);
    assert!(is_alive(service.pid));
    assert_eq!(processes(&world, "front"), front);
    assert_eq!(get(&world, "/version").await?.json()["pid"], service.pid);
    let log = std::fs::read_to_string(world.daemon_log())?;
    let line = log.lines().find(|line| line.contains("not stopped")).unwrap_or_default();
    assert!(line.contains(&service.pid.to_string()), "the pid is told: {log}");
    // The next daemon takes it up and, unhindered, stops it.
    world.start_daemon().await?;
    serving(&world, "1.0.0").await?;
    assert_eq!(terminated(&mut world).await?, Some(0), "{}", world.tail_of_daemon_log());
    assert!(!is_alive(service.pid) && processes(&world, "front").is_empty());
    Ok(())
}

/// An executable script that runs what it is followed by.
fn script(path: &std::path::Path) -> anyhow::Result<()> {
    let _ = std::fs::remove_file(path);
    std::fs::write(path, "#!/bin/sh -e\nexec \"$@\"\n")?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_a_script_is_found_before_anything_stops() -> anyhow::Result<()> {
    let releases = [("1.0.0", Knobs::default()), ("2.0.0", Knobs::default())];
    let mut world = world(&with_policy("", &[]), &releases).await?;
    let before = serving(&world, "1.0.0").await?.process;
    script(&world.releases().join("2.0.0/bin/gateway"))?;
    let failed = update(&world, "2.0.0").await?;
    assert_told(&failed, Status::UpdateFailed, Resolution::OldVerified, 3);
    let fault = &failed.0.causes[0].fault;
    assert_eq!(fault.code, "preflight");
    assert!(fault.detail.contains("is a script run by `/bin/sh -e`"), "{fault:?}");
    assert_eq!(serving(&world, "1.0.0").await?.process, before);
    // One outside the release is refused as soon as the configuration is read.
    let wrapper = world.path().join("wrapper");
    script(&wrapper)?;
    let checked = world.cutover(&["config", "check"]).await?;
    assert_eq!(checked.status.code(), Some(0), "{}", told(&checked));
    let direct = "command = [\"{root}/bin/gateway\"";
    configure(&world, direct, &format!("command = [\"{}\", \"{{root}}/bin/gateway\"", wrapper.display()))?;
    let checked = world.cutover(&["config", "check"]).await?;
    assert_eq!(checked.status.code(), Some(2), "{}", told(&checked));
    assert!(told(&checked).contains("service.web.command"), "{}", told(&checked));
    assert!(told(&checked).contains("write the interpreter first"), "{}", told(&checked));
    world.kill_daemon()?;
    world.start_daemon().await?;
    let status = world.cutover(&["status", SERVICE]).await?;
    assert!(told(&status).contains("write the interpreter first"), "{}", told(&status));
    assert!(is_alive(before.clone().unwrap().pid), "what runs is left alone");
    Ok(())
}
