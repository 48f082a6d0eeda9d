//! The probe lane: the owner's own way through the same path.

use std::os::unix::fs::PermissionsExt;

use cutover_front::{Posture, Upstream};

use crate::service::{Service, hear_out};
use crate::stage::{Stage, notice, until};
use crate::visitor::LIMIT;

#[tokio::test]
async fn the_probe_lane_is_admitted_while_everybody_else_waits() {
    let stage = Stage::new().await;
    let service = Service::named("new").await;
    stage.hold_for("switch", LIMIT, Some(service.address)).await;
    let mut visitor = stage.visitor().await;
    visitor.ask_for("/public").await;
    stage.until("held", |stats| stats.held == 1).await;
    let mut prober = stage.prober().await;
    assert_eq!(prober.get("/probe").await.body, "new");
    assert_eq!(service.targets(), ["/probe"]);
    let stats = stage.stats().await;
    assert_eq!((stats.served_total, stats.in_flight, stats.held), (0, 0, 1), "probes are not traffic");
    stage.serve(service.address).await;
    assert_eq!(visitor.answer().await.body, "new");
    assert_eq!(prober.get("/probe").await.status, 200);
}

#[tokio::test]
async fn in_maintenance_the_probe_lane_needs_an_upstream() {
    let stage = Stage::new().await;
    let service = Service::named("old").await;
    let maintain = |upstream| Posture::Maintain { notice: notice(), upstream };
    stage.daemon.set_posture(maintain(None), LIMIT).await.unwrap();
    assert_eq!(stage.prober().await.get("/").await.status, 503);
    stage.daemon.set_posture(maintain(Some(Upstream::at(service.address))), LIMIT).await.unwrap();
    assert_eq!(stage.prober().await.get("/").await.body, "old");
    assert_eq!(stage.visitor().await.get("/").await.status, 503);
}

#[tokio::test]
async fn a_probe_does_not_keep_the_process_that_the_lane_has_left() {
    let stage = Stage::new().await;
    let service = Service::start(|_, stream| hear_out(stream)).await;
    stage.hold_for("switch", LIMIT, Some(service.address)).await;
    let mut prober = stage.prober().await;
    prober.ask_for("/slow").await;
    until("asked", || service.asked().len() == 1).await;
    stage.hold_for("switch", LIMIT, None).await;
    assert_eq!(prober.answer().await.status, 502);
    until("closed", || service.open() == 0).await;
}

#[tokio::test]
async fn a_probe_learns_at_once_that_nobody_listens() {
    let stage = Stage::new().await;
    let service = Service::named("gone").await;
    let address = service.address;
    service.stop().await;
    stage.hold_for("switch", LIMIT, Some(address)).await;
    assert_eq!(stage.prober().await.get("/").await.status, 502);
}

#[tokio::test]
async fn the_fronts_own_sockets_are_their_owners_only() {
    let stage = Stage::new().await;
    for name in ["web.sock", "web.probe.sock"] {
        let mode = std::fs::metadata(stage.directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
