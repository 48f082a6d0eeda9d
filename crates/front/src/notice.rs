//! What people and programs are told when they are not served: 503, `Retry-After`, and a page or an object.
//!
//! It shows what it was given and nothing else: no control, no log text, no script.

use std::net::IpAddr;
use std::sync::LazyLock;

use base64::Engine;
use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, FORWARDED, HeaderMap, HeaderName,
    HeaderValue, REFERRER_POLICY, RETRY_AFTER, VARY, VIA, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("notice.css");
const VIA_PROXY: [HeaderName; 4] =
    [FORWARDED, VIA, HeaderName::from_static("x-forwarded-for"), HeaderName::from_static("x-real-ip")];

static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).expect("base64 is legal in a header")
});

/// What is said in maintenance, and to requests whose hold took too long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// The service's name.
    pub service: String,
    /// One sentence for everybody: what is the matter.
    pub sentence: String,
    /// Why, for everybody.
    pub reason: String,
    /// What serves now, if anything. Only for clients on this machine.
    #[serde(default)]
    pub what_serves: Option<String>,
    /// What to type to recover. Only for clients on this machine.
    #[serde(default)]
    pub commands: Vec<String>,
    /// When to ask again, in seconds.
    pub retry_after: u64,
    /// The run that led here. Only for clients on this machine.
    #[serde(default)]
    pub run_id: Option<String>,
}

impl Notice {
    /// The notice of a hold that nobody has explained yet.
    #[must_use]
    pub fn unexplained(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            sentence: format!("{service} is not answering yet."),
            reason: "It is being started or replaced, and that takes longer than expected.".to_owned(),
            what_serves: None,
            commands: Vec::new(),
            retry_after: 5,
            run_id: None,
        }
    }

    /// The answer to one request.
    pub(crate) fn answer(&self, asker: Asker) -> Response<Bytes> {
        let (kind, body) = match asker.form {
            Form::Page => ("text/html; charset=utf-8", self.page(asker.audience).into()),
            Form::Object => ("application/json", self.object(asker.audience).to_string().into()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(RETRY_AFTER, HeaderValue::from(self.retry_after));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(VARY, HeaderValue::from_static("accept"));
        headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
    }

    fn object(&self, audience: Audience) -> serde_json::Value {
        let mut object = serde_json::json!({
            "error": "service_unavailable",
            "service": self.service,
            "sentence": self.sentence,
            "reason": self.reason,
            "retryAfter": self.retry_after,
        });
        if audience == Audience::Near {
            object["whatServes"] = self.what_serves.clone().into();
            object["commands"] = self.commands.clone().into();
            object["runId"] = self.run_id.clone().into();
        }
        object
    }

    fn page(&self, audience: Audience) -> String {
        let mut details = String::new();
        if audience == Audience::Near {
            if let Some(serves) = &self.what_serves {
                details += &format!("<h2>What serves now</h2><p>{}</p>", escape(serves));
            }
            if !self.commands.is_empty() {
                details += "<h2>What to type</h2><ul>";
                for command in &self.commands {
                    details += &format!("<li><code>{}</code></li>", escape(command));
                }
                details += "</ul>";
            }
            if let Some(run) = &self.run_id {
                details += &format!("<p class=\"quiet\">Run <code>{}</code></p>", escape(run));
            }
        }
        let seconds = self.retry_after.max(1);
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{service} is not available</title>\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\"><meta name=\"robots\" content=\"noindex\">\
             <meta http-equiv=\"refresh\" content=\"{seconds}\"><style>{STYLE}</style></head><body><main>\
             <p class=\"name\">{service}</p><h1>{sentence}</h1><p>{reason}</p>{details}\
             <p class=\"quiet\">This page asks again every {seconds} s.</p></main></body></html>",
            service = escape(&self.service),
            sentence = escape(&self.sentence),
            reason = escape(&self.reason),
        )
    }
}

