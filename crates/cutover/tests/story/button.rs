//! The service's own clients press "update now", and the daemon answers in the service's place.

use crate::stage::{
    LIMIT, assert_told, processes, serving, signal, starts_of, told, update, view, with_policy, world,
};
use anyhow::{Context, bail};
use cutover::demo::World;
use cutover_core::{Kind, Resolution, Status};
use futures_util::{SinkExt, StreamExt};
use rustix::process::Signal;
use sample_gateway::Knobs;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const ADMIN: &[&str] = &["operator.admin", "operator.read"];
/// Clients that wait for the one answer, and those that follow a run.
const WAITS: u64 = 3;
pub(crate) const FOLLOWS: u64 = 4;

fn speaking(protocol: u64) -> Knobs {
    Knobs { protocol: Some(protocol), ..Knobs::default() }
}

pub(crate) fn slow(protocol: u64) -> Knobs {
    Knobs { boot_delay_ms: 700, ..speaking(protocol) }
}

/// A world with the button, in which `latest` names 2.0.0 and that was seen.
pub(crate) async fn offering(protocol: u64, next: Knobs) -> anyhow::Result<World> {
    let service = with_policy("update_button = \"openclaw\"\ncheck_every = \"100ms\"", &[]);
    let world = world(&service, &[("1.0.0", speaking(protocol)), ("2.0.0", next)]).await?;
    serving(&world, "1.0.0").await?;
    world.name_latest("2.0.0")?;
    world.until("the offer", |view| view.available.is_some()).await?;
    Ok(world)
}

/// A page of the service that is open in somebody's browser.
struct Page {
    socket: WebSocketStream<TcpStream>,
    hello: Value,
    events: Vec<Value>,
}

impl Page {
    async fn open(world: &World, scopes: &[&str]) -> anyhow::Result<Self> {
        let opened = async {
            let stream = TcpStream::connect(world.address).await?;
            let request = format!("ws://{}/", world.address).into_client_request()?;
            let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
            let mut page = Self { socket, hello: Value::Null, events: Vec::new() };
            page.say("connect", &json!({ "role": "operator", "scopes": scopes })).await?;
            page.hello = page.answer("connect").await?["payload"].clone();
            anyhow::Ok(page)
        };
        timeout(LIMIT, opened).await.context("no hello")?
    }

    /// Opens one as soon as the service lets it in, as browsers do again and again.
    async fn opened_again(world: &World, scopes: &[&str]) -> anyhow::Result<Self> {
        let tried = async {
            loop {
                match Self::open(world, scopes).await {
                    Ok(page) => return page,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        timeout(LIMIT, tried).await.context("nobody lets it in")
    }

    async fn say(&mut self, method: &str, params: &Value) -> anyhow::Result<()> {
        let call = json!({ "type": "req", "id": method, "method": method, "params": params });
        Ok(self.socket.send(Message::text(call.to_string())).await?)
    }

    /// The next answer to a call of this method; events before it are kept.
    async fn answer(&mut self, method: &str) -> anyhow::Result<Value> {
        let answered = async {
            loop {
                match self.socket.next().await.context("the connection ended")?? {
                    Message::Text(text) => {
                        let frame: Value = serde_json::from_str(&text)?;
                        if frame["type"] == "res" && frame["id"] == method {
                            return Ok(frame);
                        }
                        self.events.push(frame);
                    }
                    Message::Close(close) => bail!("closed: {close:?}"),
                    _ => {}
                }
            }
        };
        timeout(LIMIT, answered).await.with_context(|| format!("no answer to {method}"))?
    }

    async fn call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.say(method, &params).await?;
        self.answer(method).await
    }

    /// The payload of a call that is answered well.
    async fn payload(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        let answer = self.call(method, params).await?;
        anyhow::ensure!(answer["ok"] == true, "{method}: {answer}");
        Ok(answer["payload"].clone())
    }

    /// The close code, and the answers that came before it.
    async fn ended(&mut self) -> anyhow::Result<(Option<u16>, Vec<Value>)> {
        let mut answers = Vec::new();
        let ending = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(close))) => return close.map(|close| close.code.into()),
                    Some(Ok(Message::Text(text))) => {
                        let frame: Value = serde_json::from_str(&text).unwrap();
                        answers.extend((frame["type"] == "res").then_some(frame));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                }
            }
        };
        let code = timeout(LIMIT, ending).await.context("it stays open")?;
        Ok((code, answers))
    }
}

