//! What the services of one file would take from each other: addresses, ports, state.
//!
//! Knows what is declared. Must not know what is on this machine.

use super::complaint::Complaint;
use super::settings::{DaemonSettings, Port, ServiceSettings};
use super::template::HOME;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Something that one process at a time can listen on.
enum Place {
    /// The address of a front, or of the daemon.
    Address(SocketAddr),
    /// A service's own port; whether it listens on one loopback or both is its own affair.
    Own(u16),
}

impl Place {
    fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Own(port) => *port,
        }
    }

    /// Whether both cannot be listened on.
    fn excludes(&self, other: &Self) -> bool {
        self.port() == other.port()
            && match (self, other) {
                (Self::Address(one), Self::Address(two)) => meet(one.ip(), two.ip()),
                (Self::Address(address), Self::Own(_)) | (Self::Own(_), Self::Address(address)) => {
                    address.ip().is_loopback() || address.ip().is_unspecified()
                }
                (Self::Own(_), Self::Own(_)) => true,
            }
    }
}

fn meet(one: IpAddr, two: IpAddr) -> bool {
    one == two || (one.is_ipv4() == two.is_ipv4() && (one.is_unspecified() || two.is_unspecified()))
}

/// Everything that is declared twice, told where it is declared the second time.
pub(super) fn between(
    daemon: &DaemonSettings,
    services: &BTreeMap<String, ServiceSettings>,
) -> Vec<Complaint> {
    let mut complaints = listening(daemon, services);
    let states: Vec<(String, PathBuf)> = services
        .values()
        .flat_map(|service| {
            let key = |at| format!("service.{}.state[{at}].path", service.name);
            service
                .state
                .iter()
                .enumerate()
                .map(move |(at, state)| (key(at), below_home(&state.path, service)))
        })
        .collect();
    let of = |key: &str| key.split('.').nth(1).map(ToOwned::to_owned);
    for (at, (key, path)) in states.iter().enumerate() {
        let others = states[..at].iter().filter(|(other, _)| of(other) != of(key));
        complaints.extend(others.filter(|(_, other)| path.starts_with(other) || other.starts_with(path)).map(
            |(other, theirs)| {
                let (path, theirs) = (path.display(), theirs.display());
                let problem = format!(
                    "{path} is also in `{other}` ({theirs}): a rollback of one would take the other's data back"
                );
                Complaint::new(key, problem)
            },
        ));
    }
    complaints
}

/// A path below a home is another one for each user.
fn below_home(path: &Path, service: &ServiceSettings) -> PathBuf {
    match path.strip_prefix(HOME) {
        Ok(below) => Path::new("home of").join(service.user.as_deref().unwrap_or_default()).join(below),
        Err(_) => path.to_owned(),
    }
}

