//! Load on a world's front, and that nobody who is behind it noticed anything.

use super::figures::Figures;
use super::world::{HOLD, TOKEN, World, target};
use cutover::conductor::View;
use cutover_front::Stats;
use cutover_testkit::load::{Entry, Handshake, Load, LoadPlan, SocketExchange, SocketPlan};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// Who stays with a WebSocket of its own.
const CLIENTS: usize = 4;

/// Load, and what the front had counted before it began.
pub(crate) struct Traffic {
    load: Load,
    before: Stats,
    clients: usize,
    log: String,
}

impl Traffic {
    /// 20 requests per second: 40 % page, 20 % a file of it, 20 % its configuration, and 20 % calls of clients that stay.
    /// Few clients and a cheap call: a handshake, `health` or `status` cost this gateway 0.15 s of its only thread each,
    /// and a load beyond what it can do would show nothing about an update.
    pub(crate) async fn on_gateway(world: &World, file: &str, log: &str) -> Traffic {
        let get = |path: &str| Entry::Get { path: path.into() };
        let plan = LoadPlan {
            mix: vec![get("/"), get(file), get("/"), get("/__openclaw/control-ui-config.json")],
            headers: vec![("authorization".into(), format!("Bearer {TOKEN}"))],
            sockets: Some(SocketPlan {
                clients: CLIENTS,
                path: "/".into(),
                handshake: Handshake::OpenClaw { token: TOKEN.into() },
                exchange: SocketExchange::Rpc { method: "sessions.list".into() },
                every: Duration::from_secs(1),
            }),
            ..plan(world, log)
        };
        Self::of(world, plan, log).await
    }

    /// 16 requests per second for these paths, in turn.
    pub(crate) async fn on_paths(world: &World, paths: &[&str], log: &str) -> Traffic {
        let mix = paths.iter().map(|path| Entry::Get { path: (*path).into() }).collect();
        Self::of(world, LoadPlan { mix, ..plan(world, log) }, log).await
    }

    async fn of(world: &World, plan: LoadPlan, log: &str) -> Traffic {
        let clients = plan.sockets.as_ref().map_or(0, |sockets| sockets.clients);
        let before = counted(world).await;
        Traffic { before, load: Load::start(plan).unwrap(), clients, log: log.to_owned() }
    }

    /// Nobody who used the service noticed that it was stopped so often, but for being told to come back.
    pub(crate) async fn nobody_noticed(self, world: &World, stops: usize, figures: &mut Figures) {
        let name = format!("load, {}", self.log);
        let report = self.load.stop().await.unwrap();
        let now = counted(world).await;
        let (cut, withheld) =
            (now.cut_total - self.before.cut_total, now.withheld_total - self.before.withheld_total);
        figures.load(&name, &report);
        let sockets = &report.sockets;
        assert!(report.sent > 0 && (sockets.answered > 0 || self.clients == 0), "{name}: {report}");
        assert_eq!((report.failed, sockets.failed), (0, 0), "{name}: {report}");
        // What came after the hold began was given to nobody, and its client is told to come back; no call that the
        // service got is left without its answer.
        assert_eq!(cut, 0, "{name}: {now:?}");
        assert!(sockets.unanswered <= withheld, "{name}: {withheld} withheld, {report}");
        figures.line(&format!("  {name}"), format_args!("{cut} cut, {withheld} calls given to nobody"));
        assert_eq!((sockets.refused, sockets.closed_abnormal), (0, 0), "{name}: {report}");
        assert!(sockets.closed_restart <= u64::try_from(self.clients * stops).unwrap(), "{name}: {report}");
    }
}

fn plan(world: &World, log: &str) -> LoadPlan {
    LoadPlan {
        targets: world.front.to_vec(),
        rate: 16,
        hold_limit: HOLD,
        duration_max: Duration::from_secs(3600),
        log: Some(target().join(format!("real-load-{log}.jsonl"))),
        ..LoadPlan::new(world.front[0])
    }
}

/// What the front counted, when no client has a WebSocket open.
async fn counted(world: &World) -> Stats {
    let is_left = |view: &View| view.front.as_ref().is_some_and(|front| front.websockets == 0);
    world.until("a front without clients", is_left).await.front.unwrap()
}

/// A file of the gateway's page with a hash in its name that both packages have: one that only the old version has is
/// rightly gone after an update.
pub(crate) fn shared_file(packages: [&Path; 2]) -> String {
    let assets = packages.map(|package| {
        let assets = std::fs::read_dir(package.join("dist/control-ui/assets")).unwrap();
        let names = assets.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<BTreeSet<String>>()
    });
    let shared = assets[0].intersection(&assets[1]).find(|name| name.contains('-')).cloned();
    format!("/assets/{}", shared.expect("the versions share no file"))
}
