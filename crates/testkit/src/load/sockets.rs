//! WebSocket clients that stay: each uses its WebSocket at regular instants and opens another when it is lost.

use super::record::{SocketEvent, SocketRecord, micros};
use super::report::SERVICE_RESTART;
use super::session::{Session, Trouble, closed, trouble};
use super::{Log, Reach, Record, SocketExchange, SocketPlan};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// One client.
#[derive(Debug)]
pub(super) struct SocketClient {
    client: usize,
    target: SocketAddr,
    plan: SocketPlan,
    reach: Reach,
    log: Log,
    /// Numbers of sendings, never used twice by one client.
    sendings: u64,
    /// Scheduled instants of what was sent over the open WebSocket and not answered yet.
    under_way: BTreeMap<u64, Instant>,
}

/// Why a client no longer uses its WebSocket.
enum End {
    Lost(Trouble),
    Stopped,
}

impl SocketClient {
    pub(super) fn new(client: usize, target: SocketAddr, plan: SocketPlan, reach: Reach, log: Log) -> Self {
        Self { client, target, plan, reach, log, sendings: 0, under_way: BTreeMap::new() }
    }

    /// Runs until `ended`.
    pub(super) async fn run(mut self, ended: impl Future<Output = ()>) {
        tokio::pin!(ended);
        let mut without_since = Instant::now();
        let mut has_been_open = false;
        loop {
            let opened = tokio::select! {
                () = &mut ended => return,
                opened = self.open() => opened,
            };
            let Some(session) = opened else {
                tokio::select! {
                    () = &mut ended => return,
                    () = sleep(self.plan.every) => continue,
                }
            };
            let us = micros(without_since.elapsed());
            self.tell(if has_been_open {
                SocketEvent::Reopened { gap_us: us }
            } else {
                SocketEvent::Opened { wait_us: us }
            });
            has_been_open = true;
            match self.stay(session, ended.as_mut()).await {
                End::Stopped => return,
                End::Lost(trouble) => {
                    without_since = Instant::now();
                    self.tell_loss(&trouble);
                }
            }
        }
    }

    async fn open(&self) -> Option<Session> {
        let opening = Session::open(self.target, &self.plan.path, &self.reach.headers, &self.plan.handshake);
        let cause = match timeout(self.reach.limit, opening).await {
            Ok(Ok(session)) => return Some(session),
            // Told to come back before it had said who it is: a WebSocket that was closed, like any other.
            Ok(Err(Trouble::Closed { code: code @ SERVICE_RESTART, .. })) => {
                self.tell(SocketEvent::Closed { code });
                return None;
            }
            Ok(Err(trouble)) => trouble.to_string(),
            Err(_) => "not open within the hold limit and the grace".to_owned(),
        };
        self.tell(SocketEvent::Refused { cause });
        None
    }

    /// Uses the WebSocket until it is lost or the load ends.
    async fn stay(&mut self, mut session: Session, mut ended: Pin<&mut impl Future<Output = ()>>) -> End {
        self.under_way.clear();
        let mut instants = interval(self.plan.every);
        instants.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            tokio::select! {
                () = &mut ended => {
                    session.leave().await;
                    return End::Stopped;
                }
                scheduled = instants.tick() => {
                    if self.is_silent() {
                        let cause = "silent beyond the hold limit and the grace".to_owned();
                        return End::Lost(Trouble::Closed { code: 1006, cause });
                    }
                    self.sendings += 1;
                    self.under_way.insert(self.sendings, scheduled);
                    if let Err(error) = session.socket.send(self.sending()).await {
                        return End::Lost(trouble(error));
                    }
                }
                message = session.socket.next() => match message {
                    Some(Ok(Message::Close(frame))) => {
                        // Sends the answer to the close; the connection is over whether or not it arrives.
                        let _ = session.socket.flush().await;
                        return End::Lost(closed(frame.as_ref()));
                    }
                    Some(Ok(message)) => self.take(&message),
                    Some(Err(error)) => return End::Lost(trouble(error)),
                    None => return End::Lost(Trouble::Closed { code: 1006, cause: "no close frame".to_owned() }),
                },
            }
        }
    }

    fn is_silent(&self) -> bool {
        self.under_way.values().next().is_some_and(|oldest| oldest.elapsed() > self.reach.limit)
    }

    fn sending(&self) -> Message {
        let seq = self.sendings;
        let (method, params) = match &self.plan.exchange {
            SocketExchange::Ping => return Message::Ping(Bytes::copy_from_slice(&seq.to_be_bytes())),
            SocketExchange::Echo => ("echo", json!({"seq": seq})),
            SocketExchange::Rpc { method } => (method.as_str(), json!({})),
        };
        let request = json!({"type": "req", "id": format!("s{seq}"), "method": method, "params": params});
        Message::text(request.to_string())
    }

    /// Takes a message; what answers nothing (an event, a ping of the server) is passed over.
    fn take(&mut self, message: &Message) {
        let (seq, verdict) = match message {
            Message::Pong(payload) if self.plan.exchange == SocketExchange::Ping => {
                let Ok(number) = <[u8; 8]>::try_from(payload.as_ref()) else { return };
                (u64::from_be_bytes(number), Ok(()))
            }
            Message::Text(text) => {
                let Ok(frame) = serde_json::from_str::<Value>(text) else { return };
                let number = frame["id"].as_str().and_then(|id| id.strip_prefix('s')?.parse().ok());
                let Some(seq) = number.filter(|_| frame["type"] == "res") else { return };
                (seq, self.verify(seq, &frame))
            }
            _ => return,
        };
        let Some(scheduled) = self.under_way.remove(&seq) else {
            self.tell(SocketEvent::Wrong { cause: format!("an answer to {seq}, which was not asked") });
            return;
        };
        let wait = scheduled.elapsed();
        let wait_us = micros(wait);
        self.tell(match verdict {
            Err(cause) => SocketEvent::Wrong { cause },
            Ok(()) if wait > self.reach.hold_limit => SocketEvent::AnsweredLate { wait_us },
            Ok(()) => SocketEvent::Answered { wait_us },
        });
    }

    fn verify(&self, seq: u64, frame: &Value) -> Result<(), String> {
        if frame["ok"] != true {
            return Err(format!("refused: {}", frame["error"]));
        }
        if self.plan.exchange == SocketExchange::Echo && frame["payload"]["params"]["seq"] != seq {
            return Err(format!("the echo of another sending: {}", frame["payload"]));
        }
        Ok(())
    }

    fn tell_loss(&mut self, trouble: &Trouble) {
        let code = if let Trouble::Closed { code, .. } = trouble { *code } else { 1006 };
        self.tell(SocketEvent::Closed { code });
        for scheduled in std::mem::take(&mut self.under_way).into_values() {
            self.tell(SocketEvent::Unanswered { wait_us: micros(scheduled.elapsed()) });
        }
    }

    fn tell(&self, event: SocketEvent) {
        self.log.push(Record::Socket(SocketRecord { client: self.client, at_us: self.log.now_us(), event }));
    }
}