/// How much a client may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    /// On this machine: details and commands too.
    Near,
    /// Anywhere else: the sentence and the reason.
    Far,
}

impl Audience {
    /// Judges a request by its connection, and by signs that another proxy stands between.
    fn of(client: Option<IpAddr>, headers: &HeaderMap) -> Self {
        let local = client.is_none_or(|ip| ip.to_canonical().is_loopback());
        let direct = !VIA_PROXY.iter().any(|name| headers.contains_key(name));
        if local && direct { Self::Near } else { Self::Far }
    }
}

/// Who asks, and in which form the answer is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    audience: Audience,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Page,
    Object,
}

impl Asker {
    /// Reads a request's headers; `client` is `None` on this machine's own sockets.
    pub(crate) fn of(client: Option<IpAddr>, headers: &HeaderMap) -> Self {
        let form = if wants_page(headers) { Form::Page } else { Form::Object };
        Self { audience: Audience::of(client, headers), form }
    }
}

fn wants_page(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| value.to_str().is_ok_and(|value| value.contains("text/html")))
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice() -> Notice {
        Notice {
            service: "web<b>".into(),
            sentence: "web was updated, but its restart failed.".into(),
            reason: "the new process exited with code 1 & said \"<script>alert('x')</script>\"".into(),
            what_serves: Some("nothing".into()),
            commands: vec!["cutover recover web --retry".into(), "cutover recover web --rollback".into()],
            retry_after: 30,
            run_id: Some("0190-run".into()),
        }
    }

    fn asker(accept: &'static str, client: &str) -> Asker {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        Asker::of(Some(client.parse().unwrap()), &headers)
    }

    fn text(response: &Response<Bytes>) -> &str {
        std::str::from_utf8(response.body()).unwrap()
    }

    #[test]
    fn a_browser_gets_a_page_in_which_every_text_is_escaped() {
        let answer = notice().answer(asker("text/html,*/*", "127.0.0.1"));
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()[RETRY_AFTER], "30");
        let page = text(&answer);
        assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)"));
        assert!(page.contains("<code>cutover recover web --retry</code>"));
        let hash = base64::engine::general_purpose::STANDARD
            .encode(Sha256::digest(page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0));
        let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && policy.contains(&hash), "{policy}");
        assert!(page.len() < 4096, "{} bytes", page.len());
    }

    #[test]
    fn a_program_gets_an_object() {
        let answer = notice().answer(asker("application/json", "::1"));
        let object: serde_json::Value = serde_json::from_str(text(&answer)).unwrap();
        assert_eq!(object["retryAfter"], 30);
        assert_eq!(object["commands"][1], "cutover recover web --rollback");
        assert_eq!(object["runId"], "0190-run");
    }

    #[test]
    fn details_and_commands_stay_on_this_machine() {
        for accept in ["text/html", "*/*"] {
            let answer = notice().answer(asker(accept, "192.0.2.7"));
            assert!(text(&answer).contains("restart failed"));
            for secret in ["recover", "0190-run", "nothing"] {
                assert!(!text(&answer).contains(secret), "{secret} in {}", text(&answer));
            }
        }
    }

    #[test]
    fn only_a_direct_client_on_this_machine_is_near() {
        let none = HeaderMap::new();
        let ip = |text: &str| Some(text.parse().unwrap());
        assert_eq!(Audience::of(None, &none), Audience::Near);
        assert_eq!(Audience::of(ip("127.0.0.1"), &none), Audience::Near);
        assert_eq!(Audience::of(ip("::1"), &none), Audience::Near);
        assert_eq!(Audience::of(ip("::ffff:127.0.0.1"), &none), Audience::Near);
        assert_eq!(Audience::of(ip("192.0.2.7"), &none), Audience::Far);
        let proxied = HeaderMap::from_iter([(FORWARDED, HeaderValue::from_static("for=192.0.2.7"))]);
        assert_eq!(Audience::of(ip("127.0.0.1"), &proxied), Audience::Far);
    }
}
