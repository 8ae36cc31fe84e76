//! Zones and DNS records: what may stand in them, who wins, and what follows from them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use jiff::Timestamp;
use registry::engine::{Guard, Write};
use registry::*;
use serde_json::{Value, json};
use uuid::Uuid;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn host(name: &str) -> Hostname {
    Hostname::parse(name).unwrap()
}

fn new(name: &str, kind: RecordType, content: &str) -> NewRecord {
    NewRecord::new(host(name), RecordContent::parse(kind, content, None, None).unwrap())
}

fn create(name: &str, kind: RecordType, content: &str) -> RecordEdit<'static> {
    RecordEdit::Create(new(name, kind, content))
}

fn led(name: &str, tunnel: Uuid) -> RecordEdit<'static> {
    let record = new(name, RecordType::Cname, &Record::tunnel_target(tunnel)).with_proxied(true).unwrap();
    RecordEdit::Create(record)
}

async fn open() -> (Registry, ZoneId) {
    let registry = Registry::in_memory(at(0)).await.unwrap();
    let zone = registry.ensure_zone(at(0), &host("example.test")).await.unwrap();
    (registry, zone.id)
}

async fn tunnel(registry: &Registry, name: &str) -> Uuid {
    let name = TunnelName::parse(name).unwrap();
    let new = NewTunnel { name, secret: None, config_source: ConfigSource::Local, labels: Default::default() };
    registry.create_tunnel(at(0), new).await.unwrap().id
}

#[test]
fn data_has_one_form_as_text_and_as_members() {
    use RecordType::*;
    let same = "";
    for (kind, given, content, data) in [
        (A, " 192.0.2.1", "192.0.2.1", Value::Null),
        (Aaaa, "2001:DB8:0::1", "2001:db8::1", Value::Null),
        (Cname, "App.Example.TEST.", "app.example.test", Value::Null),
        (Cname, "bücher.example", "xn--bcher-kva.example", Value::Null),
        (Ns, "ns1.example.", "ns1.example", Value::Null),
        (Ptr, "a.example", same, Value::Null),
        (Mx, "10 .", ".", Value::Null),
        (Txt, "\"v=1\" \"x\"", same, Value::Null),
        (Txt, "v=1; a \"b\"", same, Value::Null),
        (
            Srv,
            "1  2 5060 SIP.example.",
            "1 2 5060 sip.example",
            json!({"priority": 1, "weight": 2, "port": 5060, "target": "sip.example"}),
        ),
        (
            Caa,
            "0 Issue ca.example",
            "0 issue \"ca.example\"",
            json!({"flags": 0, "tag": "issue", "value": "ca.example"}),
        ),
        (
            Https,
            "1 . alpn=\"h3,h2\"   ipv4hint=192.0.2.1",
            "1 . alpn=\"h3,h2\" ipv4hint=192.0.2.1",
            json!({"priority": 1, "target": ".", "value": "alpn=\"h3,h2\" ipv4hint=192.0.2.1"}),
        ),
        (Svcb, "0 svc.example.", "0 svc.example", json!({"priority": 0, "target": "svc.example.", "value": ""})),
        (
            Ds,
            "60485 5 1 2BB183AF5F22588179A53B0A 98631FAD1A292118",
            "60485 5 1 2BB183AF5F22588179A53B0A98631FAD1A292118",
            json!({"key_tag": 60485, "algorithm": 5, "digest_type": 1, "digest": "2BB183AF5F22588179A53B0A98631FAD1A292118"}),
        ),
        (
            Dnskey,
            "257 3 13 AwEA AQ==",
            "257 3 13 AwEAAQ==",
            json!({"flags": 257, "protocol": 3, "algorithm": 13, "public_key": "AwEAAQ=="}),
        ),
        (Cert, "1 2 3 AQID", same, json!({"type": 1, "key_tag": 2, "algorithm": 3, "certificate": "AQID"})),
        (Sshfp, "4 9 00ff", same, json!({"algorithm": 4, "type": 9, "fingerprint": "00ff"})),
        (Tlsa, "3 1 0 00ff", same, json!({"usage": 3, "selector": 1, "matching_type": 0, "certificate": "00ff"})),
        (Smimea, "3 1 0 00ff", same, json!({"usage": 3, "selector": 1, "matching_type": 0, "certificate": "00ff"})),
        (
            Naptr,
            "100 10 u E2U+sip \"!^.*$!sip:a@example!\" .",
            "100 10 \"u\" \"E2U+sip\" \"!^.*$!sip:a@example!\" .",
            json!({"order": 100, "preference": 10, "flags": "u", "service": "E2U+sip", "regex": "!^.*$!sip:a@example!", "replacement": "."}),
        ),
        (
            Uri,
            "10 1 https://example.test/a",
            "10 1 \"https://example.test/a\"",
            json!({"priority": 10, "weight": 1, "target": "https://example.test/a"}),
        ),
        (Openpgpkey, "AQ ID", "AQID", json!({"public_key": "AQID"})),
        (
            Loc,
            "42 21 54 N 71 06 18.25 W -24m 30m",
            "42 21 54.000 N 71 6 18.250 W -24.00m 30.00m 10000.00m 10.00m",
            json!({"lat_degrees": 42, "lat_minutes": 21, "lat_seconds": 54, "lat_direction": "N", "long_degrees": 71, "long_minutes": 6,
                "long_seconds": 18.25, "long_direction": "W", "altitude": -24, "size": 30, "precision_horz": 10000, "precision_vert": 10}),
        ),
    ] {
        let parsed = RecordContent::parse(kind, given, None, None).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(parsed.text(), if content.is_empty() { given } else { content }, "{kind}");
        assert_eq!(parsed.data().map_or(Value::Null, Value::Object), data, "{kind}");
        if let Some(data) = parsed.data() {
            assert_eq!(RecordContent::from_data(kind, &data, None).unwrap(), parsed, "{kind}");
        }
        let again = RecordContent::parse(kind, parsed.text(), parsed.priority(), None).unwrap();
        assert_eq!(again, parsed, "its own form stays as it is");
        let zone = host("zone.test");
        let from_file = RecordContent::parse(kind, &parsed.to_rdata(), None, Some(&zone)).unwrap();
        assert!(from_file.is_same(&parsed), "{kind}: {}", parsed.to_rdata());
    }
}

