//! The operator is told outside of the service: once for each run, however often receiver and daemon fail.

use crate::stage::{
    assert_told, change_a_file, configure, eventually, reported, serving, signal, told, update, view,
    with_policy, world,
};
use anyhow::Context;
use cutover::conductor::View;
use cutover::demo::World;
use cutover_core::{About, Outcome, Report, Resolution, RunId, Status};
use rustix::process::Signal;
use sample_gateway::Knobs;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A message as a receiver got it.
#[derive(Clone, Debug)]
struct Got {
    head: BTreeMap<String, String>,
    body: Value,
}

impl Got {
    fn event(&self) -> &str {
        self.body["event"].as_str().unwrap_or_default()
    }
}

/// A receiver that answers each message as it is told to; without a word it takes it.
struct Receiver {
    address: String,
    got: Arc<Mutex<Vec<Got>>>,
    answers: mpsc::UnboundedSender<&'static str>,
    /// What it answers where nothing else was said.
    usual: Arc<Mutex<&'static str>>,
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const BUSY: &str = "HTTP/1.1 500 Busy\r\ncontent-length: 4\r\n\r\nbusy";
/// It hangs up.
const NOTHING: &str = "";
/// It keeps the connection and says nothing.
const SILENCE: &str = "…";

impl Receiver {
    async fn new() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}/hook", listener.local_addr()?);
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let (answers, mut next) = mpsc::unbounded_channel();
        let (all, usual) = (Arc::clone(&got), Arc::new(Mutex::new(OK)));
        let otherwise = Arc::clone(&usual);
        tokio::spawn(async move {
            let mut silent = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(one) = read(&mut stream).await else { continue };
                all.lock().unwrap().push(one);
                let usual = *otherwise.lock().unwrap();
                match next.try_recv().unwrap_or(usual) {
                    SILENCE => silent.push(stream),
                    answer => drop(stream.write_all(answer.as_bytes()).await),
                }
            }
        });
        Ok(Self { address, got, answers, usual })
    }

    /// What the configuration says to be told here.
    fn notify(&self) -> String {
        format!("notify = [{{ webhook = \"{}\", timeout = \"1s\" }}]", self.address)
    }

    fn all(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    fn of(&self, event: &str) -> Vec<Got> {
        self.all().into_iter().filter(|got| got.event() == event).collect()
    }

    async fn has(&self, event: &str, count: usize) -> anyhow::Result<Vec<Got>> {
        eventually(&format!("{count} of {event}"), async || self.of(event).len() >= count).await?;
        Ok(self.of(event))
    }
}

async fn read(stream: &mut tokio::net::TcpStream) -> Option<Got> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head: BTreeMap<String, String> = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        if body.len() >= head.get("content-length")?.parse::<usize>().ok()? {
            return Some(Got { head, body: serde_json::from_str(body).ok()? });
        }
    }
}

fn good() -> Knobs {
    Knobs::default()
}

/// How the telling of a run ended, as everybody reads it.
async fn outcome(world: &World, run: &RunId) -> anyhow::Result<Outcome> {
    let about = About::RunEnded { run: run.clone() };
    let known = |report: &Report| {
        let notice = report.notices.iter().find(|notice| notice.about == about)?;
        notice.deliveries.first()?.outcome.clone()
    };
    let view = world.until("the outcome", |view| known(&view.report).is_some()).await?;
    known(&view.report).context("it was there")
}

