//! Where a webhook is: an address that is checked once.

use super::Error;
use http::Uri;
use http::uri::PathAndQuery;
use std::fmt;
use std::net::IpAddr;

/// An address that messages may be posted to. Its path may be a secret: only its host is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    uri: Uri,
    host: String,
    port: u16,
    scheme: Scheme,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Plain,
    Tls,
}

impl Endpoint {
    /// Parses an `https` address, or an `http` one on this machine.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why| Error::Address { why };
        let uri: Uri = text
            .parse()
            .map_err(|_| wrong("write a whole address like \"https://hooks.example.com/services/x\""))?;
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Tls,
            Some("http") => Scheme::Plain,
            _ => return Err(wrong("an address begins with https:// (or http:// for this machine)")),
        };
        let authority = uri.authority().ok_or(wrong("name a host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("put no user and password into the address; sign with `secret_file` instead"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong("name a host"));
        }
        if scheme == Scheme::Plain && !is_this_machine(&host) {
            return Err(wrong("the notice would leave this machine unencrypted; use https://"));
        }
        // A port that is none is read as if there were no port at all.
        let is_named = authority.as_str() != authority.host();
        let port = match authority.port_u16() {
            Some(port) if port > 0 => port,
            None if !is_named => {
                if scheme == Scheme::Tls {
                    443
                } else {
                    80
                }
            }
            _ => return Err(wrong("name a port from 1 to 65535")),
        };
        Ok(Self { host, port, scheme, uri })
    }

    /// The whole address, for its owner's eyes and for what is derived from it.
    #[must_use]
    pub fn address(&self) -> String {
        self.uri.to_string()
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn scheme(&self) -> Scheme {
        self.scheme
    }

    pub(super) fn path(&self) -> PathAndQuery {
        self.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
    }

    /// As a `Host` header has it.
    pub(super) fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }
}

/// Its scheme and host.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.scheme == Scheme::Tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self}/…)")
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_leaves_this_machine_encrypted_or_not_at_all() {
        for good in [
            "https://hooks.example.com/services/T0/B0/secret",
            "https://hooks.example.com",
            "https://10.0.0.7:8443/x",
            "http://127.0.0.1:9000/hook",
            "http://[::1]:9000/hook",
            "http://localhost/hook?a=b",
        ] {
            let endpoint = Endpoint::parse(good).unwrap_or_else(|error| panic!("{good}: {error}"));
            assert_eq!(Endpoint::parse(&endpoint.address()).unwrap(), endpoint);
        }
        for (bad, word) in [
            ("http://hooks.example.com/x", "https://"),
            ("http://10.0.0.7/x", "https://"),
            ("http://localhost.example.com/x", "https://"),
            ("ftp://127.0.0.1/x", "begins with"),
            ("hooks.example.com/x", "whole address"),
            ("hooks.example.com", "begins with"),
            ("/x", "begins with"),
            ("", "whole address"),
            ("https://user:pass@hooks.example.com/x", "secret_file"),
            ("https://hooks.example.com:0/x", "port"),
            ("http://127.0.0.1:99999/", "port"),
        ] {
            let told = Endpoint::parse(bad).expect_err(bad).to_string();
            assert!(told.contains(word), "{bad}: {told}");
        }
    }

    #[test]
    fn its_path_is_shown_nowhere() {
        let endpoint = Endpoint::parse("https://hooks.example.com/services/sesame?key=sesame").unwrap();
        assert_eq!(endpoint.to_string(), "https://hooks.example.com");
        assert!(!format!("{endpoint:?}").contains("sesame"));
        assert_eq!(endpoint.path().as_str(), "/services/sesame?key=sesame");
    }
}