#[test]
fn numbers_may_be_text_and_members_may_be_too_much() {
    let data = json!({"priority": "1.0", "weight": 2.0, "port": "5060", "target": "a.test.", "service": "_sip", "proto": "_tcp", "name": "x"});
    let srv = RecordContent::from_data(RecordType::Srv, data.as_object().unwrap(), None).unwrap();
    assert_eq!((srv.text(), srv.priority()), ("1 2 5060 a.test", Some(1)));
    let data = json!({"flags": 0, "tag": "issue", "value": "\"ca.test\""});
    assert_eq!(
        RecordContent::from_data(RecordType::Caa, data.as_object().unwrap(), None).unwrap().text(),
        "0 issue \"ca.test\""
    );
    let data = json!({"weight": 1, "target": "https://a.test"});
    let uri = RecordContent::from_data(RecordType::Uri, data.as_object().unwrap(), Some(7)).unwrap();
    assert_eq!(uri.text(), "7 1 \"https://a.test\"");
    assert_eq!(uri.with_priority(8).unwrap().text(), "8 1 \"https://a.test\"");
    let old_style = RecordContent::parse(RecordType::Srv, "2 5060 a.test", Some(1), None).unwrap();
    assert_eq!(old_style, srv);
    assert_eq!(RecordContent::parse(RecordType::Mx, "5 mx.test", None, None).unwrap().priority(), Some(5));
}

