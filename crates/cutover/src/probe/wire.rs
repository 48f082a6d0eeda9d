//! Reaching a service: one fresh connection per exchange, so that one hanging answer neither delays nor spoils another.

use super::{Address, Error};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// A connected byte stream of either kind.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Connects straight to the address: no proxy of any environment, nothing kept for later.
pub(super) async fn connect(address: &Address) -> Result<Box<dyn Wire>, Error> {
    let connected: Result<Box<dyn Wire>, std::io::Error> = match address {
        Address::Tcp(address) => TcpStream::connect(address).await.map(|stream| Box::new(stream) as _),
        Address::Unix { path, .. } => UnixStream::connect(path).await.map(|stream| Box::new(stream) as _),
    };
    connected.map_err(|source| Error::Connect { address: address.to_string(), source })
}
