//! Which answer each name and type has.

use hickory_proto::rr::RecordType as Kind;
use registry::{NewRecord, RecordSettings, ZoneTraits, ZoneType};

use crate::setting::{Setting, at, host, proxied, record};

/// How answers begin that deny something of the zone.
const SOA: &str = "! example.test. 300 SOA ns1.example.test. hostmaster.example.test. ";

fn with_settings(record: NewRecord, settings: RecordSettings) -> NewRecord {
    record.with_notes(None, &[], settings).unwrap()
}

async fn check(setting: &Setting, cases: &[(&str, Kind, &str)]) {
    for (name, kind, expected) in cases {
        let answer = setting.ask(name, *kind).await;
        // Which change was the last one is no matter here.
        let answer: Vec<String> = answer
            .lines()
            .map(|line| match line.split_once(SOA) {
                Some(_) => "! SOA".to_owned(),
                None => line.to_owned(),
            })
            .collect();
        assert_eq!(answer.join("\n"), *expected, "{name} {kind}");
    }
}

#[tokio::test]
async fn records_of_every_type_are_answered() {
    let setting = Setting::start().await;
    let key = "a".repeat(64);
    let data = [
        ("A", "192.0.2.1", "192.0.2.1"),
        ("AAAA", "2001:db8::1", "2001:db8::1"),
        ("CAA", r#"0 issue "ca.test""#, r#"0 issue "ca.test""#),
        ("CERT", "1 2 3 AAEC", "PKIX 2 DSA AAEC"),
        (
            "DS",
            &format!("1 13 2 {key}"), // As those show it who know nothing of its parts.
            "AAENAqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq",
        ),
        ("HTTPS", "1 . alpn=h2,h3 port=8443", "1 . alpn=h2,h3, port=8443"),
        ("MX", "10 mx.test", "10 mx.test."),
        ("NAPTR", r#"1 2 "u" "sip" "!a!b!" ."#, r#"1 2 "u" "sip" "!a!b!" ."#),
        ("NS", "ns.elsewhere.test", ""),
        ("OPENPGPKEY", "AAEC", "AAEC"),
        ("PTR", "a.test", "a.test."),
        ("SMIMEA", "3 1 0 abcd", "3 1 0 abcd"),
        ("SRV", "1 2 443 a.test", "1 2 443 a.test."),
        ("SSHFP", &format!("4 2 {key}"), &format!("4 2 {key}")),
        ("SVCB", "1 a.test ipv4hint=192.0.2.1", "1 a.test. ipv4hint=192.0.2.1,"),
        ("TLSA", &format!("3 1 1 {key}"), &format!("3 1 1 {key}")),
        ("TXT", "v=1", "v=1"),
    ];
    let name = |kind: &str| format!("{}.example.test", kind.to_lowercase());
    for (kind, content, _) in &data {
        setting.add(vec![record(&name(kind), kind, content)]).await;
    }
    let mut wrong = Vec::new();
    for (kind, _, expected) in &data {
        let answer = setting.ask(&name(kind), kind.parse().unwrap()).await;
        let expected = match *kind {
            "NS" => "NoError not-aa\n! ns.example.test. 300 NS ns.elsewhere.test.".to_owned(),
            kind => format!("NoError\n= {}. 300 {kind} {expected}", name(kind)),
        };
        if answer != expected {
            wrong.push(format!("{answer}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn what_is_not_there_is_denied() {
    let setting = Setting::start().await;
    setting.add(vec![record("a.b.example.test", "A", "192.0.2.1")]).await;
    check(
        &setting,
        &[
            ("a.b.example.test", Kind::AAAA, "NoError\n! SOA"),
            // An empty name, since another one lies under it.
            ("b.example.test", Kind::A, "NoError\n! SOA"),
            ("x.b.example.test", Kind::A, "NXDomain\n! SOA"),
            ("x.a.b.example.test", Kind::A, "NXDomain\n! SOA"),
            // The edge's domain leads to its nodes, which have one family of addresses.
            ("example.test", Kind::A, "NoError\n= example.test. 300 A 198.51.100.1"),
            ("example.test", Kind::AAAA, "NoError\n! SOA"),
            ("elsewhere.test", Kind::A, "Refused not-aa"),
            ("test", Kind::A, "Refused not-aa"),
            (".", Kind::NS, "Refused not-aa"),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_zone_has_an_authority_and_name_servers() {
    let setting = Setting::start().await;
    let soa = setting.ask("example.test", Kind::SOA).await;
    let serial = setting.registry.snapshot().revision();
    assert_eq!(
        soa,
        format!(
            "NoError\n= example.test. 300 SOA ns1.example.test. hostmaster.example.test. {serial} 3600 600 1209600 300"
        )
    );
    check(
        &setting,
        &[
            (
                "example.test",
                Kind::NS,
                "NoError\n= example.test. 300 NS ns1.example.test.\n= example.test. 300 NS ns2.example.test.",
            ),
            ("ns1.example.test", Kind::A, "NoError\n= ns1.example.test. 60 A 198.51.100.1"),
            ("ns2.example.test", Kind::AAAA, "NoError\n! SOA"),
            ("ns3.example.test", Kind::A, "NXDomain\n! SOA"),
            ("example.test", Kind::ANY, "NoError\n= example.test. 300 HINFO RFC8482 "),
            ("nobody.example.test", Kind::ANY, "NXDomain\n! SOA"),
        ],
    )
    .await;
    // What people say goes before what the edge says by itself.
    setting.add(vec![record("ns2.example.test", "A", "192.0.2.53")]).await;
    let vanity = vec![host("ns2.example.test"), host("dns.elsewhere.test")];
    let traits = ZoneTraits { vanity_name_servers: vanity, ..ZoneTraits::default() };
    setting.registry.create_zone(at(2), &host("other.test"), traits).await.unwrap();
    check(
        &setting,
        &[
            ("ns2.example.test", Kind::A, "NoError\n= ns2.example.test. 300 A 192.0.2.53"),
            (
                "other.test",
                Kind::NS,
                "NoError\n= other.test. 300 NS dns.elsewhere.test.\n= other.test. 300 NS ns2.example.test.",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn wildcards_answer_for_what_is_not_there() {
    let setting = Setting::start().await;
    setting
        .add(vec![
            record("*.example.test", "TXT", "any"),
            record("*.example.test", "MX", "10 mx.example.test"),
            record("sub.*.example.test.".trim_end_matches('.').replace("sub.*.", "*.").as_str(), "A", "192.0.2.9"),
            record("host1.example.test", "A", "192.0.2.1"),
            record("_ssh._tcp.host1.example.test", "SRV", "0 0 22 host1.example.test"),
            record("*.w.example.test", "CNAME", "host1.example.test"),
            record("sub.example.test", "NS", "ns.elsewhere.test"),
        ])
        .await;
    // As section 2.2.1 of RFC 4592 has it, but for what is ours.
    check(
        &setting,
        &[
            ("host3.example.test", Kind::MX, "NoError\n= host3.example.test. 300 MX 10 mx.example.test."),
            ("host3.example.test", Kind::AAAA, "NoError\n! SOA"),
            ("foo.bar.example.test", Kind::TXT, "NoError\n= foo.bar.example.test. 300 TXT any"),
            ("host1.example.test", Kind::MX, "NoError\n! SOA"),
            ("*.example.test", Kind::TXT, "NoError\n= *.example.test. 300 TXT any"),
            ("_telnet._tcp.host1.example.test", Kind::SRV, "NXDomain\n! SOA"),
            ("_tcp.host1.example.test", Kind::TXT, "NoError\n! SOA"),
            ("ghost.host1.example.test", Kind::MX, "NXDomain\n! SOA"),
            ("host.sub.example.test", Kind::MX, "NoError not-aa\n! sub.example.test. 300 NS ns.elsewhere.test."),
            (
                "a.b.w.example.test",
                Kind::A,
                "NoError\n= a.b.w.example.test. 300 CNAME host1.example.test.\n= host1.example.test. 300 A 192.0.2.1",
            ),
            ("w.example.test", Kind::A, "NoError\n! SOA"),
            ("a.*.example.test", Kind::A, "NXDomain\n! SOA"),
        ],
    )
    .await;
}

#[tokio::test]
async fn aliases_are_followed_as_far_as_our_zones_go() {
    let setting = Setting::start().await;
    setting.registry.ensure_zone(at(0), &host("other.test")).await.unwrap();
    setting
        .add(vec![
            record("a.example.test", "CNAME", "b.example.test"),
            record("b.example.test", "CNAME", "c.other.test"),
            record("c.other.test", "A", "192.0.2.1"),
            record("out.example.test", "CNAME", "www.elsewhere.test"),
            record("gone.example.test", "CNAME", "nobody.example.test"),
            record("l1.example.test", "CNAME", "l2.example.test"),
            record("l2.example.test", "CNAME", "l1.example.test"),
            record("self.example.test", "CNAME", "self.example.test"),
        ])
        .await;
    let chain = "NoError\n= a.example.test. 300 CNAME b.example.test.\n= b.example.test. 300 CNAME c.other.test.";
    check(
        &setting,
        &[
            ("a.example.test", Kind::A, &format!("{chain}\n= c.other.test. 300 A 192.0.2.1")),
            ("a.example.test", Kind::CNAME, "NoError\n= a.example.test. 300 CNAME b.example.test."),
            ("out.example.test", Kind::A, "NoError\n= out.example.test. 300 CNAME www.elsewhere.test."),
            ("gone.example.test", Kind::A, "NXDomain\n= gone.example.test. 300 CNAME nobody.example.test.\n! SOA"),
            (
                "l1.example.test",
                Kind::A,
                "NoError\n= l1.example.test. 300 CNAME l2.example.test.\n= l2.example.test. 300 CNAME l1.example.test.",
            ),
            ("self.example.test", Kind::A, "NoError\n= self.example.test. 300 CNAME self.example.test."),
        ],
    )
    .await;
}

#[tokio::test]
async fn aliases_that_may_not_be_are_flattened() {
    let setting = Setting::start().await;
    let flat = RecordSettings { flatten_cname: Some(true), ..RecordSettings::default() };
    setting
        .add(vec![
            record("example.test", "CNAME", "target.example.test"),
            record("example.test", "MX", "10 mx.example.test"),
            record("target.example.test", "A", "192.0.2.1").with_ttl(60).unwrap(),
            record("target.example.test", "AAAA", "2001:db8::1"),
            with_settings(record("flat.example.test", "CNAME", "target.example.test"), flat),
            with_settings(record("loop.example.test", "CNAME", "loop.example.test"), flat),
        ])
        .await;
    check(
        &setting,
        &[
            ("example.test", Kind::A, "NoError\n= example.test. 60 A 192.0.2.1"),
            ("example.test", Kind::AAAA, "NoError\n= example.test. 300 AAAA 2001:db8::1"),
            ("example.test", Kind::MX, "NoError\n= example.test. 300 MX 10 mx.example.test."),
            ("example.test", Kind::CNAME, "NoError\n! SOA"),
            ("example.test", Kind::TXT, "NoError\n! SOA"),
            ("flat.example.test", Kind::A, "NoError\n= flat.example.test. 60 A 192.0.2.1"),
            ("loop.example.test", Kind::A, "ServFail"),
        ],
    )
    .await;
}

#[tokio::test]
async fn visitors_of_proxied_names_come_to_the_edge() {
    let setting = Setting::start().await;
    let only_6 = RecordSettings { ipv6_only: Some(true), ..RecordSettings::default() };
    setting
        .add(vec![
            proxied("www.example.test", "A", "192.0.2.1"),
            proxied("t.example.test", "CNAME", "11111111-2222-4333-8444-555555555555.cfargotunnel.com"),
            proxied("*.any.example.test", "CNAME", "www.elsewhere.test"),
            proxied("example.test", "CNAME", "www.elsewhere.test"),
            record("example.test", "TXT", "v=1"),
            with_settings(proxied("six.example.test", "A", "192.0.2.1"), only_6),
        ])
        .await;
    let cases = ["www.example.test", "t.example.test", "x.any.example.test", "example.test"]
        .map(|name| (name, format!("NoError\n= {name}. 300 A 198.51.100.1")));
    for (name, expected) in &cases {
        check(
            &setting,
            &[(name, Kind::A, expected), (name, Kind::AAAA, "NoError\n! SOA"), (name, Kind::CNAME, "NoError\n! SOA")],
        )
        .await;
    }
    check(
        &setting,
        &[
            ("example.test", Kind::TXT, "NoError\n= example.test. 300 TXT v=1"),
            ("six.example.test", Kind::A, "NoError\n! SOA"),
        ],
    )
    .await;
    setting.registry.change_zone(at(2), setting.zone("example.test"), |traits, _| traits.paused = true).await.unwrap();
    harness::until(harness::LIMIT, "the pause is in the answers", async || {
        setting.ask("www.example.test", Kind::A).await == "NoError\n= www.example.test. 300 A 192.0.2.1"
    })
    .await;
}

#[tokio::test]
async fn parts_of_a_zone_are_delegated() {
    let setting = Setting::start().await;
    let digest = "ab".repeat(32);
    setting
        .add(vec![
            record("sub.example.test", "NS", "ns.sub.example.test"),
            record("sub.example.test", "NS", "ns.elsewhere.test"),
            record("sub.example.test", "DS", &format!("1 13 2 {digest}")),
            record("ns.sub.example.test", "A", "192.0.2.53"),
            record("hidden.sub.example.test", "A", "192.0.2.1"),
        ])
        .await;
    let referral = "NoError not-aa\n! sub.example.test. 300 NS ns.elsewhere.test.\n! sub.example.test. 300 NS \
                    ns.sub.example.test.\n+ ns.sub.example.test. 300 A 192.0.2.53";
    check(
        &setting,
        &[
            ("sub.example.test", Kind::A, referral),
            ("sub.example.test", Kind::NS, referral),
            ("hidden.sub.example.test", Kind::A, referral),
            ("ns.sub.example.test", Kind::A, referral),
            (
                "sub.example.test",
                Kind::DS,
                "NoError\n= sub.example.test. 300 DS AAENAqurq6urq6urq6urq6urq6urq6urq6urq6urq6urq6ur",
            ),
            ("deep.sub.example.test", Kind::DS, referral),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_closest_zone_answers() {
    let setting = Setting::start().await;
    setting.registry.ensure_zone(at(0), &host("in.example.test")).await.unwrap();
    setting.add(vec![record("*.example.test", "A", "192.0.2.1"), record("a.in.example.test", "A", "192.0.2.2")]).await;
    let inner = "! in.example.test. 300 SOA ns1.example.test. hostmaster.in.example.test.";
    assert!(setting.ask("b.in.example.test", Kind::A).await.starts_with(&format!("NXDomain\n{inner}")));
    check(
        &setting,
        &[
            ("a.in.example.test", Kind::A, "NoError\n= a.in.example.test. 300 A 192.0.2.2"),
            ("b.example.test", Kind::A, "NoError\n= b.example.test. 300 A 192.0.2.1"),
            ("in.example.test", Kind::DS, "NoError\n! SOA"),
        ],
    )
    .await;
}

#[tokio::test]
async fn zones_that_others_answer_for_are_refused() {
    let setting = Setting::start().await;
    for (name, kind) in [("partial.test", ZoneType::Partial), ("internal.test", ZoneType::Internal)] {
        let traits = ZoneTraits { kind, ..ZoneTraits::default() };
        setting.registry.create_zone(at(0), &host(name), traits).await.unwrap();
        setting.add(vec![record(&format!("www.{name}"), "A", "192.0.2.1")]).await;
        check(&setting, &[(&format!("www.{name}"), Kind::A, "Refused not-aa")]).await;
    }
}