#[test]
fn what_is_no_data_of_a_type_is_refused() {
    use RecordType::*;
    let long = "x".repeat(5000);
    for (kind, given) in [
        (A, "192.0.2"),
        (A, "192.0.2.1.5"),
        (A, "2001:db8::1"),
        (A, ""),
        (Aaaa, "192.0.2.1"),
        (Aaaa, "fe80::1%eth0"),
        (Cname, "192.0.2.1"),
        (Cname, "*.example.test"),
        (Cname, "a b"),
        (Cname, ""),
        (Cname, "a\0b"),
        (Mx, "mx.test"),
        (Mx, "65536 mx.test"),
        (Txt, ""),
        (Txt, "a\nb"),
        (Txt, long.as_str()),
        (Srv, "1 2 3"),
        (Srv, "1 2 65536 a.test"),
        (Srv, "1 2 3 a.test more"),
        (Caa, "256 issue x"),
        (Caa, "0 is-sue x"),
        (Caa, "0 issue \"x"),
        (Https, "1 . alpn"),
        (Https, "1 . port=x"),
        (Https, "1 . ipv4hint=2001:db8::1"),
        (Https, "1 . alpn=h2 alpn=h3"),
        (Https, "1 . UPPER=1"),
        (Ds, "1 2 1 00ff"),
        (Ds, "1 2 1 zz"),
        (Dnskey, "257 3 13 ***"),
        (Tlsa, "3 1 1 00ff"),
        (Sshfp, "1 1 00f"),
        (Naptr, "1 2 u s"),
        (Uri, "1 x a"),
        (Openpgpkey, ""),
        (Loc, "91 0 0 N 0 0 0 E 0m"),
        (Loc, "90 0 1 N 0 0 0 E 0m"),
        (Loc, "1 60 0 N 0 0 0 E 0m"),
        (Loc, "1 N 2 E"),
        (Loc, "1 2 3 4 N 2 E 0m"),
        (Loc, "1 N 2 E 99999999m"),
        (Loc, "-1 N 2 E 0m"),
    ] {
        let refused = RecordContent::parse(kind, given, None, None);
        assert!(refused.is_err(), "{kind} {given:?}: {refused:?}");
    }
}

#[tokio::test]
async fn whoever_points_a_proxied_cname_at_a_tunnel_leads_the_name_there() {
    let (registry, zone) = open().await;
    let (one, two) = (tunnel(&registry, "one").await, tunnel(&registry, "two").await);
    let leads = |name: &str| registry.snapshot().route(name).map(|route| route.tunnel);
    let edited =
        registry.edit_records(at(1), zone, &[led("a.example.test", one), led("*.example.test", two)]).await.unwrap();
    assert_eq!((leads("a.example.test"), leads("b.example.test")), (Some(one), Some(two)));
    assert_eq!(registry.snapshot().routes_of(one).count(), 1);

    // What is not proxied is DNS's alone.
    let id = edited[0].record.id;
    let unproxied =
        |name: &Hostname, old: &Record| NewRecord::new(name.clone(), old.content.clone()).with_proxied(false);
    registry.edit_records(at(2), zone, &[RecordEdit::Change(id, Box::new(unproxied))]).await.unwrap();
    assert_eq!(leads("a.example.test"), Some(two), "by the wildcard");
    let moved = move |_: &Hostname, _: &Record| {
        let content = RecordContent::parse(RecordType::Cname, &Record::tunnel_target(one), None, None)?;
        NewRecord::new(host("c.d.example.test"), content).with_proxied(true)
    };
    registry.edit_records(at(3), zone, &[RecordEdit::Change(id, Box::new(moved))]).await.unwrap();
    assert_eq!((leads("c.d.example.test"), leads("d.example.test")), (Some(one), Some(two)));

    // What the agent's own words do is the same.
    assert_eq!(
        registry.put_route(at(4), zone, host("c.d.example.test"), one, false).await.unwrap(),
        RouteWrite::Unchanged
    );
    registry.edit_records(at(4), zone, &[create("www.example.test", RecordType::A, "192.0.2.1")]).await.unwrap();
    let taken = registry.put_route(at(4), zone, host("www.example.test"), one, false).await;
    assert!(matches!(taken, Err(RouteError::InTheWay { kind: RecordType::A, .. })), "{taken:?}");
    assert_eq!(
        registry.put_route(at(4), zone, host("www.example.test"), one, true).await.unwrap(),
        RouteWrite::Updated
    );
    assert_eq!(leads("www.example.test"), Some(one));
    registry.delete_tunnel(at(5), one, false).await.unwrap();
    assert_eq!(registry.snapshot().record_count(zone), 1, "the records went with the tunnel");
    registry.edit_records(at(6), zone, &[led("@.example.test".trim_start_matches("@."), two)]).await.unwrap();
    assert_eq!(leads("example.test"), Some(two));
}

