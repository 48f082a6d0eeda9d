//! Which headers cross the front. `Host` and `Origin` pass unchanged; what belongs to one hop stays on that hop.

use std::net::IpAddr;

use http::header::{
    CONNECTION, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SEC_WEBSOCKET_EXTENSIONS, TE, TRANSFER_ENCODING, UPGRADE,
};

use crate::Forwarded;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Whether these are the headers of a WebSocket handshake, in either direction.
pub(crate) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let upgrades = headers.get_all(CONNECTION).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")))
    });
    upgrades && headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Removes what belongs to this hop only.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|token| token.trim().parse().ok())
            // A client must not be able to take away what the service decides by.
            .filter(|name| *name != HOST)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Makes a request's headers those of the upstream hop.
pub(crate) fn for_upstream(headers: &mut HeaderMap) {
    let websocket = asks_for_websocket(headers);
    strip_hop_by_hop(headers);
    // The front has answered `100-continue` itself by the time the body flows.
    headers.remove(EXPECT);
    if websocket {
        // Frames are walked, not inflated.
        headers.remove(SEC_WEBSOCKET_EXTENSIONS);
        set_websocket_hop(headers);
    }
}

/// Makes an answer's headers those of the client's hop.
pub(crate) fn for_client(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
}

/// Writes the hop headers of a WebSocket handshake.
pub(crate) fn set_websocket_hop(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Tells the upstream about the client, in the way it was configured to learn it.
pub(crate) fn add_forwarded(headers: &mut HeaderMap, how: Forwarded, client: IpAddr) {
    let client = client.to_canonical();
    match how {
        Forwarded::None => {}
        Forwarded::XForwardedRemote if client.is_loopback() => {}
        Forwarded::XForwarded | Forwarded::XForwardedRemote => {
            append_element(headers, X_FORWARDED_FOR, &client.to_string());
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
            if let Some(host) = headers.get(HOST).cloned() {
                headers.insert(X_FORWARDED_HOST, host);
            }
        }
        Forwarded::Rfc7239 => {
            let node = match client {
                IpAddr::V4(client) => client.to_string(),
                IpAddr::V6(client) => format!("\"[{client}]\""),
            };
            append_element(headers, FORWARDED, &format!("for={node};proto=http"));
        }
    }
}

/// Adds an element to a list header, after what is there.
fn append_element(headers: &mut HeaderMap, name: HeaderName, element: &str) {
    let mut list = Vec::new();
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(element.as_bytes());
    // Joining legal values with a legal element gives a legal value.
    if let Ok(value) = HeaderValue::from_bytes(&list) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn what_belongs_to_one_hop_stays_there_and_host_and_origin_pass() {
        let mut all = headers(&[
            ("host", "a"),
            ("origin", "http://a"),
            ("connection", "close, X-Mine, host"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("x-forwarded-for", "from the client"),
        ]);
        for_upstream(&mut all);
        let left: Vec<_> = all.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["host", "origin", "x-forwarded-for"]);
    }

    #[test]
    fn compression_is_not_negotiated_on_websockets() {
        let mut all = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("sec-websocket-key", "k"),
        ]);
        for_upstream(&mut all);
        assert!(asks_for_websocket(&all));
        assert!(!all.contains_key(SEC_WEBSOCKET_EXTENSIONS));
        assert!(all.contains_key("sec-websocket-key"));
    }

    #[test]
    fn the_client_is_named_only_where_asked() {
        let client: IpAddr = "2001:db8::1".parse().unwrap();
        let mut none = headers(&[("host", "a")]);
        add_forwarded(&mut none, Forwarded::None, client);
        assert_eq!(none.len(), 1);
        let mut x = headers(&[("host", "a"), ("x-forwarded-for", "10.0.0.1"), ("x-forwarded-host", "lie")]);
        add_forwarded(&mut x, Forwarded::XForwarded, client);
        assert_eq!(x["x-forwarded-for"], "10.0.0.1, 2001:db8::1");
        assert_eq!(x["x-forwarded-host"], "a");
        let mut remote = headers(&[("host", "a")]);
        for near in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            add_forwarded(&mut remote, Forwarded::XForwardedRemote, near.parse().unwrap());
            assert_eq!(remote.len(), 1, "{near}");
        }
        add_forwarded(&mut remote, Forwarded::XForwardedRemote, client);
        assert_eq!(remote["x-forwarded-for"], "2001:db8::1");
        let mut standard = headers(&[("host", "a")]);
        add_forwarded(&mut standard, Forwarded::Rfc7239, client);
        assert_eq!(standard["forwarded"], "for=\"[2001:db8::1]\";proto=http");
    }
}
