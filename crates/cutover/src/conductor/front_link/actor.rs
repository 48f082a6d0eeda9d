//! Who keeps one front: puts it up, holds it in the wanted posture, puts up another where it is lost, and ends it.
//! Whatever the front does or does not do, whoever asks for its end is answered.

use super::super::acts;
use super::super::inbox::{Input, Reporter};
use super::super::interception::{Intercepted, Interceptor};
use super::super::lately::{Lately, exchanges};
use super::super::site::Site;
use super::{CALL, Farewell, Numbered, Order, Stance};
use crate::supervisor::process;
use cutover_core::{Instance, Posture};
use cutover_front::control::ControlClient;
use cutover_front::{Error, Stats};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

/// The same for one that has already let a call pass.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Between two tries to reach a new one.
const GREETING_PAUSE: Duration = Duration::from_millis(5);
/// How long a new front may take to stand.
const BOOT: Duration = Duration::from_secs(10);
/// How long the process of a lost front may take to be gone.
const FAREWELL: Duration = Duration::from_millis(500);
/// Between two looks at the front's numbers.
const STATS: Duration = Duration::from_millis(500);
/// So many looks in a row without an answer, of [`CALL`] each, and it is lost.
const SILENCES_MAX: u32 = 2;
/// After a front could not be put up.
const PAUSE: Duration = Duration::from_millis(500);

/// The front that outlived an earlier daemon. A dead one's socket refuses at once; one that takes connections and answers
/// nobody, twice as long as `limit`, is ended: `None` is said only where none stands.
///
/// # Errors
/// It is of another version of this program: what it does is not known, and it holds the addresses. Or it answers nobody,
/// and does not end.
pub(super) async fn standing(control: &Path, limit: Duration) -> anyhow::Result<Option<ControlClient>> {
    if reached(control).await?.is_none() {
        return Ok(None);
    }
    let mut answer = ControlClient::connect(control, limit).await;
    if matches!(answer, Err(Error::Reach { .. })) && reached(control).await?.is_some() {
        answer = ControlClient::connect(control, limit).await;
    }
    match answer {
        Ok(client) => Ok(Some(client)),
        Err(error @ Error::Foreign { .. }) => Err(anyhow::Error::from(error).context(
            "a front of another version of cutover stands; end the service with that version first",
        )),
        Err(error) => match reached(control).await? {
            None => Ok(None),
            Some(line) => {
                silenced(&line).await.map_err(|why| anyhow::Error::from(error).context(why))?;
                Ok(None)
            }
        },
    }
}

/// A connection to whoever listens on `control`, if anybody does.
async fn reached(control: &Path) -> anyhow::Result<Option<UnixStream>> {
    let error = match UnixStream::connect(control).await {
        Ok(line) => return Ok(Some(line)),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::ConnectionRefused => Ok(None),
        _ => Err(anyhow::Error::from(error)
            .context(format!("whether a front stands at {} cannot be seen", control.display()))),
    }
}

/// Ends the front at the other end of a connection.
async fn silenced(line: &UnixStream) -> Result<(), String> {
    let pid = line.peer_cred().map_err(|error| acts::told(&error))?.pid();
    // One of another pid namespace has none here.
    let pid = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
    let Some(pid) = pid else {
        return Err("what holds the front's socket does not answer, and cannot be ended from here".into());
    };
    let process = process::identify(pid).map_err(|error| acts::told(&error))?;
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_front = words.split(|byte| *byte == 0).nth(1) == Some(b"front");
    let (Some(process), true) = (process, is_front) else {
        return Err(format!(
            "pid {pid} has the front's socket, does not answer and is not known to be a front: end it"
        ));
    };
    tracing::warn!(%process, "a front stands and does not answer: it is ended");
    killed(&process).await
}

/// Ends a front, by force where it does not by itself.
pub(super) async fn ended(client: ControlClient) -> Result<(), String> {
    let process = process::identify(client.hello().pid);
    let why = match client.quit(CALL).await {
        Ok(()) if tokio::time::timeout(CALL, client.gone()).await.is_ok() => return Ok(()),
        Ok(()) => "it keeps its connection".to_owned(),
        Err(error) => acts::told(&error),
    };
    drop(client);
    let done = match process {
        Ok(Some(process)) => killed(&process).await,
        Ok(None) => return Ok(()),
        Err(error) => Err(acts::told(&error)),
    };
    done.map_err(|what| format!("the front does not end ({why}): {what}"))
}

