//! Who may ask over TCP: loopback names only, no foreign page, and a token for everything but `/healthz`.

use axum::http::{HeaderMap, StatusCode, header};

/// Rules of the TCP listener.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub token: String,
    pub hosts: Vec<String>,
}

impl Guard {
    /// Whether a request may pass.
    ///
    /// # Errors
    /// The status to answer with and what to do about it.
    pub(super) fn admit(&self, path: &str, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
        if !host.is_some_and(|host| self.is_ours(host)) {
            return Err((
                StatusCode::MISDIRECTED_REQUEST,
                "use a loopback name, or list this one in [daemon] hosts",
            ));
        }
        if let Some(origin) = headers.get(header::ORIGIN) {
            let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            if !origin.is_some_and(|(_, host)| self.is_ours(host)) {
                return Err((StatusCode::FORBIDDEN, "requests of other pages are refused"));
            }
        }
        if path == "/healthz" {
            return Ok(());
        }
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        match given.and_then(|value| value.strip_prefix("Bearer ")) {
            Some(token) if same(token.as_bytes(), self.token.as_bytes()) => Ok(()),
            _ => Err((
                StatusCode::UNAUTHORIZED,
                "send `Authorization: Bearer` with the token in <state>/token",
            )),
        }
    }

    fn is_ours(&self, authority: &str) -> bool {
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
        };
        matches!(host, "localhost" | "127.0.0.1" | "::1") || self.hosts.iter().any(|ours| ours == host)
    }
}

/// Compares without telling by time how much matched.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (x, y)| differs | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard { token: "secret".into(), hosts: vec!["gw.example".into()] }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_the_token_opens() {
        let open = headers(&[("host", "127.0.0.1:7117"), ("authorization", "Bearer secret")]);
        let shut = headers(&[("host", "127.0.0.1:7117"), ("authorization", "Bearer secre")]);
        assert_eq!(guard().admit("/api/services", &open), Ok(()));
        assert_eq!(guard().admit("/api/services", &shut).unwrap_err().0, StatusCode::UNAUTHORIZED);
        assert_eq!(guard().admit("/healthz", &headers(&[("host", "localhost")])), Ok(()));
    }

    #[test]
    fn a_rebound_name_is_refused_even_with_the_token() {
        let rebound = headers(&[("host", "evil.example:7117"), ("authorization", "Bearer secret")]);
        assert_eq!(guard().admit("/api/services", &rebound).unwrap_err().0, StatusCode::MISDIRECTED_REQUEST);
        let listed = headers(&[("host", "gw.example"), ("authorization", "Bearer secret")]);
        assert_eq!(guard().admit("/api/services", &listed), Ok(()));
    }

    #[test]
    fn another_page_is_refused_even_with_the_token() {
        let foreign = headers(&[
            ("host", "[::1]:7117"),
            ("origin", "http://evil.example"),
            ("authorization", "Bearer secret"),
        ]);
        assert_eq!(guard().admit("/ws", &foreign).unwrap_err().0, StatusCode::FORBIDDEN);
    }
}
