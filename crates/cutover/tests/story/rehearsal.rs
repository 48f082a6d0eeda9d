//! What is tried in isolation before anything stops. Where the kernel isolates nothing, these stories say so.

use crate::stage::{
    assert_told, eventually, executable, get, post, processes, serving, told, unserved, update, view,
    with_policy, world,
};
use cutover::demo::{Plan, SERVICE, World};
use cutover::sandbox::{Outcome, Sandbox};
use cutover_core::{Act, Finding, Level, Report, Resolution, Status};
use sample_gateway::Knobs;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

/// An SQLite database below the world, which is copied and covered.
const STATE: &str = r#"env = { SAMPLE_STATE = "{world}/data" }
state = [{ path = "{world}/data", kind = "files" }, { path = "{world}/data/state.db", kind = "sqlite" }]"#;

fn good() -> Knobs {
    Knobs::default()
}

/// Whether this machine isolates; a story that cannot be told is not passed over in silence.
pub(crate) fn isolates(story: &str) -> bool {
    let house = Sandbox {
        program: "/bin/true".into(),
        args: Vec::new(),
        env: BTreeMap::new(),
        cwd: "/".into(),
        identity: None,
        private: Vec::new(),
        visible: Vec::new(),
        writable: Vec::new(),
        covers: Vec::new(),
        private_max: 1 << 20,
        file_max: 1 << 20,
        said_max: 1 << 10,
    };
    match house.run(&executable(), Duration::from_secs(20), None).unwrap() {
        Outcome::Ended(_) => true,
        Outcome::NoIsolation { why } => {
            println!("skipped: {story}: no isolation: {why}");
            false
        }
    }
}

/// The quick rules, with a rehearsal.
fn rehearsing(service: &str, rule: &str) -> String {
    with_policy(service, &[("rehearse", &format!("\"{rule}\""))])
}

/// How the rehearsal of a run ended.
pub(crate) fn outcome(report: &Report) -> &str {
    let step = report.steps.iter().find(|step| step.name == Act::Rehearse).unwrap();
    step.outcome.as_deref().unwrap()
}

fn finding(findings: &[Finding]) -> &Finding {
    findings.iter().find(|finding| finding.kind == "rehearsal").unwrap()
}

/// What a refused target leaves: the same process, and no copy.
async fn is_untouched(world: &World, before: &cutover::conductor::View) -> anyhow::Result<()> {
    let now = serving(world, "1.0.0").await?;
    assert_eq!(now.process, before.process, "nothing was stopped for it");
    assert_eq!(get(world, "/healthz").await?.status, 200);
    nothing_is_left(world).await
}

/// No process of a rehearsal, and no copy of the state.
async fn nothing_is_left(world: &World) -> anyhow::Result<()> {
    let copies = world.state().join("services").join(SERVICE).join("rehearse");
    eventually("the end of the rehearsal", async || {
        let copies = std::fs::read_dir(&copies).map_or(0, |entries| entries.flatten().count());
        copies == 0 && rehearsals(world) == 0 && processes(world, "sample-gateway").len() <= 1
    })
    .await
}

