//! The same zone in a real server, Knot DNS, and the same questions to both.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use harness::{LIMIT, until};
use hickory_proto::op::Message;
use hickory_proto::rr::{DNSClass, Record, RecordData, RecordType as Kind};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use registry::{Hostname, write_zone_file};
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::process::{Child, Command};

use crate::setting::{Setting, question, record};

/// Tries to start it.
const STARTS: usize = 5;
/// Questions to both.
const QUESTIONS: u32 = 3_000;

/// Knot with one zone, on a port of its own.
struct Knot {
    address: SocketAddr,
    process: Child,
    _files: TempDir,
}

impl Knot {
    async fn start(program: &Path, zone: &str, file: &str) -> Self {
        // A port that was free may be taken before Knot listens on it.
        for _ in 0..STARTS {
            if let Some(knot) = Self::try_start(program, zone, file).await {
                return knot;
            }
        }
        panic!("Knot does not start");
    }

    /// `None`: it has ended.
    async fn try_start(program: &Path, zone: &str, file: &str) -> Option<Self> {
        let files = tempfile::tempdir().unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let home = files.path().display().to_string();
        let config = format!(
            "server:\n  rundir: \"{home}\"\n  listen: 127.0.0.1@{}\n  udp-workers: 1\n  tcp-workers: 1\n\
             database:\n  storage: \"{home}\"\nlog:\n  - target: stderr\n    any: error\n\
             zone:\n  - domain: {zone}\n    storage: \"{home}\"\n    file: zone\n    semantic-checks: off\n",
            address.port()
        );
        std::fs::write(files.path().join("zone"), file).unwrap();
        std::fs::write(files.path().join("knot.conf"), config).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(files.path().join("knot.conf")).kill_on_drop(true).stdout(Stdio::null());
        let process = command.spawn().expect("knotd starts");
        let mut knot = Self { address, process, _files: files };
        let answers = until(LIMIT, "Knot answers", async || {
            let answer = ask(address, &question(zone, Kind::SOA)).await;
            answer.is_some_and(|answer| !answer.answers.is_empty())
        });
        let has_ended = tokio::select! {
            () = answers => false,
            end = knot.process.wait() => end.is_ok(),
        };
        (!has_ended).then_some(knot)
    }
}

