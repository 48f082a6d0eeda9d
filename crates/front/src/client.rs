//! The daemon's side of the control protocol.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::control::{Answer, Call, Hello, Order, PROTOCOL, Word};
use crate::wire::{LineReader, LineWriter, split};
use crate::{Claim, Claimed, Drained, Error, Posture, Say, Stats};

/// The pause between attempts to reach a front that is still starting.
const RETRY: Duration = Duration::from_millis(5);
const CALLS_MAX: usize = 64;

/// A daemon's hold on one front. Dropping it leaves the front in its last posture.
#[derive(Clone, Debug)]
pub struct ControlClient {
    calls: mpsc::Sender<Pending>,
    claimed: Arc<Mutex<mpsc::UnboundedReceiver<Claimed>>>,
    gone: CancellationToken,
    hello: Arc<Hello>,
}

struct Pending {
    order: Order,
    descriptors: Vec<OwnedFd>,
    answer: oneshot::Sender<(Answer, Vec<OwnedFd>)>,
}

impl ControlClient {
    /// Connects to the front at `path`, waiting until `limit` for one that is still starting. Replaces any other
    /// daemon.
    ///
    /// # Errors
    /// [`Error::Reach`] if nobody answered, [`Error::Foreign`] if it is not a front of this protocol.
    pub async fn connect(path: &Path, limit: Duration) -> Result<Self, Error> {
        let deadline = Instant::now() + limit;
        let reach = |source| Error::Reach { path: path.to_owned(), limit, source };
        loop {
            let last = match timeout_at(deadline, greet(path)).await {
                Ok(Ok((reader, writer, hello))) => {
                    let hello = serde_json::from_slice::<Hello>(&hello)
                        .map_err(|error| Error::Foreign { path: path.to_owned(), why: error.to_string() })?;
                    if hello.protocol != PROTOCOL {
                        let why = format!("it speaks protocol {}, not {PROTOCOL}", hello.protocol);
                        return Err(Error::Foreign { path: path.to_owned(), why });
                    }
                    return Ok(Self::start(reader, writer, hello));
                }
                Ok(Err(error)) => error,
                Err(late) => return Err(reach(late.into())),
            };
            if Instant::now() + RETRY >= deadline {
                return Err(reach(last));
            }
            sleep(RETRY).await;
        }
    }

    fn start(reader: LineReader, writer: LineWriter, hello: Hello) -> Self {
        let (calls, inbox) = mpsc::channel(CALLS_MAX);
        let (claims, claimed) = mpsc::unbounded_channel();
        let gone = CancellationToken::new();
        let ended = gone.clone().drop_guard();
        tokio::spawn(async move {
            let _ended = ended;
            if let Err(error) = correspond(reader, writer, inbox, claims).await {
                debug!(%error, "the front's control connection");
            }
        });
        Self { calls, claimed: Arc::new(Mutex::new(claimed)), gone, hello: Arc::new(hello) }
    }

    /// What the front said when the connection began.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Waits until the connection has ended: the front is gone, or a newer daemon has taken over.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Makes the front accept on exactly these sockets; returns their addresses. The caller keeps its own.
    ///
    /// # Errors
    /// [`Error::Duplicate`] here, [`Error::Refused`] if the front cannot use them, [`Error::Gone`], [`Error::Overdue`].
    pub async fn pass_listeners(
        &self,
        listeners: &[TcpListener],
        limit: Duration,
    ) -> Result<Vec<SocketAddr>, Error> {
        let duplicate = |listener: &TcpListener| {
            let socket = listener.as_fd().try_clone_to_owned();
            socket.map_err(|source| Error::Duplicate { address: listener.local_addr().ok(), source })
        };
        let descriptors = listeners.iter().map(duplicate).collect::<Result<Vec<_>, _>>()?;
        let order = Order::Listen { sockets: descriptors.len() };
        match self.call(order, descriptors, limit).await? {
            (Answer::Listening(addresses), _) => Ok(addresses),
            (other, _) => Err(unexpected("listen", &other)),
        }
    }

    /// Duplicates of the sockets on which the front accepts, so that a restarted daemon holds them again.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Gone`], [`Error::Overdue`].
    pub async fn fetch_listeners(&self, limit: Duration) -> Result<Vec<TcpListener>, Error> {
        match self.call(Order::Sockets, Vec::new(), limit).await? {
            (Answer::Sockets(_), sockets) => Ok(sockets.into_iter().map(TcpListener::from).collect()),
            (other, _) => Err(unexpected("hand back its sockets", &other)),
        }
    }

    /// Sets the posture. When this returns, the front is in it: no request passes under the former one any more.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Gone`], [`Error::Overdue`]; after the last two the posture is not known.
    pub async fn set_posture(&self, posture: Posture, limit: Duration) -> Result<(), Error> {
        match self.call(Order::Posture(posture.clone()), Vec::new(), limit).await? {
            (Answer::Is(now), _) if now == posture => Ok(()),
            (other, _) => Err(unexpected(posture.word(), &other)),
        }
    }

    /// Waits until no WebSocket is owed an answer by the process that is about to be stopped, for `answer_limit` at most;
    /// answers how many still are. To be ordered after a hold was set and before the process is told to end. `limit`
    /// bounds the call and should exceed `answer_limit`.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Gone`], [`Error::Overdue`].
    pub async fn answers(&self, answer_limit: Duration, limit: Duration) -> Result<u64, Error> {
        match self.call(Order::Answers { limit: answer_limit }, Vec::new(), limit).await? {
            (Answer::Owed(owed), _) => Ok(owed),
            (other, _) => Err(unexpected("wait for answers", &other)),
        }
    }