/// Processes that rehearse in this world: their order names its directory.
fn rehearsals(world: &World) -> usize {
    let here = world.path().to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
            let words = read("cmdline");
            let is_rehearsal = words.split(|byte| *byte == 0).nth(1) == Some(b"rehearsal");
            is_rehearsal && String::from_utf8_lossy(&read("environ")).contains(&here)
        })
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_only_crashes_when_it_starts_is_refused_before_anything_stops() -> anyhow::Result<()> {
    if !isolates("a_release_that_only_crashes_when_it_starts") {
        return Ok(());
    }
    let crashes = Knobs { crash_at_boot: Some(7), ..good() };
    let world = world(&rehearsing(STATE, "auto"), &[("1.0.0", good()), ("2.0.0", crashes)]).await?;
    let before = serving(&world, "1.0.0").await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::UpdateFailed, Resolution::OldVerified, 3);
    let cause = &ended.0.causes[0];
    assert_eq!((cause.act, cause.fault.code.as_str()), (Act::Rehearse, "rehearsal"));
    let detail = &cause.fault.detail;
    for part in ["2.0.0", "Code(7)", "crashing at boot as asked", "1.0.0, which runs, passes there"] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    is_untouched(&world, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_version_is_seen_in_the_rehearsal_and_what_was_expected_is_told() -> anyhow::Result<()> {
    if !isolates("a_wrong_version_is_seen_in_the_rehearsal") {
        return Ok(());
    }
    let liar = Knobs { report_version: Some("1.9.9".into()), ..good() };
    let world = world(&rehearsing("", "auto"), &[("1.0.0", good()), ("2.0.0", liar)]).await?;
    let before = serving(&world, "1.0.0").await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::UpdateFailed, Resolution::OldVerified, 3);
    let detail = &ended.0.causes[0].fault.detail;
    assert!(detail.contains("Version: expected 2.0.0, observed 1.9.9"), "{detail}");
    assert!(detail.contains("its log ends: ") && detail.contains("listening on"), "{detail}");
    is_untouched(&world, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_becomes_ready_is_refused_with_the_fact_that_is_missing() -> anyhow::Result<()> {
    if !isolates("one_that_never_becomes_ready") {
        return Ok(());
    }
    let never = Knobs { never_ready: true, ..good() };
    let service = with_policy(
        "",
        &[("rehearse", "\"auto\""), ("start_deadline", "\"2s\""), ("stop_grace", "\"500ms\"")],
    );
    let world = world(&service, &[("1.0.0", good()), ("2.0.0", never)]).await?;
    let before = serving(&world, "1.0.0").await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::UpdateFailed, Resolution::OldVerified, 3);
    let detail = &ended.0.causes[0].fault.detail;
    assert!(detail.contains("no progress for 2s: Readiness: expected ready, observed no"), "{detail}");
    is_untouched(&world, &before).await
}

/// What is asked of a candidate that reaches out: a listener of the machine's, and a file of the live state.
fn reaching(world: &World, listener: &TcpListener) -> anyhow::Result<Knobs> {
    listener.set_nonblocking(true)?;
    Ok(Knobs {
        dial_at_start: Some(listener.local_addr()?.to_string()),
        append_at_start: Some(world.path().join("data/journal.txt")),
        migrate_to: Some(2),
        ..good()
    })
}

fn calls(listener: &TcpListener) -> usize {
    std::iter::from_fn(|| listener.accept().ok()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_dials_out_and_writes_to_live_state_does_neither_in_its_rehearsal()
-> anyhow::Result<()> {
    if !isolates("a_candidate_that_dials_out_and_writes_to_live_state") {
        return Ok(());
    }
    let world = world(&rehearsing(STATE, "always"), &[("1.0.0", good())]).await?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let knobs = reaching(&world, &listener)?;
    world.publish("2.0.0", Knobs { crash_after_ms: Some(0), exit_code: Some(9), ..knobs.clone() })?;
    world.publish("3.0.0", knobs)?;
    let before = serving(&world, "1.0.0").await?;
    assert_eq!(post(&world, "/state", "a row").await?.status, 200);
    let (journal, database) = (world.path().join("data/journal.txt"), world.path().join("data/state.db"));
    std::fs::write(&journal, "live\n")?;
    let files =
        || ["state.db", "state.db-wal"].map(|name| std::fs::read(world.path().join("data").join(name)).ok());
    let live = files();

    // It did all that it wanted to, on copies and on a network of its own, and then it was refused.
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::UpdateFailed, Resolution::OldVerified, 3);
    let detail = &ended.0.causes[0].fault.detail;
    for part in ["Code(9)", "dialling 127.0.0.1:", "onnection refused", "journal.txt: done"] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    assert_eq!((calls(&listener), std::fs::read_to_string(&journal)?), (0, "live\n".to_owned()));
    assert!(live == files(), "the live database was written to");
    assert_eq!(get(&world, "/state").await?.json()["schema"], 1);
    is_untouched(&world, &before).await?;

    // A good one does it once, when it is really started.
    let ended = update(&world, "3.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let how = outcome(&ended.0);
    for part in ["3.0.0 started in isolation on a copy of the state", "version", "ended on TERM after"] {
        assert!(how.contains(part), "{part}: {how}");
    }
    assert_eq!((calls(&listener), std::fs::read_to_string(&journal)?), (1, "live\nstarted\n".to_owned()));
    let state = get(&world, "/state").await?.json();
    assert_eq!((&state["schema"], &state["rows"]), (&json!(2), &json!(1)), "{state}");
    assert!(database.exists());
    nothing_is_left(&world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_running_version_fails_at_too_keeps_nobody_from_updating() -> anyhow::Result<()> {
    if !isolates("what_the_running_version_fails_at_too") {
        return Ok(());
    }
    // Its configuration lies in the home, which is empty in isolation.
    let service = r#"env = { HOME = "{world}/home", SAMPLE_CONFIG = "{world}/home/app.json" }"#;
    for (rule, status, code) in [("auto", Status::RestartVerified, 0), ("always", Status::UpdateFailed, 3)] {
        let plan = Plan { service: rehearsing(service, rule), ..Plan::new(executable()) };
        let mut world = unserved(plan, &[("1.0.0", good()), ("2.0.0", good())])?;
        std::fs::create_dir(world.path().join("home"))?;
        std::fs::write(world.path().join("home/app.json"), "{}")?;
        world.start_daemon().await?;
        // A first installation has nobody to be held against, and under `always` has to be rehearsed.
        if rule == "always" {
            let refused = update(&world, "1.0.0").await?;
            assert_eq!((refused.0.status, refused.1), (Some(status), code), "{:#?}", refused.0);
            assert!(refused.0.causes[0].fault.detail.contains("app.json"), "{:?}", refused.0.causes);
            continue;
        }
        world.install("1.0.0").await?;
        let ended = update(&world, "2.0.0").await?;
        assert_eq!((ended.0.status, ended.1), (Some(status), code), "{:#?}", ended.0);
        let how = outcome(&ended.0);
        let expected = "skipped: no evidence: 1.0.0, which runs, was not seen to pass a rehearsal either";
        assert!(how.starts_with(expected) && how.contains("app.json"), "{how}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn why_there_is_no_rehearsal_is_told_in_the_plan_and_in_the_report() -> anyhow::Result<()> {
    let releases = [("1.0.0", good()), ("2.0.0", good())];
    let never = world(&rehearsing("", "never"), &releases).await?;
    let ended = update(&never, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    assert_eq!(outcome(&ended.0), "skipped: `policy.rehearse` is \"never\"");
    assert_eq!(finding(&ended.0.findings).level, Level::Note);

    let auto = world(&rehearsing("", "auto"), &releases).await?;
    let first = view(&auto).await?.report;
    assert_eq!(outcome(&first), "skipped: nothing runs that a failed start could take away");
    if isolates("why_there_is_no_rehearsal") {
        let plan = auto.cutover(&["plan", SERVICE, "--to", "2.0.0"]).await?;
        let expected = "2.0.0 is rehearsed before anything stops: started in isolation";
        assert!(told(&plan).contains(expected), "{}", told(&plan));
        assert_told(&update(&auto, "2.0.0").await?, Status::RestartVerified, Resolution::None, 0);
    }
    // What has proven itself on the real state is not tried on another.
    let back = crate::stage::reported(&auto, &["rollback", SERVICE]).await?;
    if back.0.status == Some(Status::RestartVerified) {
        assert!(outcome(&back.0).contains("proven itself"), "{}", outcome(&back.0));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_isolation_auto_goes_on_and_says_so_and_always_does_not() -> anyhow::Result<()> {
    // As root of a namespace below which there may be none, with the right to make others given up.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && \
                  exec setpriv --bounding-set=-sys_admin --inh-caps=-all \"$@\"";
    let through = ["unshare", "-Ur", "sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    let can = std::process::Command::new("unshare").args(["-Ur", "true"]).status();
    if !can.is_ok_and(|status| status.success()) {
        println!("skipped: without_isolation_auto_goes_on: no user namespace can be made here");
        return Ok(());
    }
    for rule in ["auto", "always"] {
        let plan =
            Plan { service: rehearsing("", rule), through: through.clone(), ..Plan::new(executable()) };
        let mut world = unserved(plan, &[("1.0.0", good()), ("2.0.0", good())])?;
        world.start_daemon().await?;
        if rule == "always" {
            let ended = update(&world, "1.0.0").await?;
            assert_eq!((ended.0.status, ended.1), (Some(Status::UpdateFailed), 3), "{:#?}", ended.0);
            assert!(ended.0.causes[0].fault.detail.contains("no isolation: "), "{:?}", ended.0.causes);
            continue;
        }
        world.install("1.0.0").await?;
        let ended = update(&world, "2.0.0").await?;
        assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
        assert!(outcome(&ended.0).starts_with("skipped: no isolation: "), "{}", outcome(&ended.0));
        assert_eq!(finding(&ended.0.findings).level, Level::Warn);
    }
    Ok(())
}

/// A world in the middle of a rehearsal that would take long.
async fn in_the_middle() -> anyhow::Result<(World, cutover_core::RunId)> {
    let slow = Knobs { boot_delay_ms: 40_000, ..good() };
    let service = with_policy(STATE, &[("rehearse", "\"auto\""), ("start_deadline", "\"50s\"")]);
    let world = world(&service, &[("1.0.0", good()), ("2.0.0", slow), ("3.0.0", good())]).await?;
    let run = world.update("2.0.0").await?;
    eventually("the candidate's start", async || {
        rehearsals(&world) == 1 && processes(&world, "sample-gateway").len() == 2
    })
    .await?;
    Ok((world, run))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_rehearsal_ends_at_once_and_leaves_nothing() -> anyhow::Result<()> {
    if !isolates("a_cancelled_rehearsal_ends_at_once") {
        return Ok(());
    }
    let (world, run) = in_the_middle().await?;
    let before = serving(&world, "1.0.0").await?;
    assert_eq!(before.report.phase, "preparing: rehearse");
    world
        .until("progress", |view| {
            view.progress
                .as_ref()
                .is_some_and(|progress| progress.doing.starts_with("rehearsing 2.0.0: waiting for"))
        })
        .await?;
    let begun = std::time::Instant::now();
    world.client().call("update.cancel", json!({ "service": SERVICE })).await?;
    let report = world.end_of(&run).await?;
    assert_eq!(
        (report.status, report.causes[0].fault.code.as_str()),
        (Some(Status::UpdateFailed), "cancelled")
    );
    is_untouched(&world, &before).await?;
    // Half of what the candidate would have taken to start.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_told(&update(&world, "3.0.0").await?, Status::RestartVerified, Resolution::None, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_in_a_rehearsal_leaves_no_process_and_no_copy_and_the_run_goes_on()
-> anyhow::Result<()> {
    if !isolates("a_daemon_killed_in_a_rehearsal") {
        return Ok(());
    }
    let (mut world, run) = in_the_middle().await?;
    let before = serving(&world, "1.0.0").await?;
    world.kill_daemon()?;
    eventually("the candidate's end", async || {
        rehearsals(&world) == 0 && processes(&world, "sample-gateway").len() == 1
    })
    .await?;
    assert_eq!(get(&world, "/healthz").await?.status, 200);
    world.start_daemon().await?;
    world.until("the rehearsal again", |view| view.report.phase == "preparing: rehearse").await?;
    world.client().call("update.cancel", json!({ "service": SERVICE })).await?;
    let report = world.end_of(&run).await?;
    assert_eq!(report.causes[0].fault.code, "cancelled");
    is_untouched(&world, &before).await
}
