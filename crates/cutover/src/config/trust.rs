//! Services that trust whoever reaches them from this machine. Behind a front everybody does, so such a front listens on
//! this machine only, unless the service learns who its clients are.

use super::complaint::Complaint;
use super::fragment::{ForwardedFragment, Service};
use super::gateway::{is_gateway, is_openclaw};
use super::settings::{Port, ServiceSettings};
use std::net::SocketAddr;

/// Ports of 5.x above the gateway's own that have no front: its browser control.
const BROWSER_CONTROL: u16 = 2;

/// What is wrong with a front that strangers reach, if the service would take them for this machine's own, or could not tell
/// them from those.
pub(super) fn exposed(service: &Service, listen: &[SocketAddr]) -> Option<Complaint> {
    let open = listen.iter().find(|address| !address.ip().to_canonical().is_loopback())?;
    let (key, problem) = match service.forwarded {
        _ if !is_openclaw(service) => return None,
        // It reads X-Forwarded-For.
        Some(ForwardedFragment::XForwardedRemote) => return None,
        None | Some(ForwardedFragment::None) => (
            "listen",
            format!(
                "{open} is reached from other machines, and behind the front an OpenClaw gateway takes everybody for a \
                 client of this one, whom it trusts: listen on 127.0.0.1 and [::1] and come in through a tunnel, or let the \
                 gateway learn who comes: forwarded = \"x-forwarded-remote\" here, and \
                 gateway.trustedProxies = [\"127.0.0.1\"] in its own configuration"
            ),
        ),
        Some(ForwardedFragment::XForwarded) => (
            "forwarded",
            "with \"x-forwarded\" an OpenClaw gateway finds nobody behind the front's clients of this machine, the daemon's own \
             questions among them, and refuses them or takes their scopes: write \"x-forwarded-remote\", which leaves those alone"
                .to_owned(),
        ),
        Some(ForwardedFragment::Rfc7239) => (
            "forwarded",
            "an OpenClaw gateway reads who comes from X-Forwarded-For alone; of the header of \"rfc7239\" it sees that it is there, \
             and knows nobody's address then: write \"x-forwarded-remote\""
                .to_owned(),
        ),
    };
    Some(Complaint::new(key, problem))
}

/// What is good to know about a service that is configured well.
#[must_use]
pub fn noted(service: &ServiceSettings) -> Vec<String> {
    let skips = service.env.contains_key("OPENCLAW_SKIP_BROWSER_CONTROL_SERVER");
    if !is_gateway(service) || skips || service.listen.is_empty() {
        return Vec::new();
    }
    let own = match service.port {
        Port::Fixed(port) => format!("127.0.0.1:{}, two above `port`", port.saturating_add(BROWSER_CONTROL)),
        Port::Auto => {
            "127.0.0.1, two above the port that is chosen for it (name `port` to know it)".to_owned()
        }
    };
    let public =
        service.listen.iter().map(|address| address.port().saturating_add(BROWSER_CONTROL).to_string());
    let public: std::collections::BTreeSet<String> = public.collect();
    let public: Vec<String> = public.into_iter().collect();
    vec![format!(
        "service.{}: browser control of OpenClaw 5.x has no front; it listens on {own}, no longer on {}",
        service.name,
        public.join(", ")
    )]
}

#[cfg(test)]
mod tests {
    use crate::config::{ServiceSettings, noted, parse};
    use std::path::Path;

    fn gateway(listen: &str, lines: &str) -> Result<ServiceSettings, String> {
        let text = format!(
            "[service.gateway]\nsource = {{ npm = \"openclaw\" }}\n\
             command = [\"/usr/bin/node\", \"{{root}}/dist/index.js\", \"--port\", \"{{port}}\"]\nlisten = {listen}\n{lines}\n"
        );
        let settings = parse(Path::new("cutover.toml"), &text).map_err(|error| error.to_string())?;
        Ok(settings.services["gateway"].clone())
    }

    const HELLO: &str = "probe = { ready = \"/readyz\", version = { openclaw = \"{env:TOKEN}\" } }\n";
    const BUTTON: &str =
        "update_button = \"openclaw\"\nprobe = { ready = \"/readyz\", version = { http = \"/version\" } }\n";
    const OTHER: &str = "probe = { ready = \"/readyz\", version = { http = \"/version\" } }\n";

    #[test]
    fn a_service_that_trusts_this_machine_is_not_exposed_to_others_unless_it_learns_who_they_are() {
        for lines in [HELLO, BUTTON] {
            for open in ["\"0.0.0.0:18789\"", "\"[::]:18789\"", "[\"127.0.0.1:18789\", \"192.0.2.1:18789\"]"]
            {
                let told = gateway(open, lines).expect_err(open);
                assert!(told.contains("service.gateway.listen: "), "{told}");
                assert!(told.contains("x-forwarded-remote") && told.contains("trustedProxies"), "{told}");
                let with = |forwarded: &str| gateway(open, &format!("forwarded = \"{forwarded}\"\n{lines}"));
                assert!(with("x-forwarded-remote").is_ok(), "{open}");
                for (unread, why) in [("x-forwarded", "finds nobody"), ("rfc7239", "X-Forwarded-For alone")] {
                    let told = with(unread).expect_err(unread);
                    assert!(told.contains("service.gateway.forwarded: ") && told.contains(why), "{told}");
                    assert!(told.contains("write \"x-forwarded-remote\""), "{told}");
                }
                assert!(gateway(open, &format!("forwarded = \"none\"\n{lines}")).is_err());
            }
            assert!(gateway("[\"127.0.0.1:18789\", \"[::1]:18789\", \"127.0.0.7:18789\"]", lines).is_ok());
        }
        assert!(gateway("\"0.0.0.0:8080\"", OTHER).is_ok(), "others trust nobody by address");
        assert!(gateway("\"0.0.0.0:8080\"", &format!("forwarded = \"rfc7239\"\n{OTHER}")).is_ok());
    }

    #[test]
    fn where_browser_control_went_is_noted() {
        let both = "[\"127.0.0.1:18789\", \"[::1]:18789\"]";
        let note = &noted(&gateway(both, &format!("port = 18801\n{HELLO}")).unwrap())[0];
        assert!(note.contains("127.0.0.1:18803") && note.contains("no longer on 18791"), "{note}");
        let note = &noted(&gateway(both, HELLO).unwrap())[0];
        assert!(note.contains("two above the port"), "{note}");
        let skips = format!("env = {{ OPENCLAW_SKIP_BROWSER_CONTROL_SERVER = \"1\" }}\n{HELLO}");
        assert!(noted(&gateway(both, &skips).unwrap()).is_empty());
        assert!(noted(&gateway(both, OTHER).unwrap()).is_empty());
    }
}