#[tokio::test]
async fn of_nested_zones_the_closest_says_where_a_name_leads() {
    let (registry, outer) = open().await;
    let (one, two) = (tunnel(&registry, "one").await, tunnel(&registry, "two").await);
    let leads = |name: &str| registry.snapshot().route(name).map(|route| route.tunnel);
    registry
        .edit_records(at(1), outer, &[led("a.sub.example.test", one), led("*.sub.example.test", one)])
        .await
        .unwrap();
    let inner = registry.create_zone(at(2), &host("sub.example.test"), ZoneTraits::default()).await.unwrap().id;
    registry.edit_records(at(3), inner, &[led("a.sub.example.test", two)]).await.unwrap();
    // What the outer one says there is nobody's business any more, be it a wildcard.
    assert_eq!((leads("a.sub.example.test"), leads("b.sub.example.test")), (Some(two), None));
    registry.edit_records(at(3), outer, &[led("*.example.test", one), led("c.sub.example.test", one)]).await.unwrap();
    assert_eq!(
        (leads("sub.example.test"), leads("b.sub.example.test"), leads("c.sub.example.test")),
        (None, None, None)
    );
    assert_eq!((leads("b.example.test"), leads("x.b.example.test")), (Some(one), Some(one)));
    assert_eq!(registry.snapshot().zone_of("a.sub.example.test").unwrap().id, inner);
    registry.delete_zone(at(4), inner).await.unwrap();
    assert_eq!((leads("a.sub.example.test"), leads("b.sub.example.test")), (Some(one), Some(one)));
    registry.delete_zone(at(5), outer).await.unwrap();
    assert_eq!((leads("a.sub.example.test"), registry.snapshot().routes().count()), (None, 0));
}

#[tokio::test]
async fn twins_and_addresses_beside_a_cname_are_refused() {
    use RecordType::*;
    let (registry, zone) = open().await;
    let edit = async |edit: RecordEdit<'static>| registry.edit_records(at(1), zone, &[edit]).await;
    edit(create("a.example.test", A, "192.0.2.1")).await.unwrap();
    edit(create("a.example.test", A, "192.0.2.2")).await.unwrap();
    let revision = registry.snapshot().revision();
    let twin = edit(create("a.example.test", A, "192.0.2.1")).await;
    assert!(matches!(twin, Err(RecordError::Exists { identical: true, .. })), "{twin:?}");
    let twin = edit(RecordEdit::Create(new("a.example.test", A, "192.0.2.1").with_ttl(300).unwrap())).await;
    assert!(matches!(twin, Err(RecordError::Exists { identical: false, .. })), "{twin:?}");
    let beside = edit(create("a.example.test", Cname, "b.test")).await;
    assert!(matches!(beside, Err(RecordError::InTheWay { other: A, wanted: Cname, .. })), "{beside:?}");
    let outside = edit(create("a.elsewhere.test", A, "192.0.2.1")).await;
    assert!(matches!(outside, Err(RecordError::Bad(BadRecord { flaw: RecordFlaw::Name, .. }))), "{outside:?}");
    assert_eq!(registry.snapshot().revision(), revision);

    edit(create("t.example.test", Txt, "\"one\" \"two\"")).await.unwrap();
    let twin = edit(create("t.example.test", Txt, "onetwo")).await;
    assert!(matches!(twin, Err(RecordError::Exists { .. })), "{twin:?}");
    let beside = edit(create("t.example.test", Cname, "b.test")).await;
    assert!(matches!(beside, Err(RecordError::InTheWay { other: Txt, .. })), "DNS has a CNAME alone: {beside:?}");
    edit(led("t.example.test", Uuid::nil())).await.unwrap();
    edit(create("example.test", Cname, "b.test")).await.unwrap();
    edit(create("example.test", Mx, "10 mx.test")).await.unwrap();
    let beside = edit(create("example.test", Aaaa, "2001:db8::1")).await;
    assert!(matches!(beside, Err(RecordError::InTheWay { other: Cname, wanted: Aaaa, .. })), "{beside:?}");
}

