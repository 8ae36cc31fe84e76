//! Signed zones, as a validating resolver sees them: `delv` checks every answer against the zone's key.

use std::path::PathBuf;

use hickory_proto::rr::RecordType as Kind;
use registry::{KeyStep, RecordEdit, ZoneError, ZoneKey};
use tempfile::TempDir;
use tokio::process::Command;

use crate::setting::{Setting, at, host, proxied, question, record};

/// `delv`, which trusts the key of `example.test`.
struct Delv {
    program: PathBuf,
    files: TempDir,
}

impl Delv {
    async fn of(setting: &Setting) -> Option<Self> {
        let program = harness::peer("delv", "install bind9-dnsutils")?;
        setting.registry.sign_zone(at(1), setting.zone("example.test"), true).await.unwrap();
        let snapshot = setting.registry.snapshot();
        let key = snapshot.zone_key(setting.zone("example.test")).unwrap();
        let delv = Self::trusting(program, key);
        harness::until(harness::LIMIT, "the zone is signed", async || delv.validates(setting, "SOA").await).await;
        Some(delv)
    }

    fn trusting(program: PathBuf, key: &ZoneKey) -> Self {
        let files = tempfile::tempdir().unwrap();
        let anchor = format!(
            "trust-anchors {{ example.test. static-key {} 3 {} \"{}\"; }};",
            ZoneKey::FLAGS,
            ZoneKey::ALGORITHM,
            key.public()
        );
        std::fs::write(files.path().join("anchors"), anchor).unwrap();
        Self { program, files }
    }

    /// Whether it believes what the zone's own name has of this type.
    async fn validates(&self, setting: &Setting, kind: &str) -> bool {
        self.ask(setting, &["example.test", kind]).await.contains("; fully validated")
    }

    async fn ask(&self, setting: &Setting, words: &[&str]) -> String {
        let server = setting.server.address();
        let mut command = Command::new(&self.program);
        command.arg("-a").arg(self.files.path().join("anchors")).arg("+root=example.test");
        command.args([&format!("@{}", server.ip()), "-p", &server.port().to_string()]).args(words);
        let output = command.output().await.expect("delv starts");
        let both = [output.stdout, output.stderr].concat();
        String::from_utf8(both).expect("is text")
    }
}

async fn zone() -> Setting {
    let setting = Setting::start().await;
    setting
        .add(vec![
            record("a.example.test", "A", "192.0.2.2"),
            record("a.example.test", "A", "192.0.2.1"),
            record("a.example.test", "TXT", "text"),
            record("alias.example.test", "CNAME", "a.example.test"),
            record("*.w.example.test", "MX", "10 a.example.test"),
            proxied("www.example.test", "A", "192.0.2.9"),
            record("deep.empty.example.test", "A", "192.0.2.1"),
            record("example.test", "CNAME", "a.example.test"),
            record("example.test", "TXT", "apex"),
            record("safe.example.test", "NS", "ns.elsewhere.test"),
            record("safe.example.test", "DS", &format!("1 13 2 {}", "ab".repeat(32))),
            record("unsafe.example.test", "NS", "ns.elsewhere.test"),
            record("_s._tcp.example.test", "SRV", "1 2 443 a.example.test"),
        ])
        .await;
    setting
}

