//! Who may ask over TCP: loopback names only, no foreign page, and a token or a session for everything that tells or does
//! something. The page's own files are the same in every copy of this program and open to everybody, and so is the login.

use super::login::{Lease, Logins};
use super::page;
use axum::http::{HeaderMap, Method, StatusCode, header};
use std::sync::Arc;
use std::time::Instant;

/// The half of a session that the page sends. No page of another origin can send it: a header of its own makes a browser
/// ask first, and that is never allowed here.
pub(super) const KEY: &str = "x-cutover-key";
/// Where a session begins and ends.
pub(super) const SESSION: &str = "/api/session";

/// Rules of the TCP listener.
#[derive(Clone)]
pub(super) struct Guard {
    pub logins: Arc<Logins>,
    pub hosts: Vec<String>,
}

/// As whom a request passes.
#[derive(Clone, Debug)]
pub(super) enum Pass {
    /// As anybody.
    Open,
    /// By the daemon's own token.
    Token,
    /// By a session of the page.
    Session(Lease),
}

type Denial = (StatusCode, &'static str);

impl Guard {
    /// Whether a request may pass.
    ///
    /// # Errors
    /// The status to answer with and what to do about it.
    pub(super) fn admit(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        now: Instant,
    ) -> Result<Pass, Denial> {
        let Some(host) = text(headers, header::HOST.as_str()).filter(|host| self.is_ours(host)) else {
            return Err((
                StatusCode::MISDIRECTED_REQUEST,
                "use a loopback name, or list this one in [daemon] hosts",
            ));
        };
        if headers.contains_key(header::ORIGIN) && !origin(headers).is_some_and(|origin| self.is_ours(origin))
        {
            return Err((StatusCode::FORBIDDEN, "requests of other pages are refused"));
        }
        if path == "/healthz" || page::is_file(path) {
            return Ok(Pass::Open);
        }
        let bearer = text(headers, header::AUTHORIZATION.as_str());
        if let Some(token) = bearer.and_then(|value| value.strip_prefix("Bearer ")) {
            return match self.logins.is_own(token) {
                true => Ok(Pass::Token),
                false => Err(LOCKED),
            };
        }
        let is_own_page = is_same_origin(method, host, headers);
        if path == SESSION {
            return if is_own_page { Ok(Pass::Open) } else { Err(FOREIGN) };
        }
        let halves = cookie(headers).zip(text(headers, KEY));
        match halves.and_then(|(cookie, key)| self.logins.admits(cookie, key, now)) {
            Some(lease) if is_own_page => Ok(Pass::Session(lease)),
            Some(_) => Err(FOREIGN),
            None => Err(LOCKED),
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

const LOCKED: Denial = (
    StatusCode::UNAUTHORIZED,
    "log in with `cutover open`, or send `Authorization: Bearer` with the token in <state>/token",
);
const FOREIGN: Denial = (StatusCode::FORBIDDEN, "a session is for the daemon's own page alone");

/// Whether a request that a browser made comes from the very origin that it goes to. Another port of the same host is
/// another origin, though it gets the same cookies.
fn is_same_origin(method: &Method, host: &str, headers: &HeaderMap) -> bool {
    let by_fetch = text(headers, "sec-fetch-site").is_none_or(|site| matches!(site, "same-origin" | "none"));
    let by_origin = match origin(headers) {
        Some(origin) => origin == host,
        None => matches!(*method, Method::GET | Method::HEAD) && !headers.contains_key(header::UPGRADE),
    };
    by_fetch && by_origin
}

/// The name of the cookie: browsers share cookies between ports, and there may be a daemon behind several.
pub(super) fn cookie_name(headers: &HeaderMap) -> String {
    let host = text(headers, header::HOST.as_str()).unwrap_or_default();
    let port =
        host.rsplit_once(':').map(|(_, port)| port).filter(|port| port.bytes().all(|b| b.is_ascii_digit()));
    format!("cutover-{}", port.unwrap_or("80"))
}

/// The half of a session that the browser keeps to itself.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let name = cookie_name(headers);
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(given, _)| *given == name)
        .map(|(_, value)| value)
}

/// Scheme left out.
fn origin(headers: &HeaderMap) -> Option<&str> {
    Some(text(headers, header::ORIGIN.as_str())?.split_once("://")?.1)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: (&str, &str) = ("host", "127.0.0.1:7117");

    fn guard() -> Guard {
        Guard { logins: Arc::new(Logins::new("secret")), hosts: vec!["gw.example".into()] }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn get(guard: &Guard, path: &str, pairs: &[(&'static str, &str)]) -> Result<&'static str, StatusCode> {
        ask(guard, &Method::GET, path, pairs)
    }

    fn ask(
        guard: &Guard,
        method: &Method,
        path: &str,
        pairs: &[(&'static str, &str)],
    ) -> Result<&'static str, StatusCode> {
        match guard.admit(method, path, &headers(pairs), Instant::now()) {
            Ok(Pass::Open) => Ok("open"),
            Ok(Pass::Token) => Ok("token"),
            Ok(Pass::Session(_)) => Ok("session"),
            Err(denial) => Err(denial.0),
        }
    }

    #[test]
    fn only_the_token_opens() {
        let guard = guard();
        assert_eq!(get(&guard, "/api/services", &[HERE, ("authorization", "Bearer secret")]), Ok("token"));
        for shut in ["Bearer secre", "Bearer ", "secret"] {
            let told = get(&guard, "/api/services", &[HERE, ("authorization", shut)]);
            assert_eq!(told, Err(StatusCode::UNAUTHORIZED), "{shut}");
        }
        assert_eq!(get(&guard, "/healthz", &[("host", "localhost")]), Ok("open"));
        assert_eq!(get(&guard, "/", &[("host", "localhost")]), Ok("open"));
    }

    #[test]
    fn a_rebound_name_is_refused_even_with_the_token() {
        let (guard, token) = (guard(), ("authorization", "Bearer secret"));
        let rebound = get(&guard, "/api/services", &[("host", "evil.example:7117"), token]);
        assert_eq!(rebound, Err(StatusCode::MISDIRECTED_REQUEST));
        assert_eq!(get(&guard, "/", &[("host", "evil.example")]), Err(StatusCode::MISDIRECTED_REQUEST));
        assert_eq!(get(&guard, "/api/services", &[("host", "gw.example"), token]), Ok("token"));
    }

    #[test]
    fn another_page_is_refused_even_with_the_token() {
        let foreign =
            [("host", "[::1]:7117"), ("origin", "http://evil.example"), ("authorization", "Bearer secret")];
        assert_eq!(get(&guard(), "/ws", &foreign), Err(StatusCode::FORBIDDEN));
    }

    #[test]
    fn a_session_is_for_the_page_s_own_origin_and_not_for_another_port_of_the_host() {
        let guard = guard();
        let granted = guard.logins.exchange("secret", Instant::now()).unwrap();
        let jar = format!("other=1; cutover-7117={}", granted.cookie);
        let session = [HERE, ("cookie", jar.as_str()), (KEY, granted.key.as_str())];
        let with = |more: &[(&'static str, &'static str)]| [&session[..], more].concat();
        let (own, other) = (("origin", "http://127.0.0.1:7117"), ("origin", "http://127.0.0.1:18789"));
        assert_eq!(get(&guard, "/api/events", &session), Ok("session"));
        assert_eq!(ask(&guard, &Method::POST, "/api/rpc/status", &with(&[own])), Ok("session"));
        for (method, more) in [
            (Method::POST, &[][..]),
            (Method::POST, &[other]),
            (Method::GET, &[other]),
            (Method::GET, &[("upgrade", "websocket")]),
            (Method::GET, &[("sec-fetch-site", "same-site")]),
            (Method::POST, &[own, ("sec-fetch-site", "cross-site")]),
        ] {
            let told = ask(&guard, &method, "/api/rpc/status", &with(more));
            assert_eq!(told, Err(StatusCode::FORBIDDEN), "{method} {more:?}");
        }
        // A cookie goes to every port of its host: whoever listens there has it, and not the key.
        let cookie_alone = get(&guard, "/api/services", &session[..2]);
        assert_eq!(cookie_alone, Err(StatusCode::UNAUTHORIZED));
        assert_eq!(ask(&guard, &Method::POST, SESSION, &[HERE, other]), Err(StatusCode::FORBIDDEN));
        assert_eq!(ask(&guard, &Method::POST, SESSION, &[HERE, own]), Ok("open"));
    }
}