#[tokio::test(flavor = "multi_thread")]
async fn r81_a_receiver_that_fails_first_is_told_once_and_the_same_id_each_time() -> anyhow::Result<()> {
    let receiver = Receiver::new().await?;
    let releases = [("1.0.0", good()), ("2.0.0", good())];
    for answer in [OK, BUSY, NOTHING, SILENCE] {
        receiver.answers.send(answer)?;
    }
    let world = world(&with_policy(&receiver.notify(), &[]), &releases).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let run = ended.0.run_id.clone().unwrap();
    let outcome = outcome(&world, &run).await?;
    assert_eq!(outcome, Outcome::Delivered { tries: 4, answer: "200".into() });
    let all = receiver.all();
    assert_eq!(all.len(), 5, "the installation once, the update until it is taken: {all:#?}");
    for got in &all[1..] {
        assert_eq!(got.head["webhook-id"], format!("{run}:ended"));
        assert_eq!(got.body["id"], format!("{run}:ended"));
        assert_eq!((got.event(), got.body["service"].as_str()), ("run.ended", Some("web")));
        assert_eq!(got.body["text"], "web: 2.0.0 is live and verified.");
        assert_eq!(got.body["report"]["ok"], true);
        assert_eq!(got.body["report"]["status"], "package_updated_restart_verified");
        assert_eq!(got.body["late"], false);
    }
    let shown = told(&world.cutover(&["show", &run.0]).await?);
    assert!(shown.contains("notice run.ended to webhook http://127.0.0.1:"), "{shown}");
    assert!(shown.contains("delivered at try 4 (200)") && !shown.contains("/hook"), "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_after_it_sent_and_before_it_knew_sends_again_under_the_same_id() -> anyhow::Result<()>
{
    let receiver = Receiver::new().await?;
    let releases = [("1.0.0", good()), ("2.0.0", good())];
    receiver.answers.send(OK)?;
    receiver.answers.send(SILENCE)?;
    let notify = receiver.notify().replace("1s", "1h");
    let mut world = world(&with_policy(&notify, &[]), &releases).await?;
    let ended = update(&world, "2.0.0").await?;
    let run = ended.0.run_id.clone().unwrap();
    receiver.has("run.ended", 2).await?;
    world.kill_daemon()?;
    let offline = told(&world.cutover(&["show", &run.0]).await?);
    assert!(offline.contains("not delivered yet"), "{offline}");
    world.start_daemon().await?;
    assert_eq!(outcome(&world, &run).await?, Outcome::Delivered { tries: 1, answer: "200".into() });
    world.kill_daemon()?;
    world.start_daemon().await?;
    // What a daemon does once it began again, it has done when it serves again.
    serving(&world, "2.0.0").await?;
    let ids: Vec<String> = receiver.all().iter().map(|got| got.head["webhook-id"].clone()).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert_eq!((&ids[1], &ids[2]), (&format!("{run}:ended"), &format!("{run}:ended")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_holds_up_neither_a_run_nor_anybody_else_who_is_told() -> anyhow::Result<()> {
    let (hanging, other) = (Receiver::new().await?, Receiver::new().await?);
    for _ in 0..8 {
        hanging.answers.send(SILENCE)?;
    }
    let both = format!(
        "notify = [{{ webhook = \"{}\", timeout = \"1h\" }}, {{ webhook = \"{}\" }}]",
        hanging.address, other.address
    );
    let world = world(&with_policy(&both, &[]), &[("1.0.0", good()), ("2.0.0", good())]).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let got = other.has("run.ended", 2).await?;
    assert_eq!(got[1].body["report"]["runId"], ended.0.run_id.clone().unwrap().0);
    assert_eq!(hanging.all().len(), 1, "one at a time, the oldest first");
    let waiting = world.until("what waits", |view| view.tellings.iter().any(|one| one.owed == 2)).await?;
    assert_eq!(waiting.tellings.len(), 2);
    let status = told(&world.cutover(&["status"]).await?);
    assert!(status.contains("2 not delivered yet"), "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_service_dead_and_in_maintenance_the_operator_gets_what_to_type_and_no_log_line()
-> anyhow::Result<()> {
    let receiver = Receiver::new().await?;
    let broken = Knobs { crash_at_boot: Some(1), crash_names_module: true, ..good() };
    let service = format!("env = {{ API_TOKEN = \"sesame-open\" }}\n{}", receiver.notify());
    let service = with_policy(&service, &[("rollback", "\"never\"")]);
    let world = world(&service, &[("1.0.0", good()), ("2.0.0", broken)]).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartFailed, Resolution::Maintenance, 5);
    let told = receiver.has("run.ended", 2).await?.pop().unwrap();
    let (report, text) = (&told.body["report"], told.body["text"].as_str().unwrap());
    assert_eq!((report["ok"].as_bool(), report["resolution"].as_str()), (Some(false), Some("maintenance")));
    assert!(text.contains("manual restart required") && text.contains(&world.typed("recover web")), "{text}");
    assert_eq!(report["recovery"], serde_json::to_value(&ended.0.recovery)?);
    let whole = told.body.to_string();
    assert!(ended.0.causes.iter().any(|cause| cause.fault.detail.contains("Cannot find module")));
    for kept_back in ["Cannot find module", "sesame"] {
        assert!(!whole.contains(kept_back), "{whole}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revert_is_told_when_it_begins_and_when_it_ends() -> anyhow::Result<()> {
    let receiver = Receiver::new().await?;
    let sick = Knobs { ready_then_unready_after_ms: Some(1500), ..good() };
    let service = with_policy(&receiver.notify(), &[("watch", "\"5min\""), ("start_deadline", "\"1s\"")]);
    let world = world(&service, &[("1.0.0", good()), ("2.0.0", sick)]).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let begun = receiver.has("run.begun", 1).await?.remove(0);
    let revert = begun.body["report"]["runId"].as_str().unwrap().to_owned();
    assert_eq!(begun.head["webhook-id"], format!("{revert}:begun"));
    assert_eq!(begun.body["report"]["trigger"], "auto_revert");
    assert_eq!(begun.body["report"]["origin"]["code"], "not_ready");
    let last = receiver.has("run.ended", 3).await?.remove(2);
    assert_eq!(last.head["webhook-id"], format!("{revert}:ended"));
    assert_eq!(last.body["report"]["status"], "package_updated_restart_failed");
    assert!(last.body["text"].as_str().unwrap().contains("1.0.0 is serving again"), "{last:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_is_one_alarm_which_a_daemon_that_begins_again_does_not_raise_anew() -> anyhow::Result<()>
{
    let receiver = Receiver::new().await?;
    let service = with_policy(&receiver.notify(), &[("watch", "\"1ms\""), ("crash_window", "\"5s\"")]);
    let mut world = world(&service, &[("1.0.0", good())]).await?;
    for _ in 0..4 {
        crash(&world).await?;
    }
    let raised = receiver.has("alarm.raised", 1).await?.remove(0);
    assert_eq!(raised.body["alarm"]["code"], "crash_looping");
    let alarm = view(&world).await?.alarm.context("it lasts")?;
    assert_eq!(raised.head["webhook-id"], format!("{}:raised", alarm.id.0));
    world.kill_daemon()?;
    world.start_daemon().await?;
    // What ended before it began is unknown to it; then it is a loop again.
    for _ in 0..4 {
        let lasting = crash(&world).await?.alarm.context("it is not over")?;
        assert_eq!(lasting, alarm);
    }
    let cleared = receiver.has("alarm.cleared", 1).await?.remove(0);
    assert_eq!(cleared.head["webhook-id"], format!("{}:cleared", alarm.id.0));
    assert!(serving(&world, "1.0.0").await?.alarm.is_none());
    assert_eq!((receiver.of("alarm.raised").len(), receiver.of("alarm.cleared").len()), (1, 1));
    Ok(())
}

/// Kills the process that serves, and looks when it is gone.
async fn crash(world: &World) -> anyhow::Result<View> {
    let before = serving(world, "1.0.0").await?.process.unwrap();
    signal(before.pid, Signal::KILL)?;
    world.until("its end", |view| view.process.as_ref() != Some(&before)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_ready_is_one_alarm_until_it_is_ready() -> anyhow::Result<()> {
    let receiver = Receiver::new().await?;
    let sick = Knobs { boot_delay_ms: 1500, ready_then_unready_after_ms: Some(4000), ..good() };
    let service = with_policy(&receiver.notify(), &[("watch", "\"1ms\""), ("start_deadline", "\"3s\"")]);
    let mut world = world(&service, &[("1.0.0", sick)]).await?;
    receiver.has("alarm.raised", 1).await?;
    let alarm = view(&world).await?.alarm.context("it lasts")?;
    assert_eq!(alarm.fault.code, "not_ready");
    world.kill_daemon()?;
    world.start_daemon().await?;
    let before = serving(&world, "1.0.0").await?;
    assert_eq!(before.alarm.as_ref(), Some(&alarm), "a daemon that begins knows nothing better");
    let before = before.process.context("it serves")?;
    signal(before.pid, Signal::KILL)?;
    let booting = world
        .until("the next one", |view| view.process.as_ref().is_some_and(|process| *process != before))
        .await?;
    assert_eq!(booting.alarm, Some(alarm.clone()), "what is down is not ready either");
    let cleared = receiver.has("alarm.cleared", 1).await?.remove(0);
    assert_eq!(cleared.head["webhook-id"], format!("{}:cleared", alarm.id.0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_a_foreign_hand_changed_is_told_at_once() -> anyhow::Result<()> {
    let receiver = Receiver::new().await?;
    let world = world(&with_policy(&receiver.notify(), &[]), &[("1.0.0", good())]).await?;
    serving(&world, "1.0.0").await?;
    change_a_file(&world, 1)?;
    let begun = receiver.has("run.begun", 1).await?.remove(0);
    assert_eq!(begun.body["report"]["trigger"], "tree_changed");
    assert!(begun.body["text"].as_str().unwrap().contains("`tree_changed`"), "{begun:?}");
    let last = receiver.has("run.ended", 2).await?.remove(1);
    assert_eq!(last.body["report"]["runId"], begun.body["report"]["runId"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_is_given_up_in_the_end_and_status_says_so_until_the_next_is_taken()
-> anyhow::Result<()> {
    let receiver = Receiver::new().await?;
    *receiver.usual.lock().unwrap() = BUSY;
    let notify = receiver.notify().replace("timeout", "give_up = \"3s\", timeout");
    let world = world(&with_policy(&notify, &[]), &[("1.0.0", good()), ("2.0.0", good())]).await?;
    world.until("the end of it", |view| view.tellings[0].given_up.is_some()).await?;
    let tries = receiver.all().len();
    assert!(tries > 1, "it was tried again");
    let status = told(&world.cutover(&["status"]).await?);
    assert!(status.contains("ALARM: a notice to webhook http://127.0.0.1:"), "{status}");
    assert!(status.contains("answered with status 500: busy"), "{status}");
    *receiver.usual.lock().unwrap() = OK;
    let ended = update(&world, "2.0.0").await?;
    let outcome = outcome(&world, &ended.0.run_id.clone().unwrap()).await?;
    assert_eq!(outcome, Outcome::Delivered { tries: 1, answer: "200".into() });
    let after = view(&world).await?;
    assert!(after.tellings[0].given_up.is_none(), "{:?}", after.tellings);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_told_in_a_clean_environment_and_who_was_named_later_is_not_told_of_the_past()
-> anyhow::Result<()> {
    let service = with_policy("env = { API_TOKEN = \"sesame-open\" }", &[]);
    let mut world = world(&service, &[("1.0.0", good()), ("2.0.0", good())]).await?;
    let ended = reported(&world, &["update", "web", "--to", "2.0.0"]).await?;
    assert_eq!(ended.1, 0);
    world.kill_daemon()?;
    let out = world.path().join("notices");
    let script = format!("cat >> {0}; echo >> {0}; /usr/bin/env >> {0}", out.display());
    let notify = format!("notify = [{{ exec = [\"/bin/sh\", \"-c\", \"{script}\"] }}]\n");
    configure(&world, "env = {", &format!("{notify}env = {{"))?;
    world.start_daemon().await?;
    serving(&world, "2.0.0").await?;
    let ended = reported(&world, &["rollback", "web", "--data", "keep"]).await?;
    assert_eq!(ended.1, 0, "{:#?}", ended.0);
    let run = ended.0.run_id.clone().unwrap();
    outcome(&world, &run).await?;
    let text = std::fs::read_to_string(&out)?;
    let notices: Vec<&str> = text.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(notices.len(), 1, "{text}");
    let body: Value = serde_json::from_str(notices[0])?;
    assert_eq!(body["report"]["runId"], run.0);
    assert!(text.contains(&format!("CUTOVER_NOTICE_ID={run}:ended")), "{text}");
    assert!(!text.contains("sesame"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_told_learns_once_that_a_run_waits_for_a_person_and_what_to_type() -> anyhow::Result<()> {
    let receiver = Receiver::new().await?;
    let releases = [("1.0.0", good()), ("2.0.0", good())];
    let mut world = world(&with_policy(&receiver.notify(), &[]), &releases).await?;
    serving(&world, "1.0.0").await?;
    reported(&world, &["update", "web", "--to", "2.0.0", "--hold"]).await?;
    let asked = receiver.has("run.awaiting", 1).await?[0].clone();
    let plan = asked.body["report"]["awaits"]["plan"].as_str().context("a plan")?.to_owned();
    let text = asked.body["text"].as_str().unwrap_or_default();
    assert!(text.contains(&world.typed(&format!("approve web --plan {plan}"))), "{text}");
    let is_told = |view: &View| {
        let asked = view.report.notices.iter().find(|notice| notice.about.word() == "run.awaiting");
        asked.is_some_and(|notice| notice.deliveries.iter().all(|delivery| delivery.outcome.is_some()))
    };
    world.until("the outcome", is_told).await?;
    world.kill_daemon()?;
    world.start_daemon().await?;
    let ended = reported(&world, &["approve", "web", "--plan", &plan]).await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    receiver.has("run.ended", 2).await?;
    assert_eq!(receiver.of("run.awaiting").len(), 1, "{:#?}", receiver.all());
    Ok(())
}