#[tokio::test]
async fn every_answer_of_a_signed_zone_is_validated() {
    let setting = zone().await;
    let Some(delv) = Delv::of(&setting).await else { return };
    for (name, kind, expected) in [
        ("a.example.test", "A", "192.0.2.1"),
        ("A.eXample.test", "TXT", "text"),
        ("alias.example.test", "A", "192.0.2.2"),
        ("x.w.example.test", "MX", "10 a.example.test."),
        ("*.w.example.test", "MX", "10 a.example.test."),
        ("www.example.test", "A", "198.51.100.1"),
        ("example.test", "A", "192.0.2.1"),
        ("example.test", "TXT", "apex"),
        ("example.test", "NS", "ns1.example.test."),
        ("example.test", "DNSKEY", "257 3 13"),
        ("example.test", "CDNSKEY", "257 3 13"),
        ("example.test", "CDS", "13 2"),
        ("ns1.example.test", "A", "198.51.100.1"),
        ("_s._tcp.example.test", "SRV", "1 2 443"),
        ("safe.example.test", "DS", "1 13 2"),
        ("a.example.test", "ANY", "RFC8482"),
    ] {
        let answer = delv.ask(&setting, &[name, kind]).await;
        assert!(answer.contains("; fully validated") && answer.contains(expected), "{name} {kind}: {answer}");
        assert!(!answer.contains("unsigned"), "{name} {kind}: {answer}");
    }
    for (name, kind) in [
        ("a.example.test", "AAAA"),
        ("nobody.example.test", "A"),
        ("x.a.example.test", "A"),
        ("empty.example.test", "A"),
        ("www.example.test", "AAAA"),
        ("www.example.test", "CNAME"),
        ("example.test", "AAAA"),
        ("unsafe.example.test", "DS"),
        ("x.w.example.test", "A"),
    ] {
        let answer = delv.ask(&setting, &[name, kind]).await;
        assert!(answer.contains("; negative response, fully validated"), "{name} {kind}: {answer}");
    }
}

#[tokio::test]
async fn only_who_wants_signatures_gets_them() {
    let setting = zone().await;
    setting.registry.sign_zone(at(1), setting.zone("example.test"), true).await.unwrap();
    let types = async |name: &str, kind, wants: bool| {
        let mut asked = question(name, kind);
        asked.edns.as_mut().unwrap().set_dnssec_ok(wants);
        let answer = setting.udp(&asked).await;
        let sections = [&answer.answers, &answer.authorities];
        let types = sections.map(|records| records.iter().map(|it| u16::from(it.record_type())).collect::<Vec<_>>());
        (u16::from(answer.metadata.response_code), types)
    };
    harness::until(harness::LIMIT, "the zone is signed", async || {
        types("a.example.test", Kind::A, true).await == (0, [vec![1, 1, 46], vec![]])
    })
    .await;
    assert_eq!(types("a.example.test", Kind::A, false).await, (0, [vec![1, 1], vec![]]));
    // Whoever checks is told by the types of the name that it is not there.
    assert_eq!(types("nobody.example.test", Kind::A, false).await, (3, [vec![], vec![6]]));
    assert_eq!(types("nobody.example.test", Kind::A, true).await, (0, [vec![], vec![6, 46, 47, 46]]));
    // Delegations: those who answer there are not ours to sign, but whether they sign themselves is.
    assert_eq!(types("x.safe.example.test", Kind::A, true).await, (0, [vec![], vec![2, 43, 46]]));
    assert_eq!(types("x.unsafe.example.test", Kind::A, true).await, (0, [vec![], vec![2, 47, 46]]));

    setting.registry.sign_zone(at(2), setting.zone("example.test"), false).await.unwrap();
    harness::until(harness::LIMIT, "the zone is not signed any more", async || {
        types("a.example.test", Kind::A, true).await == (0, [vec![1, 1], vec![]])
    })
    .await;
    assert!(setting.ask("example.test", Kind::DNSKEY).await.starts_with("NoError\n!"));
}

#[tokio::test]
async fn each_zone_signs_its_own_part_of_an_answer() {
    let setting = Setting::start().await;
    setting.registry.ensure_zone(at(0), &host("in.example.test")).await.unwrap();
    let inner = setting.zone("in.example.test");
    setting.registry.sign_zone(at(0), inner, true).await.unwrap();
    let snapshot = setting.registry.snapshot();
    let key = snapshot.zone_key(inner).unwrap();
    let digest: String = key.digest(&host("in.example.test")).iter().map(|byte| format!("{byte:02x}")).collect();
    setting
        .add(vec![
            record("alias.example.test", "CNAME", "a.in.example.test"),
            record("a.in.example.test", "A", "192.0.2.1"),
        ])
        .await;
    // The outer zone knows the inner one's key, as if somebody else had it.
    let zone = setting.zone("example.test");
    for (kind, content) in [("NS", "ns1.example.test".to_owned()), ("DS", format!("{} 13 2 {digest}", key.tag()))] {
        let edit = RecordEdit::Create(record("in.example.test", kind, &content));
        setting.registry.edit_records(at(1), zone, &[edit]).await.unwrap();
    }
    let Some(delv) = Delv::of(&setting).await else { return };
    for words in [
        ["alias.example.test", "A"],
        ["a.in.example.test", "A"],
        ["in.example.test", "DS"],
        ["no.in.example.test", "A"],
    ] {
        let answer = delv.ask(&setting, &words).await;
        assert!(answer.contains("fully validated") && !answer.contains("unsigned"), "{words:?}: {answer}");
    }
}