fn listening(daemon: &DaemonSettings, services: &BTreeMap<String, ServiceSettings>) -> Vec<Complaint> {
    let mut places: Vec<(String, Place)> =
        daemon.listen.iter().map(|address| ("daemon.listen".to_owned(), Place::Address(*address))).collect();
    for service in services.values() {
        let listen = format!("service.{}.listen", service.name);
        places.extend(service.listen.iter().map(|address| (listen.clone(), Place::Address(*address))));
        if let Port::Fixed(port) = service.port {
            places.push((format!("service.{}.port", service.name), Place::Own(port)));
        }
    }
    let mut complaints = Vec::new();
    for (at, (key, place)) in places.iter().enumerate() {
        // A port of 0 is another one each time.
        let mut taken = places[..at].iter().filter(|(_, other)| other.port() != 0);
        if let Some((other, _)) = taken.find(|(_, other)| other.excludes(place)) {
            let problem = format!("port {} is taken by `{other}`: choose another", place.port());
            complaints.push(Complaint::new(key, problem));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use crate::config::parse;
    use std::path::Path;

    fn service(name: &str, lines: &str) -> String {
        format!(
            "[service.{name}]\nsource = {{ directory = \"/srv/{name}\" }}\ncommand = [\"{{root}}/bin/server\", \"{{port}}\"]\n\
             probe = {{ ready = \"/readyz\", version = {{ http = \"/version\" }} }}\n{lines}\n"
        )
    }

    fn complaint(services: &[(&str, &str)]) -> Option<String> {
        let text: String = services.iter().map(|(name, lines)| service(name, lines)).collect();
        parse(Path::new("cutover.toml"), &text).err().map(|error| error.to_string())
    }

    fn is_refused(services: &[(&str, &str)], key: &str, other: &str) {
        let told = complaint(services).expect("must be refused");
        assert!(told.contains(&format!("{key}: ")) && told.contains(&format!("`{other}`")), "{told}");
    }

    #[test]
    fn two_services_on_one_port_are_refused_by_both_their_names() {
        let own = "port = 9001";
        is_refused(&[("a", own), ("b", own)], "service.b.port", "service.a.port");
        let (any, loopback) = ("listen = \"0.0.0.0:8080\"", "listen = \"127.0.0.1:8080\"");
        is_refused(&[("a", any), ("b", loopback)], "service.b.listen", "service.a.listen");
        is_refused(&[("a", "listen = \"[::1]:9001\""), ("b", own)], "service.b.port", "service.a.listen");
        is_refused(&[("a", "port = 7117")], "service.a.port", "daemon.listen");
        let twice = "listen = [\"127.0.0.1:8080\", \"127.0.0.1:8080\"]";
        is_refused(&[("a", twice)], "service.a.listen", "service.a.listen");
        is_refused(
            &[("a", "listen = \"127.0.0.1:9001\"\nport = 9001")],
            "service.a.port",
            "service.a.listen",
        );
    }

    #[test]
    fn what_can_be_listened_on_side_by_side_is_accepted() {
        let both = "listen = [\"127.0.0.1:8080\", \"[::1]:8080\"]\nport = 9001";
        let elsewhere = "listen = \"192.0.2.1:9001\"\nport = 9002";
        assert_eq!(complaint(&[("a", both), ("b", elsewhere)]), None);
        assert_eq!(complaint(&[("a", "listen = \"127.0.0.1:0\""), ("b", "listen = \"127.0.0.1:0\"")]), None);
    }

    #[test]
    fn state_below_a_home_is_shared_by_services_of_one_user_only() {
        let gate = |name: &str, port: u16, user: &str| {
            format!(
                "[service.{name}]\npreset = \"openclaw\"\nnode = \"/n\"\nlisten = \"127.0.0.1:{port}\"\nuser = \"{user}\"\n"
            )
        };
        let told = |other: &str| {
            let text = format!("{}{}", gate("a", 1, "ann"), gate("b", 2, other));
            parse(Path::new("cutover.toml"), &text).err().map(|error| error.to_string())
        };
        assert!(told("ann").is_some_and(|told| told.contains("service.b.state[0].path")));
        assert_eq!(told("bob"), None);
    }

    #[test]
    fn state_of_two_services_in_one_place_is_refused_and_beside_each_other_is_not() {
        let state = |path: &str| {
            format!("port = {}\nstate = [{{ path = \"{path}\", kind = \"files\" }}]", path.len() + 1000)
        };
        let both = |one: &str, two: &str| [("a", state(one)), ("b", state(two))];
        let told = |both: [(&str, String); 2]| complaint(&[(both[0].0, &both[0].1), (both[1].0, &both[1].1)]);
        for two in ["/var/lib/web/sub", "/var/lib"] {
            let refused = told(both("/var/lib/web", two)).unwrap();
            assert!(
                refused.contains("service.b.state[0].path: ")
                    && refused.contains("`service.a.state[0].path`"),
                "{refused}"
            );
        }
        assert_eq!(told(both("/var/lib/web", "/var/lib/webs")), None);
        let same = told([("a", state("/var/lib/web")), ("b", state("/var/lib/web").replace("1012", "1013"))]);
        assert!(same.unwrap().contains("service.b.state[0].path: "));
    }
}
