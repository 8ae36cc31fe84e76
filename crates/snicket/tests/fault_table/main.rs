//! Each fault for some seconds under a steady load of mixed requests, and a table of what became of them.
//!
//! The ordinary tests run each fault for a moment and ask only for what holds on any machine.
//! `SNICKET_FAULTS_SECONDS=60 cargo test -p snicket --release --test fault_table -- --nocapture` runs each for that long and
//! writes `docs/faults.md`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cluster;
mod load;
mod pools;
mod report;
mod rig;
mod rows;

use std::time::{Duration, Instant};

use harness::{Cable, Network};
use tokio::time::sleep_until;

use load::Kind;
use report::{PoolRow, Row, page};
use rig::{Needs, Rig};
use rows::{BOTH, CASES, Case, Fault};

/// The length of each row in seconds, for the whole form.
const SECONDS: &str = "SNICKET_FAULTS_SECONDS";
/// Only rows whose name holds this text, for who works on one.
const ONLY: &str = "SNICKET_FAULTS_ONLY";

/// Of each row in the short form.
const SHORT: Duration = Duration::from_secs(3);

fn whole() -> Option<Duration> {
    std::env::var(SECONDS).ok().map(|text| Duration::from_secs(text.parse().expect("a number of seconds")))
}

/// One line of the table; `None`: not possible here, which has been said.
async fn row(cable: &Cable, case: &Case, transport: &'static str, time: Duration) -> Option<Row> {
    let fault = case.fault;
    let odd_clock = fault == Fault::ClockJumps;
    if odd_clock && !rig::can_set_clocks() {
        return None;
    }
    let front = fault.is_in_front_of_the_origin();
    let needs = Needs { agents: case.agents, front, odd_clock, flows: case.flows };
    let mut rig = Rig::start(cable, transport, needs).await;
    let began = Instant::now();
    let over = began + time;
    let load = tokio::spawn({
        let doors = vec![rig.door()];
        async move { load::load(doors, time).await }
    });
    let flows = rig.port.map(|port| tokio::spawn(load::flows(port, time)));
    // A fifth before, and at least a fifth after.
    sleep_until((began + time / 5).into()).await;
    // The edge's counters go with it.
    let mut retried = if fault == Fault::EdgeKilled { rig.retries().await } else { 0 };
    let struck = Instant::now();
    let before = fault.strike(&mut rig).await;
    if let Some(lasts) = case.lasts {
        sleep_until((struck + lasts.min(time * 3 / 5)).into()).await;
        fault.mend(&mut rig, &before).await;
    }
    // An agent or edge that has to be started is mended when it is ready.
    let mended = if case.lasts.is_some() { Instant::now() } else { struck };
    let mut visits = load.await.unwrap();
    if let Some(flows) = flows {
        visits.extend(flows.await.unwrap());
        visits.sort_by_key(|visit| visit.begun);
    }
    retried += rig.retries().await;
    if case.lasts.is_some() {
        rig.all_connected(case.agents).await;
    }
    rig.end().await;
    let row = Row { what: case.what, transport, note: case.note, visits, retried, began, over, mended };
    row.tell();
    Some(row)
}

/// Runs the rows of a part in the short form, and asks of each what holds everywhere.
async fn part(network: Network, faults: &[Fault]) {
    if whole().is_some() {
        return;
    }
    let Some(cable) = Cable::lay(&network, rig::STRANDS) else { return };
    for case in CASES.iter().filter(|case| faults.contains(&case.fault)) {
        for transport in case.transports {
            if let Some(row) = row(&cable, case, transport, SHORT).await {
                holds(case, &row);
            }
        }
    }
}

fn holds(case: &Case, row: &Row) {
    let (fault, reasons) = (case.fault, row.reasons());
    let name = format!("{} over {}", row.what, row.transport);
    for kind in Kind::HTTP.into_iter().chain(case.flows.then_some(Kind::Datagram)) {
        assert!(row.tried(kind) > 0, "{name}: {kind:?}");
        assert!(!fault.is_mild() || row.failed(kind).0 == 0, "{name}: something failed: {reasons:?}");
    }
    let (failed, cut) = row.failed(Kind::Get);
    assert!(fault.leaves_nobody_to_ask() || failed == cut, "{name}: a GET failed unanswered: {reasons:?}");
    assert_eq!(row.failed(Kind::Datagram).0, 0, "{name}: a flow went nowhere: {reasons:?}");
}

