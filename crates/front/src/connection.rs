//! One client connection from its first byte to its last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tracing::debug;

use crate::framing::HEAD_MAX;
use crate::front::Shared;
use crate::peer::{Judgement, Socket, Stream};
use crate::proxy::{Client, Lane};
use crate::stats::Gauge;

/// How long a client may take to read an answer that was given before its request had ended.
const LINGER: Duration = Duration::from_secs(5);

/// Serves a client until it leaves, or until the front does.
pub(crate) async fn converse(shared: Arc<Shared>, socket: Socket, address: Option<SocketAddr>, lane: Lane) {
    let _gauge =
        (lane == Lane::Public).then(|| Gauge::raise(&shared.counters, |counters| &counters.connections));
    let socket = Arc::new(socket);
    let judgement = Arc::new(Judgement::default());
    let client = Arc::new(Client {
        gate: Arc::clone(&shared.gate),
        counters: Arc::clone(&shared.counters),
        websockets: shared.clients.clone(),
        claims: Arc::clone(&shared.claims),
        socket: Arc::clone(&socket),
        judgement: Arc::clone(&judgement),
        address: address.map(|address| address.ip()),
        lane,
        requests: AtomicU64::new(0),
    });
    let io = TokioIo::new(Stream::client(Arc::clone(&socket), judgement));
    if let Err(error) = exchange(&shared, client, io).await {
        debug!(%error, "client connection");
    }
    // Unless the connection was upgraded, this is the last holder of the socket.
    if Arc::strong_count(&socket) == 1 && !socket.is_gone() {
        socket.finish();
        let _ = shared.leaving.run_until_cancelled(socket.linger(LINGER)).await;
    }
}

/// Answers the connection's requests one after the other, until either side ends it.
async fn exchange(shared: &Shared, client: Arc<Client>, io: TokioIo<Stream>) -> hyper::Result<()> {
    let service = service_fn(move |request| Arc::clone(&client).answer(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.head_timeout)
        .max_header_size(HEAD_MAX)
        .max_buf_size(HEAD_MAX + 8 * 1024)
        .serve_connection(io, service)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => ended,
        () = shared.leaving.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