#[tokio::test]
async fn of_many_who_make_one_record_at_once_one_does() {
    let (registry, zone) = open().await;
    let writers: Vec<_> = (0..30)
        .map(|index| {
            let registry = registry.clone();
            let edit = match index % 2 {
                0 => create("a.example.test", RecordType::A, "192.0.2.1"),
                _ => create("a.example.test", RecordType::Cname, "b.test"),
            };
            tokio::spawn(async move { registry.edit_records(at(1), zone, &[edit]).await.is_ok() })
        })
        .collect();
    let mut winners = 0;
    for writer in writers {
        winners += usize::from(writer.await.unwrap());
    }
    assert_eq!((winners, registry.snapshot().record_count(zone)), (1, 1));
}

#[tokio::test]
async fn edits_happen_in_order_and_all_or_none() {
    let (registry, zone) = open().await;
    let made = registry
        .edit_records(
            at(1),
            zone,
            &[
                create("a.example.test", RecordType::A, "192.0.2.1"),
                create("b.example.test", RecordType::A, "192.0.2.2"),
            ],
        )
        .await
        .unwrap();
    let (a, b) = (made[0].record.id, made[1].record.id);
    assert!(a < b);
    let revision = registry.snapshot().revision();
    let refused = registry
        .edit_records(
            at(2),
            zone,
            &[RecordEdit::Delete(a), RecordEdit::Delete(a), create("c.example.test", RecordType::A, "192.0.2.1")],
        )
        .await;
    assert!(matches!(refused, Err(RecordError::NotFound(id)) if id == a), "{refused:?}");
    assert_eq!(registry.snapshot().revision(), revision);
    let rename = |_: &Hostname, old: &Record| Ok(NewRecord::new(host("a.example.test"), old.content.clone()));
    let edits = [
        RecordEdit::Delete(a),
        RecordEdit::Change(b, Box::new(rename)),
        create("b.example.test", RecordType::Cname, "a.example.test"),
    ];
    let edited = registry.edit_records(at(3), zone, &edits).await.unwrap();
    assert_eq!(registry.snapshot().revision(), revision + 1, "one transaction");
    assert_eq!(edited[0].record.content.text(), "192.0.2.1");
    assert_eq!(
        (edited[1].name.as_str(), edited[1].record.id, edited[1].record.created_at),
        ("a.example.test", b, at(1))
    );
    assert_eq!(edited[1].record.modified_at, at(3));
    // The same again is nothing.
    registry.edit_records(at(4), zone, &[RecordEdit::Change(b, Box::new(rename))]).await.unwrap();
    assert_eq!(registry.snapshot().revision(), revision + 1);
    assert_eq!(registry.snapshot().record(zone, b).unwrap().1.modified_at, at(3));
}

