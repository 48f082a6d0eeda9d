//! A front in this process, its daemon, and its public address.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::task::Poll;
use std::time::Duration;

use cutover_front::control::ControlClient;
use cutover_front::{
    Drained, HoldId, Limits, Notice, Options, Patience, Posture, Stats, Upstream, bind, serve,
};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::visitor::{LIMIT, Visitor};

pub(crate) struct Stage {
    pub(crate) daemon: ControlClient,
    pub(crate) address: SocketAddr,
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) directory: TempDir,
    stop: CancellationToken,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(Limits::default(), LIMIT).await
    }

    pub(crate) async fn with(limits: Limits, hold_limit: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (control, probe) = (directory.path().join("web.sock"), directory.path().join("web.probe.sock"));
        let stop = CancellationToken::new();
        let options = Options {
            service: "web".into(),
            control: control.clone(),
            probe,
            patience: patience(hold_limit),
            limits,
        };
        let front = serve(options, stop.clone());
        tokio::spawn(async move { front.await.expect("a front") });
        let daemon = ControlClient::connect(&control, LIMIT).await.unwrap();
        let listeners = vec![bind("127.0.0.1:0".parse().unwrap()).unwrap()];
        let address = daemon.pass_listeners(&listeners, LIMIT).await.unwrap()[0];
        Self { daemon, address, listeners, directory, stop }
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.directory.path().join("web.sock")
    }

    pub(crate) async fn serve(&self, address: SocketAddr) {
        self.daemon.set_posture(serving(address), LIMIT).await.unwrap();
    }

    pub(crate) async fn hold(&self, id: &str) {
        self.hold_for(id, LIMIT, None).await;
    }

    pub(crate) async fn hold_for(&self, id: &str, limit: Duration, lane: Option<SocketAddr>) {
        let posture = Posture::Hold {
            hold: HoldId::from(id),
            patience: patience(limit),
            upstream: lane.map(Upstream::at),
        };
        self.daemon.set_posture(posture, LIMIT).await.unwrap();
    }

    /// Orders a drain and returns once the front has begun it.
    pub(crate) async fn begin_drain(&self) -> JoinHandle<Drained> {
        let daemon = self.daemon.clone();
        let mut draining = Box::pin(async move { daemon.drain(LIMIT, LIMIT).await.unwrap() });
        std::future::poll_fn(|cx| {
            assert!(draining.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        // Orders are taken in the order in which they were given.
        self.stats().await;
        tokio::spawn(draining)
    }

    pub(crate) async fn visitor(&self) -> Visitor {
        Visitor::to(self.address).await
    }

    pub(crate) async fn prober(&self) -> Visitor<UnixStream> {
        Visitor::on(UnixStream::connect(self.directory.path().join("web.probe.sock")).await.unwrap())
    }

    pub(crate) async fn stats(&self) -> Stats {
        self.daemon.stats(LIMIT).await.unwrap()
    }

    /// Waits until the front's numbers are as wanted.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Stats) -> bool) -> Stats {
        let deadline = Instant::now() + LIMIT;
        loop {
            let stats = self.stats().await;
            if wanted(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "never {what}: {stats:?}");
            sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn serving(address: SocketAddr) -> Posture {
    Posture::Serve { upstream: Upstream::at(address), patience: patience(LIMIT) }
}

pub(crate) fn holding(id: &str) -> Posture {
    Posture::Hold { hold: HoldId::from(id), patience: patience(LIMIT), upstream: None }
}

pub(crate) fn patience(limit: Duration) -> Patience {
    Patience { limit, notice: notice() }
}

pub(crate) fn notice() -> Notice {
    Notice {
        service: "web".into(),
        sentence: "web is being updated.".into(),
        reason: "the new version takes longer than expected".into(),
        what_serves: Some("nothing at the moment".into()),
        commands: vec!["cutover recover web --retry".into()],
        retry_after: 7,
        run_id: Some("run-1".into()),
    }
}

/// Waits until something outside the front has become true.
pub(crate) async fn until(what: &str, wanted: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !wanted() {
        assert!(Instant::now() < deadline, "never {what}");
        sleep(Duration::from_millis(2)).await;
    }
}