    /// Waits until no exchange with a former upstream is open; what is left after `drain_limit` is cut. To be ordered
    /// after a hold was set, while the process ends. `limit` bounds the call and should exceed `drain_limit` by 3 s.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Gone`], [`Error::Overdue`].
    pub async fn drain(&self, drain_limit: Duration, limit: Duration) -> Result<Drained, Error> {
        match self.call(Order::Drain { limit: drain_limit }, Vec::new(), limit).await? {
            (Answer::Drained(drained), _) => Ok(drained),
            (other, _) => Err(unexpected("drain", &other)),
        }
    }

    /// Claims calls on WebSockets that are opened from now on, or none.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Gone`], [`Error::Overdue`].
    pub async fn claim(&self, claim: Option<Claim>, limit: Duration) -> Result<(), Error> {
        match self.call(Order::Claim(claim), Vec::new(), limit).await? {
            (Answer::Claims, _) => Ok(()),
            (other, _) => Err(unexpected("claim calls", &other)),
        }
    }

    /// The next call that was claimed. Pends for ever once the front is gone; it may be dropped at any moment.
    pub async fn claimed(&self) -> Claimed {
        match self.claimed.lock().await.recv().await {
            Some(claimed) => claimed,
            None => std::future::pending().await,
        }
    }

    /// Says something on a WebSocket; answers whether there was still somebody to say it to.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Gone`], [`Error::Overdue`].
    pub async fn say(&self, say: Say, limit: Duration) -> Result<bool, Error> {
        match self.call(Order::Say(say), Vec::new(), limit).await? {
            (Answer::Said(is_said), _) => Ok(is_said),
            (other, _) => Err(unexpected("say something", &other)),
        }
    }

    /// The front's numbers.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Gone`], [`Error::Overdue`].
    pub async fn stats(&self, limit: Duration) -> Result<Stats, Error> {
        match self.call(Order::Stats, Vec::new(), limit).await? {
            (Answer::Stats(stats), _) => Ok(stats),
            (other, _) => Err(unexpected("tell its numbers", &other)),
        }
    }

    /// Tells the front to stop accepting, finish what is open and end. Its end shows in [`Self::gone`].
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Gone`], [`Error::Overdue`].
    pub async fn quit(&self, limit: Duration) -> Result<(), Error> {
        match self.call(Order::Quit, Vec::new(), limit).await? {
            (Answer::Quitting, _) => Ok(()),
            (other, _) => Err(unexpected("quit", &other)),
        }
    }

    async fn call(
        &self,
        order: Order,
        descriptors: Vec<OwnedFd>,
        limit: Duration,
    ) -> Result<(Answer, Vec<OwnedFd>), Error> {
        let word = order.word();
        let (answer, answered) = oneshot::channel();
        let conversation = async {
            let sent = self.calls.send(Pending { order, descriptors, answer }).await;
            sent.map_err(|_| Error::Gone { order: word })?;
            answered.await.map_err(|_| Error::Gone { order: word })
        };
        match timeout(limit, conversation).await {
            Err(_) => Err(Error::Overdue { order: word, limit }),
            Ok(Ok((Answer::Refused(why), _))) => Err(Error::Refused { order: word, why }),
            Ok(answer) => answer,
        }
    }
}

fn unexpected(order: &'static str, answer: &Answer) -> Error {
    Error::Refused { order, why: format!("unexpected answer {answer:?}") }
}

async fn greet(path: &Path) -> io::Result<(LineReader, LineWriter, Vec<u8>)> {
    let (mut reader, writer) = split(UnixStream::connect(path).await?);
    let hello = reader.line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((reader, writer, hello))
}

/// Carries calls out and answers in until either end is gone. What is still waiting then gets no answer.
async fn correspond(
    mut reader: LineReader,
    writer: LineWriter,
    mut inbox: mpsc::Receiver<Pending>,
    claims: mpsc::UnboundedSender<Claimed>,
) -> io::Result<()> {
    let mut waiting = HashMap::new();
    let mut calls = 0;
    loop {
        tokio::select! {
            pending = inbox.recv() => {
                let Some(Pending { order, descriptors, answer }) = pending else { return Ok(()) };
                calls += 1;
                let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                writer.send(&Call { id: calls, order }, &borrowed).await?;
                waiting.insert(calls, answer);
            }
            line = reader.line() => {
                let Some(line) = line? else { return Ok(()) };
                let reply = match serde_json::from_slice(&line) {
                    Ok(Word::Reply(reply)) => reply,
                    Err(error) if line.starts_with(b"{\"claimed\"") => {
                        // A client's words must not cost the daemon its front.
                        debug!(%error, "a claimed call that cannot be read");
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                    Ok(Word::Claimed(claimed)) => {
                        // A daemon that does not ask for claimed calls has claimed none.
                        let _ = claims.send(claimed);
                        continue;
                    }
                };
                let sockets = match reply.answer {
                    Answer::Sockets(count) => reader.take_descriptors(count).ok_or(io::ErrorKind::InvalidData)?,
                    _ => Vec::new(),
                };
                if let Some(answer) = waiting.remove(&reply.id) {
                    // A caller that has given up needs no answer.
                    let _ = answer.send((reply.answer, sockets));
                }
            }
        }
    }
}