async fn ask(server: SocketAddr, message: &Message) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(&message.to_vec().unwrap()).await.ok()?;
    let answered = async {
        loop {
            let mut bytes = vec![0; 65_535];
            let length = socket.recv(&mut bytes).await.ok()?;
            let answer = Message::from_vec(&bytes[..length]).ok()?;
            // Others were sent to a socket that had the same port, and came before this one was connected.
            if answer.queries == message.queries {
                return Some(answer);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(2), answered).await.ok()?
}

/// What of an answer has to be the same. Serial numbers, and the order of records, have not.
#[derive(Debug, PartialEq, Eq)]
struct Essence {
    code: String,
    is_authoritative: bool,
    answers: BTreeSet<String>,
    authorities: BTreeSet<String>,
    /// Addresses that help; others may be left out.
    glue: BTreeSet<String>,
}

impl Essence {
    fn of(answer: &Message) -> Self {
        let set = |records: &[Record]| records.iter().map(text).collect::<BTreeSet<String>>();
        let is_referral = answer.answers.is_empty() && !answer.metadata.authoritative;
        Self {
            code: format!("{:?}", answer.metadata.response_code),
            is_authoritative: answer.metadata.authoritative,
            answers: set(&answer.answers),
            authorities: set(&answer.authorities),
            glue: if is_referral { set(&answer.additionals) } else { BTreeSet::new() },
        }
    }
}

fn text(record: &Record) -> String {
    assert_eq!(record.dns_class, DNSClass::IN);
    let data = match record.record_type() {
        Kind::SOA => String::new(),
        _ => format!("{:?}", record.data.clone().into_rdata()),
    };
    format!("{} {} {} {data}", record.name.to_lowercase(), record.ttl, record.record_type())
}

const ZONE: &str = "example.test";
const LABELS: [&str; 8] = ["a", "b", "c", "*", "_x", "sub", "w", "zz"];
const KINDS: [Kind; 9] =
    [Kind::A, Kind::AAAA, Kind::TXT, Kind::MX, Kind::NS, Kind::CNAME, Kind::SOA, Kind::SRV, Kind::DS];

/// A name of up to four labels in the zone, now and then of another one.
fn name(random: &mut StdRng) -> String {
    let mut name = String::new();
    for _ in 0..random.random_range(0..=4) {
        name.push_str(LABELS.choose(random).unwrap());
        name.push('.');
    }
    name + if random.random_ratio(1, 50) { "elsewhere.test" } else { ZONE }
}

/// Records as people have them, on few names, so that all of it meets.
async fn fill(setting: &Setting, random: &mut StdRng) {
    for _ in 0..60 {
        let name = name(random);
        let Ok(host) = Hostname::parse(&name) else { continue };
        if !host.is_within(&Hostname::parse(ZONE).unwrap()) {
            continue;
        }
        let target = format!("{}.{ZONE}", LABELS[..3].choose(random).unwrap());
        let record = match random.random_range(0..7) {
            0 | 1 => record(&name, "A", &format!("192.0.2.{}", random.random::<u8>())),
            2 => record(&name, "AAAA", "2001:db8::1"),
            3 => record(&name, "TXT", "text"),
            4 => record(&name, "MX", &format!("10 {target}")),
            // An alias at the zone's own name is ours alone, and Knot takes delegations of wildcards for something else.
            5 if name != ZONE => record(&name, "CNAME", &target),
            6 if name != ZONE && !name.contains('*') => record(&name, "NS", &format!("ns.{name}")),
            _ => continue,
        };
        let zone = setting.zone(ZONE);
        // What cannot stand beside what is there is refused.
        let edit = registry::RecordEdit::Create(record);
        let _ = setting.registry.edit_records(crate::setting::at(1), zone, &[edit]).await;
    }
}

/// The zone without aliases that stand beside something else: these are flattened here, and not allowed there.
async fn remove_flattened(setting: &Setting) {
    let snapshot = setting.registry.snapshot();
    let zone = setting.zone(ZONE);
    let is_alias = |record: &registry::Record| record.content.kind() == registry::RecordType::Cname;
    for set in snapshot.record_sets(zone).filter(|set| set.records.len() > 1) {
        for alias in set.records.iter().filter(|record| is_alias(record)) {
            let edit = registry::RecordEdit::Delete(alias.id);
            setting.registry.edit_records(crate::setting::at(2), zone, &[edit]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_zone_is_answered_as_knot_answers_it() {
    let Some(program) = harness::peer("knotd", "install knot") else { return };
    for seed in 0..6 {
        let mut random = StdRng::seed_from_u64(seed);
        let setting = Setting::start().await;
        fill(&setting, &mut random).await;
        remove_flattened(&setting).await;
        let snapshot = setting.registry.snapshot();
        let zone = Hostname::parse(ZONE).unwrap();
        let records = write_zone_file(&zone, snapshot.record_sets(setting.zone(ZONE)).map(|set| &set.value));
        // A time to live of 1 is ours for 300. What follows from no record here has one there.
        let records = records.replace("\t1\tIN\t", "\t300\tIN\t");
        let own = "_v2-origintunneld._tcp 60 SRV 1 1 7844 region1.v2\n_v2-origintunneld._tcp 60 SRV 2 1 7844 region2.v2\n\
                   region1.v2 60 A 198.51.100.1\nregion2.v2 60 A 198.51.100.1\n";
        let file = format!(
            "$ORIGIN {ZONE}.\n$TTL 300\n@ SOA ns1 hostmaster 1 3600 600 1209600 300\n@ NS ns1\n@ NS ns2\n\
             ns1 60 A 198.51.100.1\nns2 60 A 198.51.100.1\n{own}{records}"
        );
        let knot = Knot::start(&program, ZONE, &file).await;
        let mut differing = Vec::new();
        for _ in 0..QUESTIONS / 6 {
            let asked = question(&name(&mut random), *KINDS.choose(&mut random).unwrap());
            let theirs = Essence::of(&ask(knot.address, &asked).await.expect("Knot answers"));
            let ours = Essence::of(&setting.udp(&asked).await);
            if ours != theirs {
                differing.push(format!("{}\nours {ours:#?}\ntheirs {theirs:#?}", asked.queries[0]));
            }
        }
        assert!(differing.is_empty(), "seed {seed}: {} differ, the first: {}\n{file}", differing.len(), differing[0]);
    }
}