#[tokio::test]
async fn what_is_exported_is_imported() {
    let (registry, zone) = open().await;
    let long = "x".repeat(600);
    let noted = |comment: Option<&str>, tags: &[&str], settings| {
        let record = NewRecord::new(
            host("n.example.test"),
            RecordContent::parse(RecordType::Txt, comment.unwrap_or("x"), None, None).unwrap(),
        );
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        RecordEdit::Create(record.with_notes(comment, &tags, settings).unwrap())
    };
    let settings = RecordSettings { flatten_cname: Some(true), ipv4_only: Some(false), ipv6_only: None };
    let edits = [
        noted(Some("say \"x\"; or cf_tags=not"), &[], RecordSettings::default()),
        noted(None, &["team:web", "a:b,c", "\n"], settings),
        create("example.test", RecordType::Mx, "10 mx.elsewhere.test"),
        create("*.example.test", RecordType::Txt, r#""\195\188ber" "a \"b\" \\ c" "\059""#),
        create("xn--bcher-kva.example.test", RecordType::Aaaa, "2001:db8::1"),
        create("example.test", RecordType::Cert, "1 2 3 AQID"),
        create(
            "example.test",
            RecordType::Dnskey,
            "257 3 13 mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ==",
        ),
        create("d.example.test", RecordType::Ds, "60485 5 1 2BB183AF5F22588179A53B0A98631FAD1A292118"),
        create("d.example.test", RecordType::Ns, "ns1.elsewhere.test"),
        create("example.test", RecordType::Https, "1 . alpn=\"h3,h2\" ipv4hint=\"192.0.2.1\""),
        create("example.test", RecordType::Svcb, "0 svc.elsewhere.test"),
        create("example.test", RecordType::Loc, "52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m"),
        create(
            "example.test",
            RecordType::Naptr,
            "100 10 \"S\" \"SIP+D2U\" \"!^.*$!sip:a@b.test!\" _sip._udp.example.test",
        ),
        create("example.test", RecordType::Openpgpkey, "AQID"),
        create("p.example.test", RecordType::Ptr, "a.example.test"),
        create("example.test", RecordType::Smimea, "3 0 0 AABBCC"),
        create(
            "example.test",
            RecordType::Sshfp,
            "4 2 123456789ABCDEF67890123456789ABCDEF67890123456789ABCDEF123456789",
        ),
        create(
            "example.test",
            RecordType::Tlsa,
            "3 1 1 D2ABDE240D7CD3EE6B4B28C54DF034B97983A1D16E8A410E4561CB106618E971",
        ),
        create("example.test", RecordType::Uri, "10 1 \"https://a.test/%20;x\""),
        create("w.example.test", RecordType::Cname, "a.example.test"),
        create("a.example.test", RecordType::A, "192.0.2.1"),
        create("a.example.test", RecordType::A, "192.0.2.2"),
        create("*.b.example.test", RecordType::Txt, &long),
        create("_s._tcp.example.test", RecordType::Srv, "1 2 3 a.example.test"),
        create("c.example.test", RecordType::Caa, "0 issue \"say \\\"x\\\"\""),
        led("t.example.test", Uuid::nil()),
    ];
    registry.edit_records(at(1), zone, &edits).await.unwrap();
    let snapshot = registry.snapshot();
    let text = write_zone_file(&host("example.test"), snapshot.record_sets(zone).map(|set| &set.value));
    let parsed = parse_zone_file(&text, &host("example.test")).unwrap();
    assert_eq!(parsed.len(), edits.len(), "{text}");
    let copy = registry.create_zone(at(2), &host("copy.test"), ZoneTraits::default()).await.unwrap();
    let elsewhere = text.replace("example.test.\t", "copy.test.\t");
    // Records of one moment have no order among them.
    for (second, parsed) in (3..).zip(parse_zone_file(&elsewhere, &copy.name).unwrap()) {
        let record = parsed.record.with_proxied(parsed.proxied == Some(true)).unwrap();
        registry.edit_records(at(second), copy.id, &[RecordEdit::Create(record)]).await.unwrap();
    }
    let snapshot = registry.snapshot();
    let copied = write_zone_file(&copy.name, snapshot.record_sets(copy.id).map(|set| &set.value));
    assert_eq!(copied.replace("copy.test", "example.test"), text);
    assert_eq!(snapshot.route("t.copy.test").map(|route| route.tunnel), Some(Uuid::nil()));
}

#[test]
fn hosts_are_shown_as_clients_read_them_and_quotes_make_no_other_record() {
    let parse = |kind, text: &str| RecordContent::parse(kind, text, None, None).unwrap();
    for (kind, text, shown, member) in [
        (RecordType::Svcb, "1 a.test port=81", "1 a.test. port=81", "target"),
        (RecordType::Https, "0 A.test.", "0 a.test.", "target"),
        (RecordType::Naptr, "1 2 S x \"\" a.test", "1 2 \"S\" \"x\" \"\" a.test.", "replacement"),
        (RecordType::Srv, "1 2 3 a.test.", "1 2 3 a.test", "target"),
    ] {
        let content = parse(kind, text);
        assert_eq!(content.shown(), shown);
        let data = content.data().unwrap();
        assert_eq!(data[member], if kind == RecordType::Srv { "a.test" } else { "a.test." });
        assert_eq!(RecordContent::from_data(kind, &data, None).unwrap(), content);
        assert_eq!(parse(kind, &content.shown()), content);
    }
    let https = |text: &str| parse(RecordType::Https, text);
    assert!(https("1 . alpn=h2").is_same(&https("1 . alpn=\"h2\"")));
    assert!(!https("1 . alpn=h2").is_same(&https("1 . alpn=h3")));
}

#[tokio::test]
async fn what_lies_under_a_name_follows_it() {
    let (registry, zone) = open().await;
    let names = [
        "example.test",
        "a.test.example.test",
        "*.b.example.test",
        "x.b.example.test",
        "b-c.example.test",
        "zz.example.test",
    ];
    let edits: Vec<_> = names.iter().rev().map(|name| create(name, RecordType::A, "192.0.2.1")).collect();
    registry.edit_records(at(1), zone, &edits).await.unwrap();
    let snapshot = registry.snapshot();
    let hosts: Vec<&str> = snapshot.record_sets(zone).map(|set| &*set.host).collect();
    assert_eq!(hosts, ["@", "*.b", "x.b", "b-c", "a.test", "zz"]);
    for (host, next) in [("@", "@"), ("a", "*.b"), ("b", "*.b"), ("y.b", "b-c"), ("test", "a.test"), ("zz", "zz")] {
        assert_eq!(snapshot.records_from(zone, host).map(|set| &*set.host), Some(next), "{host}");
    }
    assert!(snapshot.records_from(zone, "a.zz").is_none());
}

#[tokio::test]
async fn a_deleted_zone_takes_everything_with_it_and_may_come_again() {
    let (registry, zone) = open().await;
    let edits: Vec<_> =
        (0..350).map(|index| create(&format!("h{index}.example.test"), RecordType::A, "192.0.2.1")).collect();
    registry.edit_records(at(1), zone, &edits).await.unwrap();
    assert_eq!(registry.snapshot().record_count(zone), 350);
    registry.sign_zone(at(1), zone, true).await.unwrap();
    assert!(registry.snapshot().zone_key(zone).is_some());
    registry.delete_zone(at(2), zone).await.unwrap();
    let snapshot = registry.snapshot();
    assert!(snapshot.zone_key(zone).is_none());
    assert!(snapshot.zone(zone).is_none() && snapshot.zone_named("example.test").is_none());
    assert_eq!((snapshot.zone_count(), snapshot.record_count(zone)), (0, 0));
    assert!(matches!(registry.delete_zone(at(3), zone).await, Err(ZoneError::NotFound(_))));
    let again = registry.create_zone(at(4), &host("example.test"), ZoneTraits::default()).await.unwrap();
    assert_eq!((registry.snapshot().record_count(again.id), again.created_at), (0, at(4)));
    assert!(matches!(
        registry.create_zone(at(5), &host("example.test"), ZoneTraits::default()).await,
        Err(ZoneError::Exists(_))
    ));
}

/// As a node leaves it that ended after the first transaction.
#[tokio::test]
async fn a_deletion_that_was_left_half_done_is_finished_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    let registry = Registry::open_file(&path, at(0)).await.unwrap();
    let zone = registry.ensure_zone(at(0), &host("example.test")).await.unwrap();
    let edits: Vec<_> =
        (0..20).map(|index| create(&format!("h{index}.example.test"), RecordType::A, "192.0.2.1")).collect();
    registry.edit_records(at(1), zone.id, &edits).await.unwrap();
    drop(registry);
    let engine = Embedded::open(&path).unwrap();
    let mut entry: Value = serde_json::to_value(&zone).unwrap();
    entry["deleted_at"] = json!(at(2));
    let key = format!("zones/{}", zone.id);
    engine.commit(vec![], vec![Write { key, value: Some(entry.to_string().into()) }]).await.unwrap();
    drop(engine);
    drop(Registry::open_file(&path, at(3)).await.unwrap());
    let left = Embedded::open(&path).unwrap().load().await.unwrap();
    let left: Vec<_> = left.entries.iter().map(|entry| entry.key.split('/').next().unwrap()).collect();
    assert_eq!(left, ["accounts", "schema"]);
}

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_forward() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    let account = AccountId::random();
    let zone = ZoneId::random();
    let tunnel = Uuid::new_v4();
    let mut entries = vec![
        (format!("accounts/{account}"), json!({"id": account, "name": "Snicket", "created_at": at(0)})),
        (format!("zones/{zone}"), json!({"id": zone, "name": "example.test", "created_at": at(0)})),
    ];
    for index in 0..120 {
        let name = if index == 0 { "*.w.example.test".to_owned() } else { format!("h{index}.example.test") };
        let value = json!({"hostname": name, "tunnel": tunnel, "zone": zone, "created_at": at(index)});
        entries.push((format!("routes/{name}"), value));
    }
    let lost = json!({"hostname": "gone.test", "tunnel": tunnel, "zone": ZoneId::random(), "created_at": at(0)});
    entries.push(("routes/gone.test".to_owned(), lost));
    let engine = Embedded::open(&path).unwrap();
    let write = |(key, value): (String, Value)| Write { key, value: Some(value.to_string().into()) };
    engine.commit(vec![], entries.into_iter().map(write).collect()).await.unwrap();
    drop(engine);

    for _ in 0..2 {
        let registry = Registry::open_file(&path, at(999)).await.unwrap();
        let snapshot = registry.snapshot();
        assert_eq!(snapshot.account().id, account);
        assert_eq!((snapshot.record_count(zone), snapshot.routes_of(tunnel).count()), (120, 120));
        assert_eq!(snapshot.route("x.w.example.test").map(|route| route.tunnel), Some(tunnel));
        let (set, record) = snapshot.records(zone).nth(7).unwrap();
        assert_eq!((&*set.host, record.created_at, record.proxied), ("h7", at(7), true), "in the order of old");
        assert!(snapshot.route("gone.test").is_none());
        drop(snapshot);
        drop(registry);
    }
    let engine = Embedded::open(&path).unwrap();
    assert!(engine.load().await.unwrap().entries.iter().all(|entry| !entry.key.starts_with("routes/")));

    let newer = Write { key: "schema/version".into(), value: Some(r#"{"version":99}"#.into()) };
    engine.commit(Vec::<Guard>::new(), vec![newer]).await.unwrap();
    drop(engine);
    let refused = Registry::open_file(&path, at(0)).await.err().unwrap();
    assert!(matches!(refused, OpenError::Schema { found: 99, known: 2 }), "{refused}");
    assert!(refused.to_string().contains("newer program"), "{refused}");
}