#[tokio::test]
async fn while_a_key_is_changed_each_answer_can_be_checked() {
    let setting = zone().await;
    let Some(old) = Delv::of(&setting).await else { return };
    let zone = setting.zone("example.test");
    let key = |setting: &Setting| setting.registry.snapshot().zone_key(zone).unwrap().value.clone();
    let delegated = async || setting.ask("example.test", Kind::CDS).await;
    let first = delegated().await;
    let (mut new, mut moments) = (None, [1, 11, 11 + 25 * 60, 11 + 50 * 60].into_iter());
    for (step, old_is_known, new_is_known) in [
        (KeyStep::Published, true, true),
        (KeyStep::Announced, true, true),
        (KeyStep::Changed, true, true),
        (KeyStep::Steady, false, true),
    ] {
        let now = at(60 * moments.next().unwrap());
        if step != KeyStep::Published {
            let early = setting.registry.advance_zone_key(at(60), zone, false).await;
            assert!(matches!(early, Err(ZoneError::TooEarly(_))), "{early:?}");
        }
        setting.registry.advance_zone_key(now, zone, false).await.unwrap();
        assert_eq!(key(&setting).step(), step);
        let other = key(&setting).published().last().unwrap().clone();
        let new = &*new.get_or_insert_with(|| Delv::trusting(old.program.clone(), &other));
        harness::until(harness::LIMIT, "the keys are those", async || {
            new.validates(&setting, "DNSKEY").await == new_is_known
                && old.validates(&setting, "DNSKEY").await == old_is_known
        })
        .await;
        for (delv, is_known) in [(&old, old_is_known), (new, new_is_known)] {
            for kind in ["SOA", "TXT", "MX"] {
                let believes = delv.ask(&setting, &["example.test", kind]).await.contains("fully validated");
                assert_eq!(believes, is_known, "{step:?} {kind}");
            }
        }
        // Registrars that look are told of the new one from the second step on.
        assert_eq!(delegated().await == first, step == KeyStep::Published, "{step:?}");
    }
    let steady = setting.registry.keep_zone_key(at(0), zone).await;
    assert!(matches!(steady, Err(ZoneError::NothingToKeep)), "{steady:?}");
    setting.registry.advance_zone_key(at(0), zone, false).await.unwrap();
    setting.registry.keep_zone_key(at(0), zone).await.unwrap();
    assert_eq!(key(&setting).step(), KeyStep::Steady);

    // A delegation may name the next key by now, so that it stays until none does.
    for step in [KeyStep::Published, KeyStep::Announced] {
        setting.registry.advance_zone_key(at(0), zone, true).await.unwrap();
        assert_eq!(key(&setting).step(), step);
    }
    let (present, next) = (key(&setting), key(&setting).announced().clone());
    setting.registry.keep_zone_key(at(0), zone).await.unwrap();
    let recalled = key(&setting);
    assert_eq!(recalled.step(), KeyStep::Recalled);
    assert_eq!((recalled.announced().tag(), recalled.published().count()), (present.tag(), 2));
    assert!(recalled.published().any(|key| key.public() == next.public()));
    let hour = 3_600;
    let early = setting.registry.keep_zone_key(at(24 * hour), zone).await;
    assert!(matches!(early, Err(ZoneError::TooEarly(_))), "{early:?}");
    setting.registry.keep_zone_key(at(25 * hour), zone).await.unwrap();
    assert_eq!((key(&setting).step(), key(&setting).published().count()), (KeyStep::Steady, 1));
    assert_eq!(key(&setting).public(), present.public());
}