#[test]
fn programs_die() {
    Network::run("programs_die", |network| part(network, &[Fault::AgentKilled, Fault::EdgeKilled]));
}

#[test]
fn cables_are_pulled() {
    let faults = [Fault::StrandPulled, Fault::CablePulled, Fault::UdpBlocked];
    Network::run("cables_are_pulled", |network| async move { part(network, &faults).await });
}

#[test]
fn packets_are_lost_and_late() {
    let faults = [Fault::Lossy(20), Fault::Far];
    Network::run("packets_are_lost_and_late", |network| async move { part(network, &faults).await });
}

#[test]
fn origins_clocks_and_resources_fail() {
    let origins = [Fault::OriginDown, Fault::OriginStalls, Fault::OriginResets];
    let others = [Fault::ClockJumps, Fault::DiskFull, Fault::FewDescriptorsAtEdge, Fault::FewDescriptorsAtAgent];
    let faults = [&origins[..], &others[..]].concat();
    Network::run("origins_clocks_and_resources_fail", |network| async move { part(network, &faults).await });
}

#[test]
fn one_node_of_several_fails() {
    Network::run("one_node_of_several_fails", |network| async move {
        if whole().is_some() {
            return;
        }
        for case in cluster::CASES {
            for transport in BOTH {
                let Some(row) = cluster::row(&network, case, transport, SHORT).await else { return };
                row.tell();
                for kind in Kind::HTTP {
                    assert!(row.tried(kind) > 0, "{}: {kind:?}", row.what);
                }
                let (failed, reasons) = (row.failed(Kind::Get), row.reasons());
                // What has begun cannot be done again.
                assert_eq!(failed.0, failed.1, "{} over {transport}: a GET failed unanswered: {reasons:?}", row.what);
                if matches!(case.fault, cluster::Fault::LeaderKilled | cluster::Fault::MajorityKilled) {
                    assert!(reasons.is_empty(), "{} over {transport}: something failed: {reasons:?}", row.what);
                }
            }
        }
    });
}

#[test]
fn members_of_a_pool_fail() {
    Network::run("members_of_a_pool_fail", |network| async move {
        if whole().is_some() {
            return;
        }
        for case in pools::CASES {
            for transport in case.transports {
                let Some(told) = pools::row(&network, case, transport, SHORT).await else { return };
                told.tell();
                let row = &told.row;
                for kind in Kind::HTTP {
                    assert!(row.tried(kind) > 0, "{}: {kind:?}", row.what);
                }
                let (failed, reasons) = (row.failed(Kind::Get), row.reasons());
                // A 500 is an answer, which nobody but the visitor can judge; and where all are gone, only so many requests go again.
                let may_fail = matches!(case.fault, pools::Fault::Fails(_) | pools::Fault::Empty);
                assert!(failed.0 == 0 || may_fail, "{} over {transport}: a GET failed: {reasons:?}", row.what);
                assert!(!case.fault.is_mild() || reasons.is_empty(), "{} over {transport}: {reasons:?}", row.what);
            }
        }
    });
}

#[test]
fn the_table_is_written() {
    if whole().is_none() {
        return;
    }
    Network::run("the_table_is_written", |network| async move {
        let Some(time) = whole() else { return };
        let Some(cable) = Cable::lay(&network, rig::STRANDS) else { return };
        let only = std::env::var(ONLY).unwrap_or_default();
        let mut rows = Vec::new();
        for case in CASES.iter().filter(|case| case.what.contains(&only)) {
            for transport in case.transports {
                rows.extend(row(&cable, case, transport, time).await);
            }
        }
        drop(cable);
        for case in cluster::CASES.iter().filter(|case| case.what.contains(&only)) {
            for transport in BOTH {
                rows.extend(cluster::row(&network, case, transport, time).await.inspect(Row::tell));
            }
        }
        let mut of_pools = Vec::new();
        for case in pools::CASES.iter().filter(|case| case.what.contains(&only)) {
            for transport in case.transports {
                of_pools.extend(pools::row(&network, case, transport, time).await.inspect(PoolRow::tell));
            }
        }
        let text = page(&rows, &of_pools, time);
        println!("{text}");
        if only.is_empty() {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/faults.md");
            std::fs::write(path, text).unwrap();
        }
    });
}
