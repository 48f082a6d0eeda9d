//! The real gateway, and what becomes of it when its files are replaced below it: the defect that all of this is
//! about, and the proof that the sweep and the page can fail.

#![allow(clippy::unwrap_used, reason = "a step that fails is the failing test")]

use cutover_testkit::openclaw::{Answer, Client, LATEST, NEW, OLD, Page, Runtime, fetch, sweep};
use cutover_testkit::slow;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

const TOKEN: &str = "only-for-this-test";
const INSTALL: Duration = Duration::from_secs(600);
const BOOT: Duration = Duration::from_secs(180);
const CALL: Duration = Duration::from_secs(45);

fn cache() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/ci");
    std::env::var_os("CUTOVER_TEST_CACHE").map_or_else(default, PathBuf::from)
}

/// One test at a time: they install into the same cache, and a second gateway makes the first one slow.
static ALONE: Mutex<()> = Mutex::const_new(());

struct Gateway {
    process: Child,
    address: SocketAddr,
}

impl Gateway {
    async fn start(runtime: &Runtime, package: &Path, home: &Path) -> Gateway {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let process = Command::new(runtime.node())
            .arg(package.join("dist/index.js"))
            .args(["gateway", "--bind", "loopback", "--auth", "token", "--allow-unconfigured", "--port"])
            .arg(port.to_string())
            .env_clear()
            .env("PATH", runtime.bin())
            .env("HOME", home)
            .env("TMPDIR", home)
            .env("OPENCLAW_GATEWAY_TOKEN", TOKEN)
            // As in the preset; 2026.5 does not read it.
            .env("OPENCLAW_SUPERVISOR_MODE", "external")
            .envs(
                ["NO_AUTO_UPDATE", "SKIP_CHANNELS", "SKIP_CRON", "SKIP_BROWSER_CONTROL_SERVER"]
                    .map(|name| (format!("OPENCLAW_{name}"), "1")),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut gateway = Gateway { process, address: (Ipv4Addr::LOCALHOST, port).into() };
        timeout(BOOT, async {
            while gateway.status_of("/readyz").await != Some(200) {
                assert_eq!(gateway.process.try_wait().unwrap(), None, "the gateway ended while starting");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await
        .unwrap();
        gateway
    }

    async fn status_of(&self, path: &str) -> Option<u16> {
        fetch(self.address, path, None, CALL).await.ok().map(|reply| reply.status)
    }
}

/// Copies a tree. Hard links would be quicker, and the gateway would refuse to open them.
fn copy(from: &Path, to: &Path) {
    let copied =
        std::process::Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[tokio::test]
async fn r78110_a_gateway_whose_files_were_replaced_fails_calls_while_its_health_stays_green() {
    if !slow::is_asked_for("real", "a gateway whose files were replaced") {
        return;
    }
    let _alone = ALONE.lock().await;
    let cache = cache();
    let runtime = Runtime::kept_in(&cache, INSTALL).await.unwrap();
    let old = runtime.gateway(OLD, &cache.join("openclaw").join(OLD), INSTALL).await.unwrap();
    let new = runtime.gateway(NEW, &cache.join("openclaw").join(NEW), INSTALL).await.unwrap();
    let scratch = tempfile::tempdir_in(&cache).unwrap();
    let live = scratch.path().join("node_modules");
    copy(old.parent().unwrap(), &live);
    let replacement = scratch.path().join("replacement");
    copy(&new, &replacement);

    let live = live.join("openclaw");
    let gateway = Gateway::start(&runtime, &live, scratch.path()).await;
    let mut client = Client::connect(gateway.address, TOKEN, CALL).await.unwrap();
    assert_eq!(client.hello().version, OLD);
    // Without a call before, not one of the sixty is answered afterwards.
    client.call("health", &json!({}), CALL).await.unwrap();
    let page = Page::read(gateway.address, CALL).await.unwrap();
    assert!(page.files.len() >= 40, "the page has only {:?}", page.files);
    assert_eq!(page.missing(gateway.address, CALL).await, Default::default());

    // What an update in place does, at its quickest.
    std::fs::rename(&live, scratch.path().join("replaced")).unwrap();
    std::fs::rename(&replacement, &live).unwrap();

    for probe in ["/healthz", "/readyz"] {
        assert_eq!(
            gateway.status_of(probe).await,
            Some(200),
            "{probe} noticed what nobody believed it would"
        );
    }
    let swept = sweep(gateway.address, TOKEN, CALL).await;
    assert_eq!(swept.calls(), 60);
    assert!(!swept.gone.is_empty(), "no call noticed that its code was gone");
    let missing = page.missing(gateway.address, CALL).await;
    assert!(missing.len() * 2 > page.files.len(), "of {:?} only {missing:?} are missing", page.files);
    eprintln!(
        "replaced below a running {OLD}: of {} calls {} answered, {} without their code, {} failed otherwise; \
         of {} files {} missing",
        swept.calls(),
        swept.answered,
        swept.gone.len(),
        swept.failed.len(),
        page.files.len(),
        missing.len(),
    );
}

#[tokio::test]
async fn an_untouched_gateway_answers_the_whole_sweep_in_both_versions() {
    if !slow::is_asked_for("real", "an untouched gateway answers the whole sweep") {
        return;
    }
    let _alone = ALONE.lock().await;
    let cache = cache();
    let runtime = Runtime::kept_in(&cache, INSTALL).await.unwrap();
    for version in [OLD, NEW] {
        let package = runtime.gateway(version, &cache.join("openclaw").join(version), INSTALL).await.unwrap();
        let home = tempfile::tempdir_in(&cache).unwrap();
        let mut gateway = Gateway::start(&runtime, &package, home.path()).await;
        let swept = sweep(gateway.address, TOKEN, CALL).await;
        assert_eq!((swept.calls(), swept.answered), (60, 60), "{version}: {swept:#?}");
        gateway.process.kill().await.unwrap();
    }
}

/// What the preset rests on: it says whether it is idle, leaves updates to others, and ends with 0 when it wants to be
/// started again.
#[tokio::test]
async fn a_supervised_gateway_refuses_to_update_itself_and_ends_with_0_to_be_started_again() {
    if !slow::is_asked_for("real", "a supervised gateway") {
        return;
    }
    let _alone = ALONE.lock().await;
    let cache = cache();
    let runtime = Runtime::kept_in(&cache, INSTALL).await.unwrap();
    let [version, _] = LATEST;
    let package = runtime.gateway(version, &cache.join("openclaw").join(version), INSTALL).await.unwrap();
    let home = tempfile::tempdir_in(&cache).unwrap();
    let mut gateway = Gateway::start(&runtime, &package, home.path()).await;
    let mut client = Client::connect(gateway.address, TOKEN, CALL).await.unwrap();

    let told = given(&mut client, "gateway.restart.preflight", &json!({})).await;
    assert!(told["safe"].is_boolean(), "{told}");
    let update = given(&mut client, "update.run", &json!({})).await;
    assert_eq!(update["ok"], false, "{update}");
    assert_eq!(update["result"]["reason"], "external-supervisor-update-required");

    given(&mut client, "gateway.restart.request", &json!({"reason": "a test asks for it"})).await;
    let ended = timeout(BOOT, gateway.process.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
}

async fn given(client: &mut Client, method: &str, params: &Value) -> Value {
    match client.call(method, params, CALL).await.unwrap() {
        Answer::Given(payload) => payload,
        Answer::Denied(error) => panic!("{method}: {error}"),
    }
}