/// The runs that the button began.
pub(crate) async fn presses(world: &World) -> anyhow::Result<usize> {
    let runs = world.client().call("update.runs.list", Value::Null).await?;
    let runs = runs["runs"].as_array().context("runs")?;
    Ok(runs.iter().filter(|run| run["actor"] == "button").count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_client_gets_its_one_answer_after_the_verdict_and_comes_back_to_the_new_process()
-> anyhow::Result<()> {
    let world = offering(WAITS, speaking(WAITS)).await?;
    assert!(told(&world.cutover(&["status"]).await?).contains("available: 2.0.0 (latest)"));
    let mut page = Page::open(&world, ADMIN).await?;
    let offered = json!({ "currentVersion": "1.0.0", "latestVersion": "2.0.0", "channel": "latest" });
    assert_eq!(page.hello["snapshot"]["updateAvailable"], offered, "{}", page.hello);
    assert_eq!(
        page.payload("update.status", json!({})).await?["sentinel"]["stats"]["after"]["version"],
        "1.0.0"
    );
    let answer = page.payload("update.run", json!({ "sessionKey": "agent:main:main" })).await?;
    let at_answer = view(&world).await?;
    assert!(at_answer.report.ended.is_some() && at_answer.report.ok, "no answer before the verdict");
    assert_eq!((&answer["ok"], &answer["result"]["status"]), (&json!(true), &json!("ok")), "{answer}");
    assert_eq!(answer["status"], "package_updated_restart_verified");
    assert_eq!(answer["result"]["before"]["version"], "1.0.0");
    assert_eq!(answer["result"]["after"]["version"], "2.0.0");
    assert_eq!(page.ended().await?, (Some(1012), Vec::new()), "one answer, then the way back");
    let mut again = Page::open(&world, ADMIN).await?;
    assert_eq!(again.hello["server"]["version"], "2.0.0");
    assert!(again.hello["snapshot"]["updateAvailable"].is_null(), "{}", again.hello);
    let status = again.payload("update.status", json!({})).await?;
    assert_eq!(status["sentinel"], answer["sentinel"]["payload"]);
    assert_eq!(
        (&status["sentinel"]["kind"], &status["sentinel"]["status"]),
        (&json!("update"), &json!("ok"))
    );
    assert_eq!(at_answer.report.actor.as_deref(), Some("button"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r78110_a_release_that_does_not_come_up_is_answered_as_an_error_with_its_cause() -> anyhow::Result<()>
{
    let broken = Knobs { crash_at_boot: Some(1), ..speaking(WAITS) };
    let world = offering(WAITS, broken).await?;
    let mut page = Page::open(&world, ADMIN).await?;
    let answer = page.payload("update.run", json!({})).await?;
    let report = view(&world).await?.report;
    assert_eq!((report.status, report.resolution), (Some(Status::RestartFailed), Resolution::OldVerified));
    assert_eq!((&answer["ok"], &answer["result"]["status"]), (&json!(false), &json!("error")), "{answer}");
    assert_eq!(answer["status"], "package_updated_restart_failed");
    assert_eq!(answer["result"]["reason"], report.causes[0].fault.code);
    assert_eq!(answer["result"]["before"]["version"], "1.0.0");
    assert!(answer["result"]["after"].is_null(), "{answer}");
    assert_eq!(page.ended().await?.0, Some(1012));
    let mut again = Page::open(&world, ADMIN).await?;
    assert_eq!(again.hello["server"]["version"], "1.0.0");
    let status = again.payload("update.status", json!({})).await?;
    assert_eq!(status["sentinel"], answer["sentinel"]["payload"]);
    assert_eq!(status["sentinel"]["status"], "error");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_follows_gets_the_run_at_once_and_success_only_when_it_is_proven() -> anyhow::Result<()>
{
    let world = offering(FOLLOWS, slow(FOLLOWS)).await?;
    let mut page = Page::open(&world, ADMIN).await?;
    let answer = page.payload("update.run", json!({})).await?;
    assert_eq!((&answer["ok"], &answer["result"]["status"]), (&json!(false), &json!("skipped")), "{answer}");
    assert_eq!(answer["status"], "package_updated_restart_scheduled");
    let run = answer["runId"].as_str().context("a run")?.to_owned();
    let row = page.payload("update.runs.get", json!({ "runId": run })).await?["run"].clone();
    assert_eq!((&row["status"], &row["trigger"]), (&json!("running"), &json!("control-ui")), "{row}");
    let (code, _) = page.ended().await?;
    assert_eq!(code, Some(1012), "it was not kept: its answer had come");
    let mut again = Page::opened_again(&world, ADMIN).await?;
    let first = again.payload("update.status", json!({})).await?;
    // Whether it came back before the verdict or after it, the run is shown as what it is.
    let shown = if first["activeRun"].is_null() { &first["lastRun"] } else { &first["activeRun"] };
    assert_eq!(shown["runId"], run.as_str(), "{first}");
    world.end_of(&cutover_core::RunId(run.clone())).await?;
    let last = again.payload("update.status", json!({})).await?["lastRun"].clone();
    assert_eq!((&last["phase"], &last["status"]), (&json!("finished"), &json!("succeeded")), "{last}");
    assert_eq!(last["after"]["version"], "2.0.0");
    assert_eq!(last["verification"]["runningVersion"], "2.0.0");
    assert_eq!(last["verification"]["pid"], view(&world).await?.process.unwrap().pid);
    assert_eq!(last["verification"].get("pluginErrors"), None, "nobody looked at plugins");
    let runs = again.payload("update.runs.list", json!({ "limit": 1 })).await?;
    assert_eq!(runs["runs"], json!([last]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_is_told_of_every_change_as_long_as_its_connection_is_open() -> anyhow::Result<()> {
    let service = with_policy("update_button = \"openclaw\"", &[("rollback", "\"never\"")]);
    let world = world(&service, &[("1.0.0", speaking(FOLLOWS))]).await?;
    serving(&world, "1.0.0").await?;
    // There is no such release: the run ends before anything stops, so the connection stays.
    world.name_latest("9.9.9")?;
    let mut page = Page::open(&world, ADMIN).await?;
    let run = page.payload("update.run", json!({})).await?["runId"].clone();
    let finished = |page: &Page| {
        let changes = page.events.iter().filter(|event| event["event"] == "update.run.changed");
        changes
            .map(|event| event["payload"].clone())
            .find(|change| change["runId"] == run && change["phase"] == "finished")
    };
    let seen = timeout(LIMIT, async {
        loop {
            page.payload("health", json!({})).await?;
            if let Some(change) = finished(&page) {
                return anyhow::Ok(change);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let change = seen.await??;
    assert_eq!(change["status"], "failed", "{change}");
    assert!(change["updatedAtMs"].is_u64());
    let row = page.payload("update.runs.get", json!({ "runId": run })).await?["run"].clone();
    assert_eq!(row["status"], "failed");
    assert!(row["reason"].is_string() && row["after"] == json!({}), "{row}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_and_stays_connected_is_told_of_a_release_when_there_is_one() -> anyhow::Result<()> {
    let service = with_policy("update_button = \"openclaw\"\ncheck_every = \"100ms\"", &[]);
    let world = world(&service, &[("1.0.0", speaking(FOLLOWS)), ("2.0.0", speaking(FOLLOWS))]).await?;
    serving(&world, "1.0.0").await?;
    let mut page = Page::open(&world, ADMIN).await?;
    assert_eq!(page.hello["snapshot"]["updateAvailable"], Value::Null);
    assert_eq!(page.payload("update.status", json!({})).await?["updateAvailable"], Value::Null);
    assert!(page.events.iter().all(|event| event["event"] != "update.available"));
    world.name_latest("2.0.0")?;
    let told = timeout(LIMIT, async {
        loop {
            page.payload("update.status", json!({})).await?;
            let told = page.events.iter().find(|event| event["event"] == "update.available");
            if let Some(told) = told {
                break anyhow::Ok(told["payload"].clone());
            }
        }
    });
    let offer = &told.await.context("nothing was told")??["updateAvailable"];
    assert_eq!((&offer["currentVersion"], &offer["latestVersion"]), (&json!("1.0.0"), &json!("2.0.0")));
    Ok(())
}

/// OpenClaw 2026.5 asks the registry itself, whatever it is told: it would offer again what was taken back.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_itself_finds_is_offered_to_nobody() -> anyhow::Result<()> {
    let noticing = Knobs { own_notice: Some("3.0.0".into()), ..speaking(WAITS) };
    let service = with_policy("update_button = \"openclaw\"\ncheck_every = \"100ms\"", &[]);
    let world = world(&service, &[("1.0.0", noticing), ("2.0.0", speaking(WAITS))]).await?;
    serving(&world, "1.0.0").await?;
    let mut before = Page::open(&world, ADMIN).await?;
    assert_eq!(before.hello["snapshot"].get("updateAvailable"), None, "{}", before.hello);
    before.payload("echo", json!({})).await?;
    assert_eq!(before.events[1]["payload"], json!({}), "{:?}", before.events);
    world.name_latest("2.0.0")?;
    world.until("the offer", |view| view.available.is_some()).await?;
    // What is claimed of new connections follows at once.
    let offered = async {
        loop {
            let mut page = Page::open(&world, ADMIN).await?;
            page.payload("echo", json!({})).await?;
            for event in
                before.events.iter().chain(&page.events).filter(|event| event["event"] == "update.available")
            {
                assert_ne!(event["payload"]["updateAvailable"]["latestVersion"], "3.0.0", "{event}");
                assert_eq!(event["seq"], 1, "{event}");
            }
            if let Some(offer) = page.hello["snapshot"].get("updateAvailable") {
                break anyhow::Ok(offer["latestVersion"].clone());
            }
        }
    };
    assert_eq!(timeout(LIMIT, offered).await.context("no offer")??, "2.0.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_that_press_together_get_one_run_and_both_an_answer() -> anyhow::Result<()> {
    let world = offering(WAITS, slow(WAITS)).await?;
    let (mut one, mut two) = (Page::open(&world, ADMIN).await?, Page::open(&world, ADMIN).await?);
    one.say("update.run", &json!({})).await?;
    two.say("update.run", &json!({})).await?;
    let (first, second) = (one.answer("update.run").await?, two.answer("update.run").await?);
    assert_eq!(first["payload"]["ok"], true, "{first}");
    assert_eq!(first["payload"], second["payload"]);
    assert_eq!((one.ended().await?.0, two.ended().await?.0), (Some(1012), Some(1012)));
    assert_eq!((presses(&world).await?, starts_of(&world, "2.0.0")), (1, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_button_and_the_command_line_meet_in_one_run() -> anyhow::Result<()> {
    let world = offering(WAITS, slow(WAITS)).await?;
    let mut page = Page::open(&world, ADMIN).await?;
    page.say("update.run", &json!({})).await?;
    let begun = world.until("the run", |view| view.report.actor.as_deref() == Some("button")).await?;
    let other = world.cutover(&["update", "--to", "1.0.0"]).await?;
    assert_eq!(other.status.code(), Some(8), "{}", told(&other));
    let answer = page.answer("update.run").await?["payload"].clone();
    assert_eq!(answer["runId"], json!(begun.report.run_id), "{answer}");
    assert_eq!(answer["ok"], true, "{answer}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_the_scope_is_refused_in_its_own_words_and_nothing_begins() -> anyhow::Result<()> {
    for (protocol, code) in [(WAITS, "INVALID_REQUEST"), (FOLLOWS, "FORBIDDEN")] {
        let world = offering(protocol, speaking(protocol)).await?;
        let mut page = Page::open(&world, &["operator.read"]).await?;
        for method in ["update.run", "update.status", "update.runs.list", "update.anything"] {
            let answer = page.call(method, json!({})).await?;
            assert_eq!((&answer["ok"], &answer["error"]["code"]), (&json!(false), &json!(code)), "{answer}");
            assert_eq!(answer["error"]["message"], "missing scope: operator.admin");
        }
        assert_eq!(presses(&world).await?, 0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_button_s_own_methods_are_reached_and_the_service_gets_none_of_them() -> anyhow::Result<()> {
    let world = offering(FOLLOWS, speaking(FOLLOWS)).await?;
    let mut page = Page::open(&world, ADMIN).await?;
    for (method, code) in [
        ("update.hold", "UNAVAILABLE"),
        ("update.report", "UNAVAILABLE"),
        ("update.cancel", "INVALID_REQUEST"),
        ("update.rollback", "INVALID_REQUEST"),
        ("update.recover", "INVALID_REQUEST"),
        ("update.runs.get", "INVALID_REQUEST"),
    ] {
        let answer = page.call(method, json!({})).await?;
        assert_eq!((&answer["ok"], &answer["error"]["code"]), (&json!(false), &json!(code)), "{answer}");
    }
    // What is not claimed is the service's.
    assert_eq!(
        page.call("service.stop", json!({})).await?["error"]["message"],
        "unknown method: service.stop"
    );
    assert_eq!(page.payload("echo", json!({ "a": 1 })).await?["params"]["a"], 1);
    serving(&world, "1.0.0").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_in_the_middle_of_the_run_still_gives_the_one_answer() -> anyhow::Result<()> {
    let mut world = offering(WAITS, slow(WAITS)).await?;
    let mut page = Page::open(&world, ADMIN).await?;
    page.say("update.run", &json!({})).await?;
    world.until("the cut", |view| view.report.phase.starts_with("cutting over")).await?;
    let front = processes(&world, "front");
    world.kill_daemon()?;
    world.start_daemon().await?;
    let answer = page.answer("update.run").await?["payload"].clone();
    assert_eq!(
        (&answer["ok"], &answer["status"]),
        (&json!(true), &json!("package_updated_restart_verified"))
    );
    assert_eq!(page.ended().await?, (Some(1012), Vec::new()));
    assert_eq!((presses(&world).await?, starts_of(&world, "2.0.0")), (1, 1), "no second run");
    assert_eq!(processes(&world, "front"), front);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_current_and_proves_itself_is_answered_without_a_restart() -> anyhow::Result<()> {
    let service = with_policy("update_button = \"openclaw\"", &[]);
    let world = world(&service, &[("1.0.0", speaking(WAITS))]).await?;
    let before = serving(&world, "1.0.0").await?.process;
    world.name_latest("1.0.0")?;
    let mut page = Page::open(&world, ADMIN).await?;
    let answer = page.payload("update.run", json!({})).await?;
    assert_eq!((&answer["ok"], &answer["result"]["status"]), (&json!(true), &json!("ok")), "{answer}");
    assert!(answer["status"].is_null(), "no update, so none of the four words: {answer}");
    assert_eq!(answer["result"]["before"], answer["result"]["after"]);
    assert_eq!(serving(&world, "1.0.0").await?.process, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_update_calls_are_the_service_s_own() -> anyhow::Result<()> {
    let world = world(&with_policy("check_every = \"0\"", &[]), &[("1.0.0", speaking(WAITS))]).await?;
    serving(&world, "1.0.0").await?;
    let mut page = Page::open(&world, ADMIN).await?;
    let answer = page.call("update.run", json!({})).await?;
    assert_eq!(answer["error"]["message"], "unknown method: update.run");
    assert_eq!(presses(&world).await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_available_is_what_an_update_would_take() -> anyhow::Result<()> {
    let service = with_policy("check_every = \"100ms\"", &[("crash_limit", "1")]);
    let world = world(&service, &[("1.0.0", Knobs::default()), ("2.0.0", Knobs::default())]).await?;
    serving(&world, "1.0.0").await?;
    world.name_latest("2.0.0")?;
    world.until("the offer", |view| view.available.as_ref().is_some_and(|it| it.version == "2.0.0")).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let installed = serving(&world, "2.0.0").await?;
    assert_eq!(installed.available, None, "it is installed");
    signal(installed.process.unwrap().pid, Signal::KILL)?;
    let reverted = world
        .until("the revert", |view| {
            view.report.trigger == Some(Kind::AutoRevert) && view.report.ended.is_some()
        })
        .await?;
    assert_eq!(reverted.available, None, "a channel does not bring back what was reverted");
    assert!(!told(&world.cutover(&["status"]).await?).contains("available"));
    Ok(())
}

fn all_threads_are_stopped(pid: u32) -> std::io::Result<bool> {
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(thread?.path().join("stat"))?;
        if !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_press_that_a_dead_daemon_never_took_up_is_told_so_and_begins_nothing_later() -> anyhow::Result<()>
{
    let mut world = offering(WAITS, speaking(WAITS)).await?;
    let mut page = Page::open(&world, ADMIN).await?;
    let daemon = world.daemon_mut().context("a daemon")?.id();
    signal(daemon, Signal::STOP)?;
    // One of its threads may still be at work for a moment.
    while !all_threads_are_stopped(daemon)? {
        tokio::task::yield_now().await;
    }
    page.say("update.run", &json!({})).await?;
    // The front hands on in order: once this is answered by the service, the press is on its way to the daemon.
    page.payload("echo", json!({})).await?;
    world.kill_daemon()?;
    world.start_daemon().await?;
    let answer = page.answer("update.run").await?["payload"].clone();
    assert_eq!(
        (&answer["ok"], &answer["result"]["reason"]),
        (&json!(false), &json!("interrupted")),
        "{answer}"
    );
    assert_eq!(presses(&world).await?, 0);
    serving(&world, "1.0.0").await?;
    let again = page.payload("update.run", json!({})).await?;
    assert_eq!(again["ok"], true, "the connection and the button still work: {again}");
    Ok(())
}
