//! The daemon itself: restarted, refused, out of step with its journal, asked to give up.

use crate::stage::{
    assert_told, change_a_file, eventually, executable, get, is_alive, processes, reported, serving, signal,
    told, unserved, update, view, with_policy, world,
};
use cutover::demo::{Plan, SERVICE, World, free_address};
use cutover_core::{Kind, Resolution, Status};
use cutover_testkit::registry::{Package, Registry, Trouble};
use rustix::process::Signal;
use sample_gateway::Knobs;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_does_not_replay_is_declared_and_service_and_front_are_left_alone()
-> anyhow::Result<()> {
    let mut world = world(&with_policy("", &[]), &[("1.0.0", Knobs::default())]).await?;
    let before = serving(&world, "1.0.0").await?.process.unwrap();
    let front = processes(&world, "front");
    world.kill_daemon()?;
    let journal = rusqlite::Connection::open(world.state().join("journal.sqlite"))?;
    journal
        .execute("UPDATE entry SET state_hash = 'another' WHERE seq = (SELECT max(seq) FROM entry)", [])?;
    journal.execute("DELETE FROM checkpoint", [])?;
    drop(journal);
    world.start_daemon().await?;
    let status = world.client().call("status", Value::Null).await?;
    let why = status["broken"][SERVICE].as_str().unwrap();
    assert!(why.contains("led to another state"), "{why}");
    for words in [&["status", SERVICE][..], &["status"]] {
        let asked = world.cutover(words).await?;
        assert!(told(&asked).contains("led to another state"), "{}", told(&asked));
    }
    let ordered = world.cutover(&["update", SERVICE, "--to", "1.0.0"]).await?;
    assert_eq!(ordered.status.code(), Some(8), "{}", told(&ordered));
    assert!(is_alive(before.pid));
    assert_eq!(processes(&world, "front"), front);
    assert_eq!(get(&world, "/version").await?.json()["pid"], before.pid);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_directory_is_refused() -> anyhow::Result<()> {
    let world = world(&with_policy("", &[]), &[("1.0.0", Knobs::default())]).await?;
    let second = world.cutover(&["serve"]).await?;
    assert_ne!(second.status.code(), Some(0));
    assert!(told(&second).contains("another daemon runs"), "{}", told(&second));
    serving(&world, "1.0.0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_daemon_that_is_killed_costs_no_restart_and_adopts_what_lives() -> anyhow::Result<()> {
    let mut world = world(&with_policy("", &[]), &[("1.0.0", Knobs::default())]).await?;
    let before = serving(&world, "1.0.0").await?;
    let front = processes(&world, "front");
    for _ in 0..2 {
        world.kill_daemon()?;
        assert_eq!(get(&world, "/").await?.status, 200, "clients are served without a daemon");
        world.start_daemon().await?;
        let after = serving(&world, "1.0.0").await?;
        assert_eq!((&after.process, processes(&world, "front")), (&before.process, front.clone()));
    }
    world.kill_daemon()?;
    let asked = told(&world.cutover(&["status"]).await?);
    let pid = before.process.clone().unwrap().pid;
    assert!(asked.contains(&format!("serving now: 1.0.0 (pid {pid}, generation 0001)")), "{asked}");
    signal(pid, Signal::KILL)?;
    eventually("that nothing is told to serve", async || {
        let asked = world.cutover(&["status"]).await;
        asked.is_ok_and(|asked| told(&asked).contains("serving now: nothing (hold)"))
    })
    .await?;
    let asked = told(&world.cutover(&["status"]).await?);
    assert!(!asked.contains("is live") && !asked.contains("is serving"), "{asked}");
    world.start_daemon().await?;
    let after = serving(&world, "1.0.0").await?;
    assert_ne!(after.process, before.process, "an exit while nobody watched is noticed");
    assert_eq!(processes(&world, "sample-gateway").len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_a_changed_file_is_noticed_sealed_again_and_proven_and_a_damaged_generation_is_not_used_again()
-> anyhow::Result<()> {
    let world = world(&with_policy("", &[]), &[("1.0.0", Knobs::default())]).await?;
    serving(&world, "1.0.0").await?;
    let chunk = change_a_file(&world, 1)?;
    let resealed = world
        .until("the reseal", |view| {
            view.report.trigger == Some(Kind::TreeChanged) && view.report.ended.is_some()
        })
        .await?;
    assert_eq!(resealed.report.status, Some(Status::RestartVerified), "{:#?}", resealed.report);
    let after = serving(&world, "1.0.0").await?;
    assert_eq!(after.current.unwrap().generation, cutover_core::Generation(2));
    let name = chunk.file_name().unwrap().to_string_lossy().into_owned();
    assert!(resealed.report.origin.unwrap().detail.contains(&name), "the file is named");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_a_tree_whose_source_is_gone_is_maintenance_until_retry_finds_it_again() -> anyhow::Result<()> {
    let world = world(&with_policy("", &[]), &[("1.0.0", Knobs::default())]).await?;
    serving(&world, "1.0.0").await?;
    let (release, away) = (world.releases().join("1.0.0"), world.path().join("away"));
    std::fs::rename(&release, &away)?;
    change_a_file(&world, 1)?;
    let lost = world.until("maintenance", |view| view.report.resolution == Resolution::Maintenance).await?;
    assert_eq!(lost.report.recovery, [world.typed("recover web --retry")]);
    eventually("its end", async || processes(&world, "sample-gateway").is_empty()).await?;
    std::fs::rename(&away, &release)?;
    let retried = reported(&world, &["recover", "web", "--retry"]).await?;
    assert_told(&retried, Status::RestartVerified, Resolution::None, 0);
    serving(&world, "1.0.0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r20_r65_r66_leftovers_are_reclaimed_and_what_is_not_there_fails_before_anything_stops()
-> anyhow::Result<()> {
    let mut world =
        world(&with_policy("", &[]), &[("1.0.0", Knobs::default()), ("2.0.0", Knobs::default())]).await?;
    let before = serving(&world, "1.0.0").await?.process;
    let ended = update(&world, "9.9.9").await?;
    assert_told(&ended, Status::UpdateFailed, Resolution::OldVerified, 3);
    let planned = world.cutover(&["plan", SERVICE, "--to", "9.9.9"]).await?;
    assert_ne!(planned.status.code(), Some(0), "{}", told(&planned));
    assert_eq!(serving(&world, "1.0.0").await?.process, before);
    world.kill_daemon()?;
    let staging = world.state().join("services").join(SERVICE).join("staging");
    for name in ["one.partial", "two.partial", "three.partial"] {
        std::fs::create_dir_all(staging.join(name).join("core"))?;
        std::fs::write(staging.join(name).join("core/file"), "half")?;
    }
    let copies = world.state().join("services").join(SERVICE);
    let copies = ["validate", "rehearse"].map(|purpose| copies.join(purpose));
    for copies in &copies {
        std::fs::create_dir_all(copies.join("copy-one/0"))?;
    }
    world.start_daemon().await?;
    for left in [&staging, &copies[0], &copies[1]] {
        eventually("the reclaim", async || std::fs::read_dir(left).is_ok_and(|entries| entries.count() == 0))
            .await?;
    }
    assert_told(&update(&world, "2.0.0").await?, Status::RestartVerified, Resolution::None, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r48_two_services_of_one_daemon_do_not_touch_each_other() -> anyhow::Result<()> {
    let broken = Knobs { crash_at_boot: Some(1), ..Knobs::default() };
    let mut world = world(&with_policy("", &[]), &[("1.0.0", Knobs::default()), ("2.0.0", broken)]).await?;
    serving(&world, "1.0.0").await?;
    world.kill_daemon()?;
    let config = std::fs::read_to_string(world.config())?;
    let first = config.split_once("[service.web]").unwrap().1.to_owned();
    let second = first.replace(&world.address.to_string(), "127.0.0.1:0");
    let other = free_address()?;
    let second = second.replace("127.0.0.1:0", &other.to_string());
    std::fs::write(world.config(), format!("{config}\n[service.other]{second}"))?;
    world.start_daemon().await?;
    let installed = reported(&world, &["update", "other", "--to", "1.0.0"]).await?;
    assert_told(&installed, Status::RestartVerified, Resolution::None, 0);
    let before = serving(&world, "1.0.0").await?.process;
    let rolled = reported(&world, &["update", "other", "--to", "2.0.0"]).await?;
    assert_told(&rolled, Status::RestartFailed, Resolution::OldVerified, 4);
    assert_eq!(serving(&world, "1.0.0").await?.process, before, "the other's pid is unchanged");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_stalled_fetch_ends_npm_and_changes_nothing() -> anyhow::Result<()> {
    if std::process::Command::new("npm").arg("--version").output().is_err() {
        println!("skipped: cancelling_a_stalled_fetch: npm is not installed");
        return Ok(());
    }
    let registry = Registry::start().await?;
    registry.publish(&Package::new("sample", "1.0.0"));
    registry.tag("sample", "latest", "1.0.0");
    registry.trouble("sample", Trouble::StalledTarball);
    let plan = Plan { service: with_policy("", &[]), ..Plan::new(executable()) };
    let mut world = unserved(plan, &[])?;
    let config = std::fs::read_to_string(world.config())?;
    let from = format!("source = {{ npm = \"sample\", registry = \"{}\" }}", registry.url());
    let config: Vec<String> = config
        .lines()
        .map(|line| if line.starts_with("source = ") { from.clone() } else { line.to_owned() })
        .collect();
    std::fs::write(world.config(), config.join("\n"))?;
    world.start_daemon().await?;
    let run = world.update("1.0.0").await?;
    let here = world.state().to_string_lossy().into_owned();
    let npms = || {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter(|entry| {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains("npm") && cwd.starts_with(&here)
            })
            .count()
    };
    eventually("npm at work", async || npms() > 0).await?;
    let begun = std::time::Instant::now();
    world.client().call("update.cancel", json!({ "service": SERVICE })).await?;
    let report = world.end_of(&run).await?;
    assert_eq!(
        (report.status, report.causes[0].fault.code.as_str()),
        (Some(Status::UpdateFailed), "cancelled")
    );
    eventually("npm's end", async || npms() == 0).await?;
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(view(&world).await?.current.is_none());
    Ok(())
}

/// Ends everything at once, as a power cut does, and lets the journal's last entry be of another boot.
async fn reboot(world: &mut World) -> anyhow::Result<()> {
    world.kill_daemon()?;
    for part in ["keeper", "front", "sample-gateway"] {
        for pid in processes(world, part) {
            signal(pid, Signal::KILL)?;
        }
    }
    let journal = rusqlite::Connection::open(world.state().join("journal.sqlite"))?;
    journal.execute("UPDATE entry SET boot_id = 'the boot before'", [])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r26_a_reboot_in_the_middle_of_the_proof_counts_as_an_attempt_and_the_second_one_is_proven()
-> anyhow::Result<()> {
    let slow = Knobs { boot_delay_ms: 600, ..Knobs::default() };
    let mut world = world(&with_policy("", &[]), &[("1.0.0", Knobs::default()), ("2.0.0", slow)]).await?;
    serving(&world, "1.0.0").await?;
    let run = world.update("2.0.0").await?;
    world.until("the proof", |view| view.report.phase == "cutting over: prove").await?;
    reboot(&mut world).await?;
    world.start_daemon().await?;
    let report = world.end_of(&run).await?;
    assert_eq!(report.status, Some(Status::RestartVerified), "{report:#?}");
    serving(&world, "2.0.0").await?;
    // At rest a reboot is a start, and what served before is not served until it has shown itself.
    reboot(&mut world).await?;
    world.start_daemon().await?;
    serving(&world, "2.0.0").await?;
    assert_eq!(get(&world, "/version").await?.json()["version"], "2.0.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_that_the_configuration_no_longer_wants_is_ended() -> anyhow::Result<()> {
    let mut world = world(&with_policy("", &[]), &[("1.0.0", Knobs::default())]).await?;
    let own = serving(&world, "1.0.0").await?.address.unwrap();
    world.kill_daemon()?;
    let config = std::fs::read_to_string(world.config())?;
    let listen = format!("listen = \"{}\"", world.address);
    std::fs::write(world.config(), config.replace(&listen, &format!("port = {}", own.port())))?;
    world.start_daemon().await?;
    eventually("the front's end", async || processes(&world, "front").is_empty()).await?;
    serving(&world, "1.0.0").await?;
    Ok(())
}

/// A file system of its own, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where nothing can be mounted.
    fn mount() -> Option<Self> {
        let directory = tempfile::Builder::new().prefix("cutover-disk-").tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=420m", "cutover-test"]).arg(directory.path());
        let quietly = mounted.stderr(std::process::Stdio::null()).status();
        quietly.is_ok_and(|status| status.success()).then_some(Self(directory))
    }

    /// Takes what is left of it.
    fn fill(&self) -> std::path::PathBuf {
        let path = self.0.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        let piece = vec![1; 64 << 10];
        while std::io::Write::write_all(&mut file, &piece).is_ok() {}
        for size in [4096, 256, 1] {
            while std::io::Write::write_all(&mut file, &piece[..size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r67_on_a_full_disk_a_run_past_its_cut_ends_on_the_reserve_and_no_other_begins() -> anyhow::Result<()>
{
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: r67_on_a_full_disk: mounting a tmpfs takes root");
        return Ok(());
    };
    let plan = Plan {
        service: with_policy("", &[("drain", "\"1s\"")]),
        place: Some(disk.0.path().to_owned()),
        ..Plan::new(executable())
    };
    let slow = Knobs { boot_delay_ms: 1200, ..Knobs::default() };
    let mut world =
        unserved(plan, &[("1.0.0", Knobs::default()), ("2.0.0", slow), ("3.0.0", Knobs::default())])?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    serving(&world, "1.0.0").await?;
    let run = world.update("2.0.0").await?;
    world.until("the proof", |view| view.report.phase == "cutting over: prove").await?;
    let filler = disk.fill();
    let report = world.end_of(&run).await?;
    assert_eq!(report.status, Some(Status::RestartVerified), "{report:#?}");
    serving(&world, "2.0.0").await?;
    let refused = world.cutover(&["update", "--to", "3.0.0"]).await?;
    assert!(matches!(refused.status.code(), Some(3 | 8)), "{}", told(&refused));
    serving(&world, "2.0.0").await?;
    assert_eq!(get(&world, "/").await?.status, 200);
    std::fs::remove_file(filler)?;
    let again = update(&world, "3.0.0").await?;
    assert_told(&again, Status::RestartVerified, Resolution::None, 0);
    drop(world);
    Ok(())
}
