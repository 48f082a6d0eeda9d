//! A service to stand behind the front: a real HTTP/1.1 server whose conduct each test writes itself.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

type Conduct = Arc<dyn Fn(Asked, TcpStream) -> BoxFuture<'static, Option<TcpStream>> + Send + Sync>;

/// A running service; dropped or stopped, it closes everything it has.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    open: Arc<Mutex<usize>>,
    accepted: Arc<Mutex<usize>>,
    stopping: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Service {
    /// Starts a service on a port of its own. The conduct gets each request and its connection, and returns the
    /// connection if it is to take another one.
    pub(crate) async fn start<F, Fut>(conduct: F) -> Self
    where
        F: Fn(Asked, TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<TcpStream>> + Send + 'static,
    {
        Self::start_at("127.0.0.1:0".parse().unwrap(), conduct).await
    }

    pub(crate) async fn start_at<F, Fut>(address: SocketAddr, conduct: F) -> Self
    where
        F: Fn(Asked, TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<TcpStream>> + Send + 'static,
    {
        let conduct: Conduct = Arc::new(move |asked, stream| Box::pin(conduct(asked, stream)));
        let listener = TcpListener::from_std(cutover_front::bind(address).unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (open, accepted) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
        let stopping = CancellationToken::new();
        let task = tokio::spawn({
            let (asked, open, accepted) = (asked.clone(), open.clone(), accepted.clone());
            let stopping = stopping.clone();
            async move {
                let mut connections = JoinSet::new();
                loop {
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        Ok((stream, _)) = listener.accept() => {
                            *accepted.lock().unwrap() += 1;
                            *open.lock().unwrap() += 1;
                            let open = open.clone();
                            let serving = serve(stream, conduct.clone(), asked.clone());
                            connections.spawn(async move {
                                struct Close(Arc<Mutex<usize>>);
                                impl Drop for Close {
                                    fn drop(&mut self) {
                                        *self.0.lock().unwrap() -= 1;
                                    }
                                }
                                let _close = Close(open);
                                serving.await;
                            });
                        }
                    }
                }
            }
        });
        Self { address, asked, open, accepted, stopping, task }
    }

    /// A service that answers everything with its name.
    pub(crate) async fn named(name: &'static str) -> Self {
        Self::start(move |_, stream| answer(stream, name.to_owned())).await
    }

    pub(crate) async fn named_at(address: SocketAddr, name: &'static str) -> Self {
        Self::start_at(address, move |_, stream| answer(stream, name.to_owned())).await
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn targets(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.target).collect()
    }

    /// Connections now open.
    pub(crate) fn open(&self) -> usize {
        *self.open.lock().unwrap()
    }

    /// Connections ever accepted.
    pub(crate) fn accepted(&self) -> usize {
        *self.accepted.lock().unwrap()
    }

    /// Ends the service as a killed process ends: all its sockets close at once.
    pub(crate) async fn stop(self) {
        self.stopping.cancel();
        self.task.await.unwrap();
    }
}

/// Answers 200 with a text and keeps the connection.
pub(crate) async fn answer(mut stream: TcpStream, text: String) -> Option<TcpStream> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    stream.write_all(head.as_bytes()).await.ok()?;
    Some(stream)
}

/// Takes what comes until the front closes, and says nothing.
pub(crate) async fn hear_out(mut stream: TcpStream) -> Option<TcpStream> {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    None
}

async fn serve(mut stream: TcpStream, conduct: Conduct, log: Arc<Mutex<Vec<Asked>>>) {
    let mut buffer = Vec::new();
    while let Some(asked) = read_request(&mut stream, &mut buffer).await {
        log.lock().unwrap().push(asked.clone());
        match conduct(asked, stream).await {
            Some(back) => stream = back,
            None => return,
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Asked> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer.drain(..end).collect()).unwrap();
    let mut first = head.lines().next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let mut asked = Asked { method, target, head, body: Vec::new() };
    if let Some(length) = asked.header("content-length").map(|length| length.parse::<usize>().unwrap()) {
        while buffer.len() < length {
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
        asked.body = buffer.drain(..length).collect();
    } else if asked.header("transfer-encoding").is_some() {
        while !buffer.ends_with(b"0\r\n\r\n") {
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
        asked.body = std::mem::take(buffer);
    }
    Some(asked)
}
