//! The front as a real process: killed, replaced, told to end.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use cutover_front::bind;
use cutover_front::control::ControlClient;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::drain::slow;
use crate::service::Service;
use crate::stage::{holding, serving, until};
use crate::visitor::{LIMIT, Visitor};

/// A front process; killed with the test.
struct Front(Child);

impl Front {
    fn spawn(directory: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_front-fixture"))
            .args([directory.join("web.sock"), directory.join("web.probe.sock")])
            .arg("10000")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn take(directory: &Path, listeners: &[TcpListener]) -> ControlClient {
    let daemon = ControlClient::connect(&directory.join("web.sock"), LIMIT).await.unwrap();
    daemon.pass_listeners(listeners, LIMIT).await.unwrap();
    daemon
}

#[tokio::test]
async fn a_front_that_is_killed_and_replaced_on_the_same_socket_refuses_no_connection() {
    let directory = tempfile::tempdir().unwrap();
    let listeners = [bind("127.0.0.1:0".parse().unwrap()).unwrap()];
    let address = listeners[0].local_addr().unwrap();
    let service = Service::named("v1").await;
    let mut front = Front::spawn(directory.path());
    let mut daemon = take(directory.path(), &listeners).await;
    daemon.set_posture(serving(service.address), LIMIT).await.unwrap();

    let done = CancellationToken::new();
    let load = tokio::spawn({
        let done = done.clone();
        async move {
            let mut served = 0;
            while !done.is_cancelled() {
                // Must always connect; the answer is lost only if the front dies while it has the connection.
                let mut visitor = Visitor::to(address).await;
                visitor.ask_for("/").await;
                served += usize::from(visitor.fill().await > 0);
            }
            served
        }
    });
    for _ in 0..3 {
        until("traffic", || service.asked().len() >= 20).await;
        front.kill();
        daemon.gone().await;
        let mut waiting = Visitor::to(address).await;
        waiting.ask_for("/waited").await;
        front = Front::spawn(directory.path());
        daemon = take(directory.path(), &listeners).await;
        daemon.set_posture(serving(service.address), LIMIT).await.unwrap();
        assert_eq!(waiting.answer().await.body, "v1", "who came meanwhile waited in the backlog");
    }
    done.cancel();
    assert!(load.await.expect("no connection was refused") > 20);
}

#[tokio::test]
async fn the_front_outlives_its_daemon_and_a_hangup() {
    let directory = tempfile::tempdir().unwrap();
    let listeners = [bind("127.0.0.1:0".parse().unwrap()).unwrap()];
    let address = listeners[0].local_addr().unwrap();
    let service = Service::named("v1").await;
    let mut front = Front::spawn(directory.path());
    let daemon = take(directory.path(), &listeners).await;
    daemon.set_posture(serving(service.address), LIMIT).await.unwrap();
    assert_eq!(front.0.id(), daemon.hello().pid);
    drop((daemon, listeners));
    front.signal(Signal::HUP);
    for _ in 0..3 {
        assert_eq!(Visitor::to(address).await.get("/").await.status, 200);
    }
    let daemon = ControlClient::connect(&directory.path().join("web.sock"), LIMIT).await.unwrap();
    let back = daemon.fetch_listeners(LIMIT).await.unwrap();
    assert_eq!(back[0].local_addr().unwrap(), address);
    front.kill();
    daemon.gone().await;
}

#[tokio::test]
async fn a_front_that_is_told_to_end_finishes_what_is_open_and_leaves_no_sockets() {
    let directory = tempfile::tempdir().unwrap();
    for how in ["term", "quit"] {
        let listeners = [bind("127.0.0.1:0".parse().unwrap()).unwrap()];
        let go = Arc::new(Notify::new());
        let service = slow(go.clone()).await;
        let mut front = Front::spawn(directory.path());
        let daemon = take(directory.path(), &listeners).await;
        daemon.set_posture(serving(service.address), LIMIT).await.unwrap();
        let mut visitor = Visitor::to(listeners[0].local_addr().unwrap()).await;
        visitor.ask_for("/slow").await;
        until("asked", || service.asked().len() == 1).await;
        // Who waits is told so; an ordinary end keeps nobody hanging.
        daemon.set_posture(holding("last"), LIMIT).await.unwrap();
        let mut waiting = Visitor::to(listeners[0].local_addr().unwrap()).await;
        waiting.ask_for("/").await;
        while daemon.stats(LIMIT).await.unwrap().held == 0 {
            tokio::task::yield_now().await;
        }
        if how == "term" {
            front.signal(Signal::TERM);
        } else {
            daemon.quit(LIMIT).await.unwrap();
        }
        assert_eq!(waiting.answer().await.status, 503, "{how}");
        go.notify_one();
        assert_eq!(visitor.answer().await.body, "slow", "{how}");
        daemon.gone().await;
        let ended = tokio::task::spawn_blocking(move || front.0.wait().unwrap()).await.unwrap();
        assert!(ended.success(), "{how}: {ended}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "{how}");
    }
}
