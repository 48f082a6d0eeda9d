//! TLS towards a webhook: the system's certificate authorities, read when a message is sent over TLS and not before.

use super::{Endpoint, Error};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Greets the other side, which must prove to be the endpoint's host.
pub(super) async fn greet(endpoint: &Endpoint, stream: TcpStream) -> Result<TlsStream<TcpStream>, Error> {
    let failed = |source| Error::Tls { host: endpoint.host().to_owned(), source };
    let name = ServerName::try_from(endpoint.host().to_owned())
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    // The bundle is some hundred files or one large one.
    let authorities =
        tokio::task::spawn_blocking(authorities).await.expect("BUG: reading certificates panicked")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(io::Error::other(error)))?
        .with_root_certificates(authorities)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(failed)
}

fn authorities() -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    // One that cannot be read is one fewer to believe.
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() { Err(Error::NoAuthorities) } else { Ok(store) }
}
