//! Services that trust whoever reaches them from this machine. Behind a front everybody does, so such a front listens on
//! this machine only, unless the service learns who its clients are.

use super::complaint::Complaint;
use super::fragment::{ButtonFragment, ForwardedFragment, Service};
use super::settings::{Button, Port, ServiceSettings, VersionSettings};
use std::net::SocketAddr;

/// Ports of 5.x above the gateway's own that have no front: its browser control.
const BROWSER_CONTROL: u16 = 2;

/// What is wrong with a front that strangers reach, if the service would take them for this machine's own.
pub(super) fn exposed(service: &Service, listen: &[SocketAddr]) -> Option<Complaint> {
    let is_openclaw = service.probe.version.openclaw.is_some()
        || matches!(service.update_button, Some(ButtonFragment::OpenClaw));
    let learns = !matches!(service.forwarded, None | Some(ForwardedFragment::None));
    let open = listen.iter().find(|address| !address.ip().to_canonical().is_loopback())?;
    (is_openclaw && !learns).then(|| {
        let problem = format!(
            "{open} is reached from other machines, and behind the front an OpenClaw gateway takes everybody for a \
             client of this one, whom it trusts: listen on 127.0.0.1 and [::1] and come in through a tunnel, or let the \
             gateway learn who comes: forwarded = \"x-forwarded-remote\" here, and \
             gateway.trustedProxies = [\"127.0.0.1\"] in its own configuration"
        );
        Complaint::new("listen", problem)
    })
}

/// What is good to know about a service that is configured well.
#[must_use]
pub fn noted(service: &ServiceSettings) -> Vec<String> {
    let is_openclaw = matches!(service.version, VersionSettings::OpenClaw { .. })
        || matches!(service.button, Some(Button::OpenClaw));
    let skips = service.env.contains_key("OPENCLAW_SKIP_BROWSER_CONTROL_SERVER");
    if !is_openclaw || skips || service.listen.is_empty() {
        return Vec::new();
    }
    let own = match service.port {
        Port::Fixed(port) => format!("{}, two above `port`", port.saturating_add(BROWSER_CONTROL)),
        Port::Auto => "two above the port that is chosen for it (name `port` to know it)".to_owned(),
    };
    let public =
        service.listen.iter().map(|address| address.port().saturating_add(BROWSER_CONTROL).to_string());
    let public: std::collections::BTreeSet<String> = public.collect();
    let public: Vec<String> = public.into_iter().collect();
    vec![format!(
        "service.{}: browser control of OpenClaw 5.x has no front; it listens on 127.0.0.1:{own}, no longer on {}",
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
                for learns in ["x-forwarded-remote", "x-forwarded", "rfc7239"] {
                    let lines = format!("forwarded = \"{learns}\"\n{lines}");
                    assert!(gateway(open, &lines).is_ok(), "{open} {learns}");
                }
                assert!(gateway(open, &format!("forwarded = \"none\"\n{lines}")).is_err());
            }
            assert!(gateway("[\"127.0.0.1:18789\", \"[::1]:18789\", \"127.0.0.7:18789\"]", lines).is_ok());
        }
        assert!(gateway("\"0.0.0.0:8080\"", OTHER).is_ok(), "others trust nobody by address");
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