async fn killed(process: &Instance) -> Result<(), String> {
    process::kill(process).map_err(|error| format!("{process}: {}", acts::told(&error)))?;
    match process::wait_gone(process, CALL).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("{process} outlives a KILL")),
        Err(error) => Err(format!("{process}: {}", acts::told(&error))),
    }
}

/// The wanted listeners: those that a standing front already has, the others bound anew.
pub(super) async fn listeners(
    site: &Site,
    standing: Option<&ControlClient>,
) -> anyhow::Result<Vec<TcpListener>> {
    let mut have = match standing {
        Some(client) => client.fetch_listeners(CALL).await?,
        None => Vec::new(),
    };
    let mut listeners = Vec::new();
    for address in &site.settings.listen {
        let held = have.iter().position(|listener| listener.local_addr().ok() == Some(*address));
        listeners.push(match held {
            Some(at) => have.swap_remove(at),
            None => cutover_front::bind(*address)?,
        });
    }
    Ok(listeners)
}

/// Why a front is not steered any more.
enum Steered {
    /// It went, or it does not answer.
    Lost,
    /// It answers, and lets nobody through.
    Useless,
    /// Nobody wants it any more.
    Unwanted,
    /// It is to end, for whoever waits for that.
    Left(Farewell),
}

/// Who keeps one front.
pub(super) struct Actor {
    pub site: Arc<Site>,
    pub listeners: Vec<TcpListener>,
    pub desires: watch::Receiver<Option<Numbered>>,
    pub confirm: watch::Sender<Stance>,
    pub count: watch::Sender<Option<Stats>>,
    pub trouble: watch::Sender<Option<String>>,
    /// Looks in a row that the front did not answer.
    pub silences: u32,
    pub looks: Arc<Mutex<Lately>>,
    pub orders: mpsc::Receiver<Order>,
    /// Which front stands, by its number.
    pub stands: watch::Sender<Option<u64>>,
    /// Which front is to be replaced.
    pub useless: watch::Receiver<Option<u64>>,
    pub reporter: Reporter,
    pub interceptor: Option<Interceptor>,
}

impl Actor {
    /// Waits until the addresses are taken over, and is a front from then on.
    pub(super) async fn wait_and_run(mut self) {
        while let Some(order) = self.orders.recv().await {
            match order {
                Order::TakeOver { limit, mut reply } => {
                    let bound = tokio::select! {
                        bound = self.bind_within(limit) => bound,
                        // Whoever asked has given up: the address stays with whoever has it.
                        () = reply.closed() => continue,
                    };
                    let is_ours = bound.is_ok();
                    let _ = reply.send(bound);
                    if is_ours {
                        return self.run(None).await;
                    }
                }
                order => {
                    if let Some(farewell) = self.answer(order) {
                        return self.leave(farewell, None).await;
                    }
                }
            }
        }
    }

    /// Answers an order where there is no front. Whoever waits for its end is handed back.
    fn answer(&mut self, order: Order) -> Option<Farewell> {
        match order {
            Order::Answers { reply, .. } | Order::Drain { reply, .. } => drop(reply.send(None)),
            Order::Count { reply } => drop(reply.send(None)),
            Order::Claim { claim, reply } => {
                if let Some(ours) = &mut self.interceptor {
                    ours.claim = claim;
                }
                let _ = reply.send(());
            }
            Order::TakeOver { reply, .. } => drop(reply.send(Ok(()))),
            Order::Quit { reply } => return Some(reply),
        }
        None
    }

    /// Answers what is asked for as long as no front is put up; ends early with whoever waits for its end.
    async fn pause(&mut self, pause: Duration) -> Option<Farewell> {
        let asked = async {
            while let Some(order) = self.orders.recv().await {
                if let Some(farewell) = self.answer(order) {
                    return farewell;
                }
            }
            std::future::pending().await
        };
        tokio::time::timeout(pause, asked).await.ok()
    }

    /// Leaves the addresses to whoever wants them, and says so.
    async fn leave(mut self, farewell: Farewell, front: Option<ControlClient>) {
        let left = match front {
            Some(front) => ended(front).await,
            None => Ok(()),
        };
        // What this process holds of the sockets keeps them open too.
        self.listeners.clear();
        self.trouble.send_replace(None);
        if left.is_ok() {
            self.confirm.send_replace(Stance::Closed);
        }
        let _ = farewell.send(left);
    }

    async fn bind_within(&mut self, limit: Duration) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            match listeners(&self.site, None).await {
                Ok(listeners) => {
                    self.listeners = listeners;
                    return Ok(());
                }
                Err(error) if begun.elapsed() > limit => return Err(format!("{error:#}")),
                Err(_) => tokio::time::sleep(GREETING_PAUSE).await,
            }
        }
    }

    pub(super) async fn run(mut self, mut standing: Option<ControlClient>) {
        let (mut number, mut last) = (0, None);
        loop {
            let client = match standing.take() {
                Some(client) => Ok(client),
                None => self.boot().await,
            };
            let client = match client {
                Ok(client) => client,
                Err(error) => {
                    let told = acts::told(&error);
                    tracing::error!(service = self.site.settings.name, error = told, "no front");
                    self.trouble
                        .send_replace(Some(format!("its front cannot be put up, clients wait: {told}")));
                    self.count.send_replace(None);
                    match self.pause(PAUSE).await {
                        Some(farewell) => return self.leave(farewell, None).await,
                        None => continue,
                    }
                }
            };
            let process = process::identify(client.hello().pid).ok().flatten();
            self.silences = 0;
            self.trouble.send_replace(None);
            // One that is taken up again is no other.
            if process.is_none() || process != last {
                number += 1;
            }
            last.clone_from(&process);
            let steered = self.steer(&client, number).await;
            self.stands.send_replace(None);
            match steered {
                Ok(Steered::Left(farewell)) => return self.leave(farewell, Some(client)).await,
                Ok(Steered::Unwanted) => {
                    self.confirm.send_replace(Stance::Closed);
                    return;
                }
                Ok(Steered::Lost) => tracing::warn!(service = self.site.settings.name, "the front is lost"),
                Ok(Steered::Useless) => {
                    let left = ended(client.clone()).await;
                    tracing::warn!(service = self.site.settings.name, ?left, "nobody gets through the front");
                }
                Err(error) => {
                    tracing::warn!(service = self.site.settings.name, %error, "the front is lost")
                }
            }
            self.confirm.send_replace(Stance::Unknown);
            self.count.send_replace(None);
            drop(client);
            standing = self.replaced(process).await;
            if standing.is_none() {
                self.confirm.send_replace(Stance::Closed);
                self.reporter.send(Input::FrontLost).await;
            }
            // One that is lost again and again would listen to nobody.
            if let Some(farewell) = self.pause(Duration::ZERO).await {
                return self.leave(farewell, standing).await;
            }
        }
    }

    /// A front that lost its connection but lives still lets requests through: it is taken up again, or ended before
    /// another takes its place.
    async fn replaced(&self, process: Option<Instance>) -> Option<ControlClient> {
        let process = process?;
        let gone = process::wait_gone(&process, FAREWELL).await;
        if matches!(gone, Ok(true)) {
            return None;
        }
        if let Ok(Some(client)) = standing(&self.site.layout.front(&self.site.settings.name), LAST_WORD).await
            && client.hello().pid == process.pid
        {
            return Some(client);
        }
        tracing::warn!(service = self.site.settings.name, %process, "the front does not answer: it is ended");
        while !matches!(process::wait_gone(&process, FAREWELL).await, Ok(true)) {
            if let Err(error) = process::kill(&process) {
                tracing::error!(service = self.site.settings.name, error = acts::told(&error), "front");
                tokio::time::sleep(PAUSE).await;
            }
        }
        None
    }

    /// Puts a new front up. It boots closed.
    async fn boot(&self) -> Result<ControlClient, Error> {
        let name = &self.site.settings.name;
        let control = self.site.layout.front(name);
        let path = control.clone();
        let child = Command::new(&self.site.executable)
            .arg("front")
            .args(["--service", name, "--control"])
            .arg(&control)
            .arg("--probe")
            .arg(self.site.layout.probe_lane(name))
            .args(["--held-max", &self.site.settings.held_max.to_string()])
            .args(["--hold-ms", &self.site.settings.policy.hold.as_millis().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn();
        let mut child = child.map_err(|source| Error::Reach { path, limit: BOOT, source })?;
        let pid = child.id();
        let deadline = Instant::now() + BOOT;
        let connected = loop {
            let connected =
                ControlClient::connect(&control, deadline.saturating_duration_since(Instant::now())).await;
            // Whoever else answers under the name is not the one that was started.
            if !connected.as_ref().is_ok_and(|client| client.hello().pid != pid) {
                break connected;
            }
            tokio::time::sleep(GREETING_PAUSE).await;
        };
        if connected.is_err() {
            // Too late is never: two fronts must not share the sockets.
            let _ = child.kill();
        }
        // Reaped when it ends; its end is noticed on the control connection.
        drop(std::thread::spawn(move || child.wait()));
        connected
    }

    /// Keeps one front in the wanted posture until it is lost or nobody steers it any more.
    async fn steer(&mut self, client: &ControlClient, number: u64) -> Result<Steered, Error> {
        // What an earlier daemon claimed is not claimed any more, and nobody is let in before what is.
        client.claim(self.interceptor.as_ref().map(|ours| ours.claim.clone()), CALL).await?;
        client.pass_listeners(&self.listeners, CALL).await?;
        self.stands.send_replace(Some(number));
        self.desires.mark_changed();
        let mut look = tokio::time::interval(STATS);
        loop {
            tokio::select! {
                biased;
                () = client.gone() => return Ok(Steered::Lost),
                changed = self.desires.changed() => {
                    if changed.is_err() {
                        return Ok(Steered::Unwanted);
                    }
                    if let Some(Numbered { number, wanted }) = self.next() {
                        crate::crash_point!("posture: before");
                        client.set_posture(wanted.posture, CALL).await?;
                        crate::crash_point!("posture: set");
                        self.confirm.send_replace(Stance::Is(number, wanted.word));
                    }
                }
                claimed = client.claimed() => {
                    if let Some(ours) = &self.interceptor {
                        ours.take(Intercepted::new(claimed, client.clone()));
                    }
                }
                Some(order) = self.orders.recv() => match order {
                    Order::Claim { claim, reply } => {
                        if let Some(ours) = &mut self.interceptor {
                            ours.claim = claim.clone();
                            client.claim(Some(claim), CALL).await?;
                        }
                        let _ = reply.send(());
                    }
                    Order::Answers { limit, reply } => {
                        let client = client.clone();
                        tokio::spawn(async move {
                            let _ = reply.send(client.answers(limit, limit + CALL).await.ok());
                        });
                    }
                    Order::Drain { limit, reply } => {
                        let client = client.clone();
                        tokio::spawn(async move {
                            let drained = client.drain(limit, limit + CALL).await;
                            let _ = reply.send(drained.ok().map(|drained| drained.cut));
                        });
                    }
                    Order::Count { reply } => {
                        let counted = client.stats(CALL).await.ok();
                        let _ = reply.send(counted.as_ref().map(exchanges));
                    }
                    Order::TakeOver { reply, .. } => drop(reply.send(Ok(()))),
                    Order::Quit { reply } => return Ok(Steered::Left(reply)),
                },
                Ok(()) = self.useless.changed() => if *self.useless.borrow_and_update() == Some(number) {
                    return Ok(Steered::Useless);
                },
                _ = look.tick() => if !self.is_heard(client).await {
                    return Ok(Steered::Lost);
                },
            }
        }
    }

    /// Takes the front's numbers in. Answers whether it is there: one that answers nobody is as bad as none, since clients
    /// wait for it without end.
    async fn is_heard(&mut self, client: &ControlClient) -> bool {
        let stats = client.stats(CALL).await.ok();
        self.silences = if stats.is_some() { 0 } else { self.silences + 1 };
        if let Some(stats) = &stats {
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            looks.look(Instant::now(), exchanges(stats));
        }
        self.count.send_replace(stats);
        self.silences < SILENCES_MAX
    }

    /// The newest want. A front that is about to be told to serve is not known to be closed any more: that is said while
    /// the want is still borrowed, so before a newer one can be asked about.
    fn next(&mut self) -> Option<Numbered> {
        let newest = self.desires.borrow_and_update();
        if newest.as_ref().is_some_and(|newest| newest.wanted.word == Posture::Serve) {
            self.confirm.send_replace(Stance::Unknown);
        }
        newest.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_the_socket_and_is_no_front_is_told_and_not_ended() {
        let ground = tempfile::tempdir().unwrap();
        let control = ground.path().join("front.sock");
        let brief = Duration::from_millis(50);
        let beneath = ground.path().join("file");
        std::fs::write(&beneath, "").unwrap();
        for nowhere in [control.clone(), beneath.join("front.sock")] {
            assert!(standing(&nowhere, brief).await.unwrap().is_none(), "there is none");
        }
        let _listener = tokio::net::UnixListener::bind(&control).unwrap();
        let refused = format!("{:#}", standing(&control, brief).await.err().unwrap());
        let own = format!("pid {} has the front's socket", std::process::id());
        assert!(refused.contains(&own) && refused.contains("not known to be a front"), "{refused}");
    }
}
